/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a disk is compared with, and who moves it: over a pool made by hand and a real repository.
 */
#include "repo_kit.h"

#include "job/base.h"
#include "xenapi/inventory_store.h"

#define SIZE (4u * KIT_CHUNK)

struct scene {
    struct kit kit;
    struct xv_point *base; /* of disk vdi-1 at position 0, tracked from snap-1 */
    struct xv_host hosts[2];
    struct xv_sr sr;
    struct xv_vdi vdis[2]; /* the live disk and the snapshot it was backed up from */
    size_t vdi_count;
    bool licensed;
    struct xv_store *store; /* the inventory made of the above */
    struct xv_spec spec;
    struct xv_plan_disk disk;
};

static struct scene scene;

static struct xv_point *store_base(struct kit *kit, const char *metadata)
{
    static uint8_t data[SIZE];
    char id[XV_POINT_ID_LENGTH + 1];
    xvsa_error *error = NULL;
    struct xv_disk_writer *writer = NULL;
    struct xv_session *session = kit_begin(kit, "pool/vm-1", NULL);
    kit_fill(data, sizeof data, 7);
    ck_ok(xv_session_add_disk(session, "vdi-1", "0", sizeof data, -1, NULL, &writer, &error),
          error);
    kit_put(session, writer, 0, data, sizeof data);
    ck_ok(xv_disk_writer_finish(writer, metadata, NULL, &error), error);
    kit_commit(session, id);
    xv_disk_writer_free(writer);
    xv_session_free(session);
    return kit_find(kit, id);
}

static void set_up(void)
{
    memset(&scene, 0, sizeof scene);
    scene.kit = kit_new(false);
    scene.base = store_base(&scene.kit, "{\"vdi\":\"vdi-1\",\"snapshot\":\"snap-1\",\"cbt\":true}");
    scene.sr = (struct xv_sr){
        .ref = "sr", .uuid = "sr", .name = "SR", .type = "nfs", .supports_cbt = true};
    scene.vdis[0] = (struct xv_vdi){.ref = "ref-1",
                                    .uuid = "vdi-1",
                                    .name = "root",
                                    .sr = &scene.sr,
                                    .size = SIZE,
                                    .cbt_enabled = true};
    scene.vdis[1] = (struct xv_vdi){.ref = "ref-s",
                                    .uuid = "snap-1",
                                    .sr = &scene.sr,
                                    .snapshot_of = "ref-1",
                                    .is_snapshot = true,
                                    .type = "cbt_metadata",
                                    .size = SIZE,
                                    .cbt_enabled = true};
    scene.vdi_count = 2;
    scene.licensed = true;
    scene.hosts[0] = (struct xv_host){.ref = "h1", .uuid = "h1", .name = "one", .live = true};
    scene.hosts[1] = (struct xv_host){.ref = "h2", .uuid = "h2", .name = "two", .live = true};
    scene.spec = (struct xv_spec){.use_nbd = true, .use_http = true};
    scene.disk = (struct xv_plan_disk){.device = "0", .vdi_uuid = "vdi-1", .size = SIZE};
}

static void tear_down(void)
{
    xv_reasons_free(&scene.disk.reasons);
    if (scene.store != NULL)
        xv_store_free(scene.store);
    xv_point_unref(scene.base);
    kit_free(&scene.kit);
}

static void add(struct xv_list *list, const void *item, size_t size, const char *link)
{
    const struct xv_links links = {link, NULL};
    void *place = xv_list_add(list, &links);
    ck_assert_ptr_nonnull(place);
    memcpy(place, item, size);
}

/* Makes the inventory of what the test has set up so far. */
static void make_inventory(void)
{
    xvsa_error *error = NULL;
    scene.store = xv_store_new();
    ck_assert_ptr_nonnull(scene.store);
    for (size_t i = 0; i < 2; i++)
        add(&scene.store->hosts, &scene.hosts[i], sizeof scene.hosts[i], NULL);
    add(&scene.store->srs, &scene.sr, sizeof scene.sr, NULL);
    for (size_t i = 0; i < scene.vdi_count; i++)
        add(&scene.store->vdis, &scene.vdis[i], sizeof scene.vdis[i], "sr");
    ck_ok(xv_store_finish(scene.store, &error), error);
    scene.store->public.cbt_licensed = scene.licensed;
    scene.disk.vdi = &scene.store->public.vdis[0];
    scene.disk.sr = &scene.store->public.srs[0];
}

