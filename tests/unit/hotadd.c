/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Disks attached to a machine of the pool simulator, whose devices are links in a folder. Skipped, visibly,
 * without python3.
 */
#define MORE_VMS                                                                                   \
    ", {\"name\": \"hvm\", \"power_state\": \"Running\", \"host\": \"host1\", \"hvm\": true,"      \
    "   \"uuid\": \"11111111-0000-4000-8000-000000000001\"}"                                       \
    ", {\"name\": \"pv\", \"power_state\": \"Running\", \"host\": \"host1\", \"hvm\": false,"      \
    "   \"uuid\": \"11111111-0000-4000-8000-000000000002\"}"
#include "operations_pool.h"

#define HVM "11111111-0000-4000-8000-000000000001"
#define PV  "11111111-0000-4000-8000-000000000002"
#define TAG "xvsa:hotadd:1"
#define MIB ((size_t)1 << 20)

struct guest {
    struct pool pool;
    struct xv_snapshot_disk *disks;
    size_t count;
    char *snapshot;
    char path[256];
    unsigned clones, left;
    int refusal; /* what cloning answers */
    struct xv_hotadd_options options;
};

static int count_clone(void *user, xvsa_error **error)
{
    struct guest *guest = user;
    guest->clones++;
    return guest->refusal == 0 ? 0 : xv_fail(error, guest->refusal, "test", "refused");
}

static void count_left(void *user, const char *why)
{
    ((struct guest *)user)->left++;
    ck_assert_ptr_nonnull(why);
}

static void begin(struct guest *guest, const char *vm)
{
    *guest = (struct guest){.refusal = 0};
    start_pool(&guest->pool);
    guest->snapshot = snapshot(&guest->pool, TAG, &guest->disks, &guest->count);
    snprintf(guest->path, sizeof guest->path, "%s/%s", guest->pool.guests, vm);
    guest->options = (struct xv_hotadd_options){
        .vm_uuid = vm,
        .device_path = guest->path,
        .tag = TAG,
        .disk_name = guest->disks[0].vdi_uuid,
        .size = guest->disks[0].size,
        .cloning = count_clone,
        .left = count_left,
        .user = guest,
    };
}

static void end(struct guest *guest)
{
    size_t left = 0;
    json_decref(control(&guest->pool, "fault/clear", "{}"));
    sweep(&guest->pool, TAG, &left);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(leftovers(&guest->pool), 0);
    xv_snapshot_disks_free(guest->disks, guest->count);
    free(guest->snapshot);
    stop_pool(&guest->pool);
}

static int open_disk(struct guest *guest, struct xv_disk **ret, enum xv_hotadd_fault *fault,
                     xvsa_error **error)
{
    return xv_vdi_open_hotadd(guest->pool.client, guest->disks[0].vdi_ref, &guest->options,
                              &guest->pool.call, ret, fault, error);
}

/* The VDIs that the machine has for a transfer. */
static size_t attached(struct guest *guest)
{
    char *vm = NULL;
    char **vdis = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    struct pool *pool = &guest->pool;
    ck_ok(xv_record_find(pool->client, "VM", guest->options.vm_uuid, &pool->call, &vm, &error),
          error);
    ck_ok(xv_hotadd_list(pool->client, vm, &pool->call, &vdis, &count, &error), error);
    for (size_t i = 0; i < count; i++)
        free(vdis[i]);
    free(vdis);
    free(vm);
    return count;
}

static void check_content(struct guest *guest, struct xv_disk *disk)
{
    char arguments[256];
    uint8_t *data = malloc(4 * MIB);
    xvsa_error *error = NULL;
    ck_ok(xv_disk_read(disk, 0, data, 4 * MIB, &guest->pool.call, &error), error);
    snprintf(arguments, sizeof arguments, "{\"vdi\": \"%s\"}", guest->disks[0].vdi_uuid);
    json_t *place = control(&guest->pool, "disk/path", arguments);
    FILE *file = fopen(json_string_value(json_object_get(place, "path")), "rb");
    uint8_t *expected = calloc(4, MIB);
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(expected, 1, 4 * MIB, file), 4 * MIB);
    ck_assert_mem_eq(data, expected, 4 * MIB);
    fclose(file);
    json_decref(place);
    free(expected);
    free(data);
}

