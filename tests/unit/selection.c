/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <string.h>

#include "job/selection.h"
#include "job/spec.h"

#define VMS 6

/* A small pool made by hand. */
static struct xv_vdi vdis[3];
static struct xv_vbd vbds[4];
static const struct xv_vbd *of_db[3] = {&vbds[0], &vbds[1], &vbds[2]};
static struct xv_vm vms[VMS];
static struct xv_inventory inventory;

static const char *const backup_tag[] = {"backup"};

static void make_pool(void)
{
    static const char *const names[VMS] = {"web",      "db",       "web",
                                           "web-test", "template", "unfinished"};
    static const char *const uuids[VMS] = {"aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff"};
    for (size_t i = 0; i < VMS; i++) {
        vms[i] = (struct xv_vm){.ref = uuids[i],
                                .uuid = uuids[i],
                                .name = names[i],
                                .power_state = "Halted",
                                .tags = backup_tag,
                                .tag_count = i < 2 ? 1 : 0};
    }
    vms[4].is_template = true;
    vms[5].tag = "xvsa:1.0:f0";
    vdis[0] = (struct xv_vdi){.uuid = "v0", .name = "db root"};
    vdis[1] = (struct xv_vdi){.uuid = "v1", .name = "db scratch"};
    vdis[2] = (struct xv_vdi){.uuid = "v2", .name = "tools.iso"};
    vbds[0] = (struct xv_vbd){.device = "0", .type = "Disk", .vm = &vms[1], .vdi = &vdis[0]};
    vbds[1] = (struct xv_vbd){.device = "1", .type = "Disk", .vm = &vms[1], .vdi = &vdis[1]};
    vbds[2] = (struct xv_vbd){.device = "3", .type = "CD", .vm = &vms[1], .vdi = &vdis[2]};
    vms[1].vbds = of_db;
    vms[1].vbd_count = 3;
    inventory = (struct xv_inventory){.vms = vms, .vm_count = VMS};
}

static struct xv_selection *read_selection(const char *text)
{
    xvsa_error *error = NULL;
    json_t *json = NULL;
    struct xv_selection *selection = NULL;
    ck_ok(xv_json_parse(text, "selection", &json, &error), error);
    ck_ok(xv_selection_read(json, "selection", &selection, &error), error);
    json_decref(json);
    return selection;
}

/* The uuids that a selection names, one after another. */
static void check_vms(const char *text, const char *expected)
{
    struct xv_selection *selection = read_selection(text);
    const struct xv_vm **found = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    ck_ok(xv_selection_vms(selection, &inventory, &found, &count, &error), error);
    char uuids[128] = "";
    for (size_t i = 0; i < count; i++)
        strcat(strcat(uuids, i == 0 ? "" : " "), found[i]->uuid);
    ck_assert_msg(strcmp(uuids, expected) == 0, "%s: \"%s\", not \"%s\"", text, uuids, expected);
    free(found);
    xv_selection_free(selection);
}

START_TEST(every_way_to_name_vms)
{
    check_vms("{\"vms\":[{\"all\":true}]}", "bbbb aaaa cccc dddd");
    check_vms("{\"vms\":[{\"name\":\"web\"}]}", "aaaa cccc");
    check_vms("{\"vms\":[{\"uuid\":\"BBBB\"}]}", "bbbb");
    check_vms("{\"vms\":[{\"tag\":\"backup\"}]}", "bbbb aaaa");
    check_vms("{\"vms\":[{\"pattern\":\"web*\"}]}", "aaaa cccc dddd");
    check_vms("{\"vms\":[{\"regex\":\"^(db|web)$\"}]}", "bbbb aaaa cccc");
    check_vms("{\"vms\":[{\"regex\":\"e\"}]}", "aaaa cccc dddd");
    check_vms("{\"vms\":[{\"pattern\":\"nothing*\"}]}", "");
    check_vms("{\"vms\":[{\"name\":\"db\"},{\"uuid\":\"aaaa\"}]}", "bbbb aaaa");
    check_vms("{\"vms\":[{\"all\":true}],\"exclude\":{\"vms\":[{\"pattern\":\"web*\"}]}}", "bbbb");
    check_vms("{\"vms\":[{\"all\":true}],\"exclude\":{\"vms\":[{\"uuid\":\"none\"}]}}",
              "bbbb aaaa cccc dddd");
}
END_TEST

START_TEST(a_vm_that_is_not_there_is_told)
{
    static const char *const texts[] = {
        "{\"vms\":[{\"uuid\":\"9999\"}]}", "{\"vms\":[{\"all\":true},{\"name\":\"nobody\"}]}",
        "{\"vms\":[{\"name\":\"template\"}]}", "{\"vms\":[{\"uuid\":\"ffff\"}]}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct xv_selection *selection = read_selection(texts[i]);
        const struct xv_vm **found = NULL;
        size_t count = 0;
        xvsa_error *error = NULL;
        ck_fails(xv_selection_vms(selection, &inventory, &found, &count, &error),
                 XVSA_ERR_NOT_FOUND, error);
        xv_selection_free(selection);
    }
}
END_TEST