static void choose(struct xv_point *base, enum xv_mode mode, int base_index)
{
    make_inventory();
    xv_base_choose(&scene.spec, &scene.store->public, base, &scene.disk);
    ck_assert_str_eq(xv_mode_name(scene.disk.mode), xv_mode_name(mode));
    ck_assert_int_eq(scene.disk.base_index, base_index);
}

static void only(enum xv_reason_code code)
{
    ck_assert_uint_eq(scene.disk.reasons.count, 1);
    ck_assert_str_eq(xv_reason_name(scene.disk.reasons.items[0].code), xv_reason_name(code));
}

START_TEST(tracked_disks_are_incremental)
{
    choose(scene.base, XV_MODE_INCREMENTAL, 0);
    ck_assert_str_eq(scene.disk.base_snapshot, "snap-1");
    ck_assert_uint_eq(scene.disk.reasons.count, 0);
}
END_TEST

START_TEST(a_grown_disk_is_incremental)
{
    scene.disk.size = 2 * SIZE;
    choose(scene.base, XV_MODE_INCREMENTAL, 0);
}
END_TEST

START_TEST(without_base_all_is_read)
{
    choose(NULL, XV_MODE_FULL, -1);
    only(XV_REASON_FIRST_BACKUP);
}
END_TEST

START_TEST(tracking_is_to_be_switched_on)
{
    scene.vdis[0].cbt_enabled = false;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_NOT_ENABLED);
    ck_assert(scene.disk.enable_cbt);
}
END_TEST

START_TEST(tracking_is_left_off_on_request)
{
    scene.vdis[0].cbt_enabled = false;
    scene.spec.cbt = XV_CBT_USE;
    choose(scene.base, XV_MODE_COMPARE, 0);
    ck_assert(!scene.disk.enable_cbt);
}
END_TEST

START_TEST(tracking_is_not_used_on_request)
{
    scene.spec.cbt = XV_CBT_OFF;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_DISABLED_BY_POLICY);
}
END_TEST

START_TEST(no_licence)
{
    scene.vdis[0].cbt_enabled = false;
    scene.licensed = false;
    choose(scene.base, XV_MODE_COMPARE, 0);
    ck_assert(xv_reasons_have(&scene.disk.reasons, XV_REASON_CBT_NOT_LICENSED));
    ck_assert(!scene.disk.enable_cbt);
}
END_TEST

START_TEST(a_driver_that_cannot_track)
{
    scene.sr.supports_cbt = false;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_UNSUPPORTED_SR);
}
END_TEST

START_TEST(the_snapshot_is_gone)
{
    scene.vdi_count = 1;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_BASE_GONE);
    ck_assert_ptr_null(scene.disk.base_snapshot);
}
END_TEST

START_TEST(the_snapshot_is_of_another_disk)
{
    scene.vdis[1].snapshot_of = "ref-2";
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_RESET);
}
END_TEST

START_TEST(the_snapshot_does_not_track)
{
    scene.vdis[1].cbt_enabled = false;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_RESET);
}
END_TEST

START_TEST(a_shrunk_disk_is_compared)
{
    scene.disk.size = SIZE / 2;
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_DISK_SHRUNK);
}
END_TEST

START_TEST(another_disk_at_the_place_is_compared)
{
    scene.disk.vdi_uuid = "vdi-2";
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_DISK_REPLACED);
}
END_TEST

START_TEST(a_disk_that_the_base_has_not_is_read_whole)
{
    scene.disk.vdi_uuid = "vdi-2";
    scene.disk.device = "1";
    choose(scene.base, XV_MODE_FULL, -1);
    only(XV_REASON_DISK_NEW);
}
END_TEST

START_TEST(a_base_without_tracking)
{
    xv_point_unref(scene.base);
    scene.base =
        store_base(&scene.kit, "{\"vdi\":\"vdi-1\",\"snapshot\":\"snap-1\",\"cbt\":false}");
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_NOT_ENABLED);
}
END_TEST

/* A metadata text that makes no sense is a base that cannot be tracked from, not an error. */
START_TEST(a_base_with_odd_metadata)
{
    xv_point_unref(scene.base);
    scene.base = store_base(&scene.kit, "[1, 2]");
    choose(scene.base, XV_MODE_COMPARE, 0);
    only(XV_REASON_CBT_NOT_ENABLED);
}
END_TEST