START_TEST(snapshot_is_read_as_a_device)
{
    const char *const vms[] = {HVM, PV};
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault fault;
    xvsa_error *error = NULL;
    begin(&guest, vms[_i]);
    ck_ok(open_disk(&guest, &disk, &fault, &error), error);
    ck_assert_str_eq(disk->ops->transport, "hotadd");
    ck_assert_uint_eq(disk->size, 16 * MIB);
    ck_assert_uint_eq(guest.clones, _i == 0 ? 1 : 0);
    ck_assert_uint_eq(attached(&guest), 1);
    check_content(&guest, disk);
    xv_disk_close(disk);
    ck_assert_uint_eq(attached(&guest), 0);
    ck_assert_uint_eq(guest.left, 0);
    end(&guest);
}
END_TEST

START_TEST(new_disk_is_written_as_a_device)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault fault;
    xvsa_error *error = NULL;
    char *vdi = NULL;
    uint64_t size = 0;
    begin(&guest, HVM);
    const struct xv_vdi_spec spec = {
        .sr_ref = guest.disks[0].sr_ref, .name = "new", .tag = TAG, .size = 4 * MIB};
    ck_ok(xv_vdi_create(guest.pool.client, &spec, &guest.pool.call, &vdi, &size, &error), error);
    guest.options.writable = true;
    guest.options.size = size;
    ck_ok(xv_vdi_open_hotadd(guest.pool.client, vdi, &guest.options, &guest.pool.call, &disk,
                             &fault, &error),
          error);
    struct xv_block_queue *queue = NULL;
    ck_ok(xv_block_queue_new(2, (uint32_t)MIB, &queue, &error), error);
    struct xv_block *block = xv_block_queue_take(queue, NULL);
    block->offset = 2 * MIB;
    block->length = (uint32_t)MIB;
    memset(block->data, 'x', MIB);
    xv_block_queue_push(queue, block);
    xv_block_queue_close(queue);
    ck_ok(xv_disk_write(disk, queue, &guest.pool.call, &error), error);
    xv_disk_close(disk);
    ck_assert_uint_eq(guest.clones, 0);
    guest.options.writable = false;
    ck_ok(xv_vdi_open_hotadd(guest.pool.client, vdi, &guest.options, &guest.pool.call, &disk,
                             &fault, &error),
          error);
    char bytes[4] = "";
    ck_ok(xv_disk_read(disk, 2 * MIB - 1, bytes, 3, NULL, &error), error);
    ck_assert_mem_eq(bytes, "\0xx", 3);
    xv_disk_close(disk);
    xv_block_queue_free(queue);
    free(vdi);
    end(&guest);
}
END_TEST

/* What stands in the way, and what is told. */
static const struct obstacle {
    const char *vm, *fault;
    enum xv_hotadd_fault expected;
} obstacles[] = {
    {HVM,
     "{\"method\": \"VBD.create\", \"error\": [\"DEVICE_ALREADY_EXISTS\", \"autodetect\"], "
     "\"count\": 0}",
     XV_HOTADD_NO_DEVICE},
    {PV, "{\"method\": \"VBD.plug\", \"error\": [\"VM_REQUIRES_SR\", \"vm\", \"sr\"]}",
     XV_HOTADD_SR_NOT_REACHED},
    {HVM, "{\"method\": \"VBD.plug\", \"error\": [\"VM_REQUIRES_SR\", \"vm\", \"sr\"]}",
     XV_HOTADD_SR_NOT_REACHED},
    {HVM, "{\"method\": \"VBD.plug\", \"error\": [\"VM_MISSING_PV_DRIVERS\", \"vm\"]}",
     XV_HOTADD_FAILED},
    {PV, "{\"method\": \"VBD.plug\", \"error\": [\"VDI_IN_USE\", \"vdi\"]}", XV_HOTADD_FAILED},
    {HVM,
     "{\"method\": \"VDI.clone\", \"error\": [\"SR_BACKEND_FAILURE_44\", \"a\", \"b\", "
     "\"c\"]}",
     XV_HOTADD_FAILED},
};

START_TEST(obstacles_leave_nothing)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told = XV_HOTADD_FAILED;
    xvsa_error *error = NULL;
    begin(&guest, obstacles[_i].vm);
    fault(&guest.pool, obstacles[_i].fault);
    ck_assert_int_ne(open_disk(&guest, &disk, &told, &error), 0);
    ck_assert_int_eq((int)told, (int)obstacles[_i].expected);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), guest.disks[0].vdi_uuid));
    xv_error_clear(&error);
    ck_assert_uint_eq(guest.left, 0);
    ck_assert_uint_eq(attached(&guest), 0);
    end(&guest);
}
END_TEST

START_TEST(clone_can_be_refused)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    begin(&guest, HVM);
    guest.refusal = XVSA_ERR_REFUSED;
    ck_fails(open_disk(&guest, &disk, &told, &error), XVSA_ERR_REFUSED, error);
    end(&guest);
}
END_TEST