static void check_disks(const char *exclusion, bool first, bool second)
{
    char text[256];
    snprintf(text, sizeof text, "{\"vms\":[{\"all\":true}],\"exclude\":{\"disks\":[%s]}}",
             exclusion);
    struct xv_selection *selection = read_selection(text);
    ck_assert_msg(xv_selection_excludes_disk(selection, &vbds[0]) == first, "%s", exclusion);
    ck_assert_msg(xv_selection_excludes_disk(selection, &vbds[1]) == second, "%s", exclusion);
    xv_selection_free(selection);
}

START_TEST(every_way_to_exclude_disks)
{
    check_disks("{\"device\":\"1\"}", false, true);
    check_disks("{\"uuid\":\"v0\"}", true, false);
    check_disks("{\"name\":\"db root\"}", true, false);
    check_disks("{\"pattern\":\"*scratch\"}", false, true);
    check_disks("{\"regex\":\"^db\"}", true, true);
    check_disks("{\"all\":true,\"vm\":\"db\"}", true, true);
    check_disks("{\"all\":true,\"vm\":\"web\"}", false, false);
    check_disks("{\"device\":\"1\",\"vm\":\"bbbb\"}", false, true);
    ck_assert(xv_vbd_is_disk(&vbds[0]));
    ck_assert(!xv_vbd_is_disk(&vbds[2]));
}
END_TEST

START_TEST(bad_specs_name_the_member)
{
    static const struct {
        const char *text;
        const char *told;
    } cases[] = {
        {"[]", "job: must be a JSON object"},
        {"{", "line 1"},
        {"{\"type\":\"verify\",\"type\":\"verify\"}", "duplicate"},
        {"{}", "job.type"},
        {"{\"type\":\"copy\"}", "job.type: \"copy\""},
        {"{\"type\":\"backup\"}", "job.selection"},
        {"{\"type\":\"backup\",\"selection\":{}}", "job.selection.vms"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{}]}}", "job.selection.vms[0]"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"name\":\"a\",\"tag\":\"b\"}]}}",
         "vms[0]"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"nme\":\"a\"}]}}", "\"nme\""},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"regex\":\"(\"}]}}", "vms[0].regex"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":false}]}}", "vms[0].all"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":true}]},\"refuse\":[\"CBT\"]}",
         "job.refuse[0]"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":true}]},\"transports\":[]}",
         "job.transports"},
        {"{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":true}]},\"parallel_vms\":0}",
         "job.parallel_vms"},
        {"{\"type\":\"restore\"}", "job.points"},
        {"{\"type\":\"restore\",\"points\":[\"\"]}", "job.points[0]"},
        {"{\"type\":\"restore\",\"points\":[\"a\"],\"srs\":{\"x\":null}}", "job.srs.x"},
        {"{\"type\":\"restore\",\"points\":[\"a\"],\"mac\":\"new\"}", "job.mac"},
        {"{\"type\":\"verify\",\"quick\":1}", "job.quick"},
        {"{\"type\":\"verify\",\"selection\":{}}", "\"selection\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct xv_spec *spec = NULL;
        xvsa_error *error = NULL;
        ck_assert_msg(xv_spec_read(cases[i].text, &spec, &error) == XVSA_ERR_INVALID, "%s",
                      cases[i].text);
        ck_assert_msg(strstr(xvsa_error_message(error), cases[i].told) != NULL, "%s: %s",
                      cases[i].text, xvsa_error_message(error));
        xv_error_clear(&error);
    }
}
END_TEST

START_TEST(a_spec_has_defaults)
{
    struct xv_spec *spec = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_spec_read("{\"type\":\"backup\",\"selection\":{\"vms\":[{\"all\":true}]}}", &spec,
                       &error),
          error);
    ck_assert(spec->use_nbd && spec->use_http && spec->block_migration && !spec->insecure_nbd);
    ck_assert_int_eq(spec->cbt, XV_CBT_AUTO);
    xv_spec_free(spec);
    ck_ok(xv_spec_read("{\"type\":\"restore\",\"points\":[\"a\"],\"networks\":{\"n\":null}}", &spec,
                       &error),
          error);
    ck_assert_str_eq(spec->vm_name, "{name}");
    ck_assert_int_eq(spec->mac, XV_MAC_AUTO);
    xv_spec_free(spec);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("selection");
    tcase_add_unchecked_fixture(tests, make_pool, NULL);
    tcase_add_test(tests, every_way_to_name_vms);
    tcase_add_test(tests, a_vm_that_is_not_there_is_told);
    tcase_add_test(tests, every_way_to_exclude_disks);
    tcase_add_test(tests, bad_specs_name_the_member);
    tcase_add_test(tests, a_spec_has_defaults);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("selection")