/* A plan of one VM whose disk is on the only SR, with the given proxies. */
static struct xv_plan make_plan(struct xv_sched_site site, struct xv_plan_vm *vm)
{
    make_inventory();
    *vm = (struct xv_plan_vm){.uuid = "vm-1", .name = "web", .disks = &scene.disk, .disk_count = 1};
    scene.spec.type = XV_JOB_RESTORE;
    return (struct xv_plan){.spec = &scene.spec,
                            .inventory = &scene.store->public,
                            .site = site,
                            .vms = vm,
                            .vm_count = 1,
                            .proxy_count = site.proxy_count};
}

static void place(const bool *attached, struct xv_sched_proxy *proxies, size_t count,
                  struct xv_plan *plan)
{
    struct xv_plan_vm *vm = calloc(1, sizeof *vm);
    xvsa_error *error = NULL;
    *plan = make_plan((struct xv_sched_site){.host_count = 2,
                                             .sr_count = 1,
                                             .attached = attached,
                                             .proxies = proxies,
                                             .proxy_count = count},
                      vm);
    ck_ok(xv_plan_place(plan, &error), error);
}

static void free_plan(struct xv_plan *plan)
{
    xvsa_error_unref(plan->vms[0].refusal);
    xv_reasons_free(&plan->vms[0].reasons);
    free(plan->vms[0].helping_hosts);
    free(plan->vms);
}

START_TEST(a_disk_goes_to_a_proxy_that_reaches_it)
{
    const bool attached[] = {false, true};
    struct xv_sched_proxy proxies[] = {{.host = 0, .capacity = 4}, {.host = 1, .capacity = 4}};
    struct xv_plan plan;
    place(attached, proxies, 2, &plan);
    ck_assert_ptr_null(plan.vms[0].refusal);
    ck_assert_uint_eq(scene.disk.proxy, 1);
    free_plan(&plan);
}
END_TEST

START_TEST(nobody_reaches_it)
{
    const bool attached[] = {false, true};
    struct xv_sched_proxy proxies[] = {{.host = 0, .capacity = 4}};
    struct xv_plan plan;
    place(attached, proxies, 1, &plan);
    ck_assert_int_eq(xvsa_error_code(plan.vms[0].refusal), XVSA_ERR_REFUSED);
    ck_assert(xv_reasons_have(&plan.vms[0].reasons, XV_REASON_NO_PROXY_REACHES_SR));
    ck_assert(!plan.vms[0].helping_hosts[0] && plan.vms[0].helping_hosts[1]);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(plan.vms[0].refusal), "two"));
    free_plan(&plan);
}
END_TEST

START_TEST(there_is_no_proxy)
{
    const bool attached[] = {true, true};
    struct xv_plan plan;
    place(attached, NULL, 0, &plan);
    ck_assert_int_eq(xvsa_error_code(plan.vms[0].refusal), XVSA_ERR_REFUSED);
    ck_assert(xv_reasons_have(&plan.vms[0].reasons, XV_REASON_NO_PROXY));
    ck_assert(plan.vms[0].helping_hosts[0] && plan.vms[0].helping_hosts[1]);
    free_plan(&plan);
}
END_TEST

static void fill(Suite *suite)
{
    const TTest *const tests[] = {
        tracked_disks_are_incremental,
        a_grown_disk_is_incremental,
        without_base_all_is_read,
        tracking_is_to_be_switched_on,
        tracking_is_left_off_on_request,
        tracking_is_not_used_on_request,
        no_licence,
        a_driver_that_cannot_track,
        the_snapshot_is_gone,
        the_snapshot_is_of_another_disk,
        the_snapshot_does_not_track,
        a_shrunk_disk_is_compared,
        another_disk_at_the_place_is_compared,
        a_disk_that_the_base_has_not_is_read_whole,
        a_base_without_tracking,
        a_base_with_odd_metadata,
        a_disk_goes_to_a_proxy_that_reaches_it,
        nobody_reaches_it,
        there_is_no_proxy,
    };
    TCase *plan = tcase_create("plan");
    tcase_add_checked_fixture(plan, set_up, tear_down);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(plan, tests[i]);
    suite_add_tcase(suite, plan);
}

UNIT_MAIN("plan")