START_TEST(foreign_device_is_not_opened)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    begin(&guest, PV);
    char device[300];
    ck_assert_int_eq(mkdir(guest.path, 0700), 0);
    for (char letter = 'a'; letter < 'e'; letter++) {
        snprintf(device, sizeof device, "%s/xvd%c", guest.path, letter);
        ck_assert_int_eq(symlink("/dev/zero", device), 0);
    }
    ck_fails(open_disk(&guest, &disk, &told, &error), XVSA_ERR_CONFLICT, error);
    ck_assert_uint_eq(attached(&guest), 0);
    end(&guest);
}
END_TEST

/* A task that vanished before its end was seen, at each place in turn. */
START_TEST(lost_tasks_are_looked_for)
{
    char rule[160];
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    begin(&guest, HVM);
    snprintf(rule, sizeof rule,
             "{\"method\": \"task.get_record\", \"error\": [\"HANDLE_INVALID\", \"task\", \"x\"], "
             "\"nth\": %d}",
             _i + 1);
    fault(&guest.pool, rule);
    ck_ok(open_disk(&guest, &disk, &told, &error), error);
    check_content(&guest, disk);
    json_decref(control(&guest.pool, "fault/clear", "{}"));
    fault(&guest.pool, rule);
    xv_disk_close(disk);
    ck_assert_uint_eq(attached(&guest), 0);
    ck_assert_uint_eq(guest.left, 0);
    end(&guest);
}
END_TEST

START_TEST(rejected_unplug_is_tried_again)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    begin(&guest, HVM);
    ck_ok(open_disk(&guest, &disk, &told, &error), error);
    fault(&guest.pool, "{\"method\": \"VBD.unplug\", \"error\": [\"DEVICE_DETACH_REJECTED\", "
                       "\"VBD\", \"ref\", \"in use\"], \"count\": 2}");
    xv_disk_close(disk);
    ck_assert_uint_eq(guest.left, 0);
    ck_assert_uint_eq(attached(&guest), 0);
    end(&guest);
}
END_TEST

START_TEST(disks_of_the_dead_are_swept)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    size_t left = 0;
    begin(&guest, _i == 0 ? HVM : PV);
    ck_ok(open_disk(&guest, &disk, &told, &error), error);
    /* What closing cannot take away is told, and left to the sweep. */
    fault(&guest.pool, "{\"method\": \"VBD.unplug\", \"error\": [\"INTERNAL_ERROR\", \"no\"]}");
    xv_disk_close(disk);
    ck_assert_uint_eq(guest.left, 1);
    ck_assert_uint_eq(attached(&guest), 1);
    sweep(&guest.pool, TAG, &left);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(attached(&guest), 0);
    ck_assert_uint_eq(leftovers(&guest.pool), 0);
    end(&guest);
}
END_TEST

START_TEST(held_snapshot_can_be_destroyed)
{
    struct guest guest;
    struct xv_disk *disk = NULL;
    enum xv_hotadd_fault told;
    xvsa_error *error = NULL;
    begin(&guest, PV);
    ck_ok(open_disk(&guest, &disk, &told, &error), error);
    fault(&guest.pool, "{\"method\": \"VBD.unplug\", \"error\": [\"INTERNAL_ERROR\", \"no\"]}");
    xv_disk_close(disk);
    ck_assert_uint_eq(guest.left, 1);
    ck_ok(xv_snapshot_destroy(guest.pool.client, guest.snapshot, NULL, 0, &guest.pool.call, &error),
          error);
    ck_assert_uint_eq(leftovers(&guest.pool), 0);
    end(&guest);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("hotadd");
    tcase_set_timeout(tests, 150);
    if (!has_python()) {
        fprintf(stderr, "hotadd: python3 is missing: the tests with the simulator are skipped\n");
        return;
    }
    tcase_add_loop_test(tests, snapshot_is_read_as_a_device, 0, 2);
    tcase_add_test(tests, new_disk_is_written_as_a_device);
    tcase_add_loop_test(tests, obstacles_leave_nothing, 0, 6);
    tcase_add_test(tests, clone_can_be_refused);
    tcase_add_test(tests, foreign_device_is_not_opened);
    tcase_add_loop_test(tests, lost_tasks_are_looked_for, 0, 3);
    tcase_add_test(tests, rejected_unplug_is_tried_again);
    tcase_add_loop_test(tests, disks_of_the_dead_are_swept, 0, 2);
    tcase_add_test(tests, held_snapshot_can_be_destroyed);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("hotadd")
