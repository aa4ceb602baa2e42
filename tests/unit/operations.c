/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations against the pool simulator, with its faults. Skipped, visibly, without python3.
 */
#include "operations_pool.h"

START_TEST(snapshots)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    size_t left = 1;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job-1", &disks, &count);
    ck_assert_uint_eq(count, 2);
    struct xv_inventory *all = inventory_of(&pool);
    for (size_t i = 0; i < count; i++) {
        const struct xv_vdi *vdi = xv_inventory_vdi(all, disks[i].vdi_ref);
        ck_assert_str_eq(vdi->tag, "job-1");
        ck_assert(vdi->is_snapshot);
        ck_assert_ptr_nonnull(xv_inventory_vdi(all, disks[i].source_uuid));
    }
    ck_assert_str_eq(xv_inventory_vm(all, ref)->tag, "job-1");
    ck_assert_ptr_null(xv_inventory_vm(all, pool.vm)->tag);
    xv_inventory_free(all);
    const char *keep = disks[0].vdi_ref;
    ck_ok(xv_snapshot_destroy(pool.client, ref, &keep, 1, &pool.call, &error), error);
    all = inventory_of(&pool);
    ck_assert_ptr_nonnull(xv_inventory_vdi(all, keep));
    ck_assert_ptr_null(xv_inventory_vdi(all, disks[1].vdi_ref));
    xv_inventory_free(all);
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    sweep(&pool, "job-1", &left);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(leftovers(&pool), 0);
    xv_snapshot_disks_free(disks, count);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(skipped_disks)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    char *ref = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    const struct xv_vm *vm = xv_inventory_vm(all, pool.vm);
    const char *skip = NULL;
    for (size_t i = 0; i < vm->vbd_count; i++) {
        if (strcmp(vm->vbds[i]->device, "1") == 0)
            skip = vm->vbds[i]->vdi->ref;
    }
    ck_assert_ptr_nonnull(skip);
    for (int old = 0; old < 2; old++) {
        if (old)
            fault(&pool, "{\"method\": \"VM.snapshot\", \"error\": "
                         "[\"MESSAGE_PARAMETER_COUNT_MISMATCH\", \"VM.snapshot\", \"3\", \"4\"]}");
        ck_ok(xv_snapshot_take(pool.client, pool.vm, "job", &skip, 1, &pool.call, &ref, &error),
              error);
        ck_ok(xv_snapshot_disks(pool.client, ref, &pool.call, &disks, &count, &error), error);
        ck_assert_uint_eq(count, 1);
        ck_assert_uint_eq(disks[0].size, 16 << 20);
        ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
        ck_assert_uint_eq(leftovers(&pool), 0);
        xv_snapshot_disks_free(disks, count);
        free(ref);
    }
    xv_inventory_free(all);
    stop_pool(&pool);
}
END_TEST

/* The server collects a task before anybody asked for its outcome. */
static void forget_next_task(struct pool *pool)
{
    fault(pool,
          "{\"method\": \"task.get_record\", \"error\": [\"HANDLE_INVALID\", \"task\", \"x\"]}");
}

START_TEST(lost_answers_are_looked_for)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    size_t left = 1;
    char *vdi = NULL;
    uint64_t size = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    forget_next_task(&pool);
    char *ref = snapshot(&pool, "job-1", &disks, &count);
    ck_assert_uint_eq(count, 2);
    forget_next_task(&pool);
    struct xv_vdi_spec spec = {
        .sr_ref = disks[0].sr_ref, .name = "new", .tag = "job-1", .type = "user", .size = 1000000};
    ck_ok(xv_vdi_create(pool.client, &spec, &pool.call, &vdi, &size, &error), error);
    ck_assert_uint_ge(size, 1000000);
    forget_next_task(&pool);
    ck_ok(xv_vdi_destroy(pool.client, vdi, &pool.call, &error), error);
    sweep(&pool, "job-1", &left);
    ck_assert_uint_eq(leftovers(&pool), 0);
    xv_snapshot_disks_free(disks, count);
    free(vdi);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(failed_snapshots)
{
    struct pool pool;
    char *ref = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    fault(&pool, "{\"method\": \"VM.snapshot\", \"error\": "
                 "[\"SR_BACKEND_FAILURE_44\", \"\", \"There is insufficient space\", \"\"]}");
    ck_assert_int_eq(
        xv_snapshot_take(pool.client, pool.vm, "job", NULL, 0, &pool.call, &ref, &error),
        XVSA_ERR_SPACE);
    ck_assert_str_eq(xvsa_error_xenapi_code(error), "SR_BACKEND_FAILURE_44");
    xv_error_clear(&error);
    /* A busy pool is asked again. */
    fault(&pool, "{\"method\": \"VM.snapshot\", \"error\": [\"OTHER_OPERATION_IN_PROGRESS\", "
                 "\"VM\", \"x\", \"snapshot\", \"t\"]}");
    ck_ok(xv_snapshot_take(pool.client, pool.vm, "job", NULL, 0, &pool.call, &ref, &error), error);
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    free(ref);
    ref = NULL;
    /* A deadline ends it, and nothing is forgotten. */
    fault(&pool, "{\"method\": \"VDI.snapshot\", \"delay\": 3}");
    struct xv_call brief = xv_call_within(NULL, 300);
    ck_fails(xv_snapshot_take(pool.client, pool.vm, "job", NULL, 0, &brief, &ref, &error),
             XVSA_ERR_TIMEOUT, error);
    stop_pool(&pool);
}
END_TEST

START_TEST(changed_blocks)
{
    struct pool pool;
    struct xv_snapshot_disk *old = NULL;
    struct xv_snapshot_disk *new = NULL;
    size_t count = 0;
    char *bitmap = NULL;
    char arguments[300];
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *first = snapshot(&pool, "one", &old, &count);
    snprintf(arguments, sizeof arguments,
             "{\"vdi\": \"%s\", \"offset\": 65536, \"length\": 512, \"pattern\": \"ab\"}",
             old[0].source_uuid);
    json_decref(control(&pool, "disk/write", arguments));
    char *second = snapshot(&pool, "two", &new, &count);
    ck_ok(xv_cbt_changes(pool.client, old[0].vdi_ref, new[0].vdi_ref, &pool.call, &bitmap, &error),
          error);
    ck_assert_int_eq(strncmp(bitmap, "QAAA", 4), 0);
    free(bitmap);
    ck_fails(xv_cbt_enable(pool.client, old[0].vdi_ref, &pool.call, &error), XVSA_ERR_XENAPI,
             error);
    const char *keep = old[0].vdi_ref;
    ck_ok(xv_snapshot_destroy(pool.client, first, &keep, 1, &pool.call, &error), error);
    ck_ok(xv_cbt_reduce(pool.client, keep, &pool.call, &error), error);
    ck_ok(xv_cbt_reduce(pool.client, keep, &pool.call, &error), error);
    ck_ok(xv_cbt_changes(pool.client, keep, new[0].vdi_ref, &pool.call, &bitmap, &error), error);
    free(bitmap);
    ck_fails(xv_cbt_changes(pool.client, new[0].vdi_ref, keep, &pool.call, &bitmap, &error),
             XVSA_ERR_UNSUPPORTED, error);
    xv_snapshot_disks_free(old, count);
    xv_snapshot_disks_free(new, count);
    free(first);
    free(second);
    stop_pool(&pool);
}
END_TEST

/* The parts of a restore, up to the given step. */
static char *restore(struct pool *pool, const struct xv_inventory *all,
                     struct xv_value **ret_record, char **ret_vdi, bool with_devices)
{
    xvsa_error *error = NULL;
    char *vm = NULL;
    uint64_t size = 0;
    struct xv_vdi_spec spec = {.sr_ref = all->srs[0].ref,
                               .name = "restored",
                               .tag = "job",
                               .type = "user",
                               .size = 2 << 20};
    ck_ok(xv_record_get(pool->client, "VM", pool->vm, &pool->call, ret_record, &error), error);
    ck_ok(xv_vdi_create(pool->client, &spec, &pool->call, ret_vdi, &size, &error), error);
    ck_ok(
        xv_vm_create(pool->client, *ret_record, "web again", "job", NULL, &pool->call, &vm, &error),
        error);
    if (!with_devices)
        return vm;
    struct xv_value *vbd = xv_value_new_struct();
    ck_assert(xv_value_set_string(vbd, "userdevice", "0"));
    ck_ok(xv_vbd_create(pool->client, vm, *ret_vdi, vbd, &pool->call, &error), error);
    ck_ok(xv_vbd_create(pool->client, vm, *ret_vdi, vbd, &pool->call, &error), error);
    char *warning = NULL;
    ck_ok(xv_vif_create(pool->client, vm, all->networks[0].ref, "02:00:00:00:00:02", NULL,
                        &pool->call, &warning, &error),
          error);
    ck_assert_ptr_null(warning);
    xv_value_free(vbd);
    return vm;
}

START_TEST(restored_machines)
{
    struct pool pool;
    struct xv_value *record = NULL;
    struct xv_value *made = NULL;
    char *vdi = NULL;
    char *warnings = NULL;
    size_t left = 1;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    char *vm = restore(&pool, all, &record, &vdi, true);
    ck_ok(xv_record_get(pool.client, "VM", vm, &pool.call, &made, &error), error);
    ck_assert_ptr_nonnull(xv_value_get(xv_value_get(made, "blocked_operations"), "start"));
    ck_assert_str_eq(xv_value_get_string(xv_value_get(made, "NVRAM"), "EFI-variables", ""), "AAEC");
    xv_value_free(made);
    ck_ok(xv_vm_complete(pool.client, vm, record, "web again", &pool.call, &warnings, &error),
          error);
    ck_assert_str_eq(warnings, "[]");
    ck_ok(xv_record_get(pool.client, "VM", vm, &pool.call, &made, &error), error);
    ck_assert_str_eq(xv_value_get_string(made, "name_label", ""), "web again");
    ck_assert_uint_eq(xv_value_count(xv_value_get(made, "blocked_operations")), 0);
    ck_assert_ptr_null(xv_value_get(xv_value_get(made, "other_config"), XV_TAG_KEY));
    ck_assert_ptr_null(xv_value_get(xv_value_get(made, "other_config"), XV_CREATED_KEY));
    ck_assert_str_eq(xv_value_string(xv_value_at(xv_value_get(made, "tags"), 0), ""), "a");
    /* A complete machine is nobody's leftover, even when its disk's mark was not taken away. */
    ck_ok(xv_record_set_tag(pool.client, "VDI", vdi, XV_CREATED_KEY, "x", &pool.call, &error),
          error);
    ck_ok(xv_record_set_tag(pool.client, "VDI", vdi, XV_TAG_KEY, "job", &pool.call, &error), error);
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    struct xv_inventory *after = inventory_of(&pool);
    ck_assert_ptr_nonnull(xv_inventory_vm(after, vm));
    ck_assert_ptr_nonnull(xv_inventory_vdi(after, vdi));
    ck_assert_ptr_null(xv_inventory_vdi(after, vdi)->tag);
    xv_inventory_free(after);
    xv_inventory_free(all);
    xv_value_free(made);
    xv_value_free(record);
    free(warnings);
    free(vm);
    free(vdi);
    stop_pool(&pool);
}
END_TEST

/* A licence without address locking costs the locking, which the caller is told. */
START_TEST(interfaces_without_locking)
{
    struct pool pool;
    struct xv_value *record = NULL;
    struct xv_value *vif = xv_value_new_struct();
    char *vdi = NULL;
    char *warning = NULL;
    size_t left = 1;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    char *vm = restore(&pool, all, &record, &vdi, false);
    ck_assert(xv_value_set_string(vif, "device", "1"));
    ck_assert(xv_value_set_string(vif, "locking_mode", "locked"));
    fault(&pool, "{\"method\": \"VIF.create\", \"error\": [\"LICENCE_RESTRICTION\", "
                 "\"VIF locking\"]}");
    ck_ok(xv_vif_create(pool.client, vm, all->networks[0].ref, "02:00:00:00:00:03", vif, &pool.call,
                        &warning, &error),
          error);
    ck_assert_ptr_nonnull(strstr(warning, "interface 1"));
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    xv_inventory_free(all);
    xv_value_free(record);
    xv_value_free(vif);
    free(warning);
    free(vdi);
    free(vm);
    stop_pool(&pool);
}
END_TEST

START_TEST(unfinished_machines_are_removed)
{
    struct pool pool;
    struct xv_value *record = NULL;
    char *vdi = NULL;
    size_t left = 1;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    char *vm = restore(&pool, all, &record, &vdi, true);
    ck_ok(xv_migration_block(pool.client, pool.vm, "job", &pool.call, &error), error);
    char *task = NULL;
    ck_ok(xv_task_create(pool.client, "VDI import", vdi, &pool.call, &task, &error), error);
    sweep(&pool, "another", &left);
    struct xv_inventory *before = inventory_of(&pool);
    ck_assert_ptr_nonnull(xv_inventory_vm(before, vm));
    ck_assert_ptr_nonnull(xv_inventory_vdi(before, vdi));
    xv_inventory_free(before);
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(leftovers(&pool), 0);
    ck_fails(xv_ask(pool.client, "task.get_status", xv_params(task, NULL), true, &pool.call, NULL,
                    &error),
             XVSA_ERR_NOT_FOUND, error);
    xv_inventory_free(all);
    xv_value_free(record);
    free(task);
    free(vm);
    free(vdi);
    stop_pool(&pool);
}
END_TEST

/* A transfer that a process left behind whose disk became metadata since, as it does after a commit. */
START_TEST(transfers_of_metadata_are_removed)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    size_t left = 1;
    char *tasks[2] = {NULL, NULL};
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    ck_assert_uint_eq(count, 2);
    for (size_t i = 0; i < count; i++)
        ck_ok(xv_task_create(pool.client, "VDI export", disks[i].vdi_ref, &pool.call, &tasks[i],
                             &error),
              error);
    const char *keep = disks[0].vdi_ref;
    ck_ok(xv_snapshot_destroy(pool.client, ref, &keep, 1, &pool.call, &error), error);
    ck_ok(xv_cbt_reduce(pool.client, keep, &pool.call, &error), error);
    /* Of another job: the metadata stays, what pretends to move it does not. */
    sweep(&pool, "another", &left);
    ck_assert_uint_eq(left, 0);
    for (size_t i = 0; i < count; i++) {
        ck_fails(xv_ask(pool.client, "task.get_status", xv_params(tasks[i], NULL), true, &pool.call,
                        NULL, &error),
                 XVSA_ERR_NOT_FOUND, error);
        free(tasks[i]);
    }
    struct xv_inventory *all = inventory_of(&pool);
    ck_assert_ptr_nonnull(xv_inventory_vdi(all, keep));
    xv_inventory_free(all);
    xv_snapshot_disks_free(disks, count);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(copies_are_spared)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    size_t left = 1;
    char *clone = NULL;
    char *disk = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    /* What an administrator makes of a snapshot of ours carries its tags. */
    ck_ok(xv_run(pool.client, "VM.clone", xv_params(ref, "rescued", NULL), &pool.call, &clone,
                 &error),
          error);
    ck_ok(xv_run(pool.client, "VDI.clone", xv_params(disks[0].vdi_ref, NULL), &pool.call, &disk,
                 &error),
          error);
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    struct xv_inventory *all = inventory_of(&pool);
    ck_assert_ptr_null(xv_inventory_vm(all, ref));
    ck_assert_ptr_null(xv_inventory_vdi(all, disks[0].vdi_ref));
    ck_assert_ptr_nonnull(xv_inventory_vm(all, clone));
    ck_assert_ptr_null(xv_inventory_vm(all, clone)->tag);
    ck_assert_uint_eq(xv_inventory_vm(all, clone)->vbd_count,
                      xv_inventory_vm(all, pool.vm)->vbd_count);
    ck_assert_ptr_nonnull(xv_inventory_vdi(all, disk));
    ck_assert_ptr_null(xv_inventory_vdi(all, disk)->tag);
    xv_inventory_free(all);
    xv_snapshot_disks_free(disks, count);
    free(ref);
    free(clone);
    free(disk);
    stop_pool(&pool);
}
END_TEST

/* A snapshot that an administrator made of a copy of ours, or of a VM whose marks outlived a crash, carries
 * our tags, too. */
START_TEST(snapshots_of_others_are_spared)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    size_t left = 1;
    char *mine = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    ck_ok(xv_record_set_tag(pool.client, "VM", pool.vm, XV_TAG_KEY, "job", &pool.call, &error),
          error);
    struct xv_inventory *all = inventory_of(&pool);
    const struct xv_vm *vm = xv_inventory_vm(all, pool.vm);
    for (size_t i = 0; i < vm->vbd_count; i++) {
        if (vm->vbds[i]->vdi != NULL && strcmp(vm->vbds[i]->type, "Disk") == 0)
            ck_ok(xv_record_set_tag(pool.client, "VDI", vm->vbds[i]->vdi->ref, XV_TAG_KEY, "job",
                                    &pool.call, &error),
                  error);
    }
    xv_inventory_free(all);
    ck_ok(xv_run(pool.client, "VM.snapshot", xv_params(pool.vm, "before the update", NULL),
                 &pool.call, &mine, &error),
          error);
    ck_ok(xv_snapshot_disks(pool.client, mine, &pool.call, &disks, &count, &error), error);
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    all = inventory_of(&pool);
    ck_assert_ptr_nonnull(xv_inventory_vm(all, mine));
    ck_assert_ptr_null(xv_inventory_vm(all, mine)->tag);
    ck_assert_ptr_null(xv_inventory_vm(all, pool.vm)->tag);
    for (size_t i = 0; i < count; i++) {
        ck_assert_ptr_nonnull(xv_inventory_vdi(all, disks[i].vdi_ref));
        ck_assert_ptr_null(xv_inventory_vdi(all, disks[i].vdi_ref)->tag);
    }
    xv_inventory_free(all);
    xv_snapshot_disks_free(disks, count);
    free(mine);
    stop_pool(&pool);
}
END_TEST

/* Whose a disk is must be known before it is called somebody's. */
START_TEST(doubtful_disks_keep_their_marks)
{
    struct pool pool;
    struct xv_value *vbd = xv_value_new_struct();
    char *vdi = NULL;
    uint64_t size = 0;
    size_t removed = 0;
    size_t left = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    struct xv_vdi_spec spec = {.sr_ref = all->srs[0].ref, .tag = "job", .size = 2 << 20};
    const struct xv_vm *domain = NULL;
    for (size_t i = 0; i < all->vm_count; i++) {
        if (all->vms[i].is_control_domain)
            domain = &all->vms[i];
    }
    ck_assert_ptr_nonnull(domain);
    ck_ok(xv_vdi_create(pool.client, &spec, &pool.call, &vdi, &size, &error), error);
    ck_assert(xv_value_set_string(vbd, "userdevice", "autodetect"));
    ck_ok(xv_vbd_create(pool.client, domain->ref, vdi, vbd, &pool.call, &error), error);
    fault(&pool, "{\"method\": \"VM.get_is_control_domain\", \"error\": "
                 "[\"INTERNAL_ERROR\", \"x\"], \"count\": 0}");
    ck_fails(xv_leftovers_remove(pool.client, is_tag, (void *)(uintptr_t) "job", NULL, 0,
                                 &pool.call, &removed, &left, &error),
             XVSA_ERR_XENAPI, error);
    ck_assert_uint_eq(left, 1);
    json_decref(control(&pool, "fault/clear", "{}"));
    xv_inventory_free(all);
    all = inventory_of(&pool);
    ck_assert_str_eq(xv_inventory_vdi(all, vdi)->tag, "job");
    xv_inventory_free(all);
    sweep(&pool, "job", &left);
    ck_assert_uint_eq(left, 0);
    ck_assert_uint_eq(leftovers(&pool), 0);
    xv_value_free(vbd);
    free(vdi);
    stop_pool(&pool);
}
END_TEST

START_TEST(migration_blocks)
{
    struct pool pool;
    struct xv_value *blocked = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    ck_ok(xv_ask(pool.client, "VM.add_to_blocked_operations",
                 xv_params(pool.vm, "migrate_send", "mine", NULL), true, &pool.call, NULL, &error),
          error);
    ck_ok(xv_migration_block(pool.client, pool.vm, "job", &pool.call, &error), error);
    ck_ok(xv_migration_block(pool.client, pool.vm, "other", &pool.call, &error), error);
    ck_ok(xv_migration_unblock(pool.client, pool.vm, "other", &pool.call, &error), error);
    ck_ok(xv_ask(pool.client, "VM.get_blocked_operations", xv_params(pool.vm, NULL), true,
                 &pool.call, &blocked, &error),
          error);
    ck_assert_str_eq(xv_value_get_string(blocked, "migrate_send", ""), "mine");
    ck_assert_ptr_nonnull(xv_value_get(blocked, "pool_migrate"));
    xv_value_free(blocked);
    ck_ok(xv_migration_unblock(pool.client, pool.vm, "job", &pool.call, &error), error);
    ck_ok(xv_ask(pool.client, "VM.get_blocked_operations", xv_params(pool.vm, NULL), true,
                 &pool.call, &blocked, &error),
          error);
    ck_assert_uint_eq(xv_value_count(blocked), 1);
    xv_value_free(blocked);
    stop_pool(&pool);
}
END_TEST

START_TEST(coordinator_changes)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    uint64_t epoch = xv_client_epoch(pool.client);
    json_decref(control(&pool, "coordinator", "{\"host\": \"host2\"}"));
    struct xv_inventory *all = inventory_of(&pool);
    ck_assert_uint_gt(xv_client_epoch(pool.client), epoch);
    ck_assert_uint_eq(all->epoch, xv_client_epoch(pool.client));
    json_decref(control(&pool, "session/expire", "{}"));
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    json_decref(control(&pool, "host/kill", "{\"host\": \"host1\"}"));
    xv_snapshot_disks_free(disks, count);
    free(ref);
    ref = snapshot(&pool, "job", &disks, &count);
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    ck_assert_uint_eq(leftovers(&pool), 0);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(all);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(lost_tasks)
{
    struct pool pool;
    char *ref = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    /* The server has no event.from: the task is polled. */
    fault(&pool, "{\"method\": \"event.from\", \"error\": [\"MESSAGE_METHOD_UNKNOWN\", "
                 "\"event.from\"], \"count\": 0}");
    fault(&pool, "{\"method\": \"VDI.snapshot\", \"delay\": 0.5}");
    ck_ok(xv_snapshot_take(pool.client, pool.vm, "job", NULL, 0, &pool.call, &ref, &error), error);
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    free(ref);
    stop_pool(&pool);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("operations");
    tcase_set_timeout(all, 150);
    suite_add_tcase(suite, all);
    if (!has_python()) {
        printf("skipped: the pool simulator needs python3\n");
        return;
    }
    tcase_add_test(all, snapshots);
    tcase_add_test(all, skipped_disks);
    tcase_add_test(all, lost_answers_are_looked_for);
    tcase_add_test(all, failed_snapshots);
    tcase_add_test(all, changed_blocks);
    tcase_add_test(all, restored_machines);
    tcase_add_test(all, unfinished_machines_are_removed);
    tcase_add_test(all, interfaces_without_locking);
    tcase_add_test(all, copies_are_spared);
    tcase_add_test(all, snapshots_of_others_are_spared);
    tcase_add_test(all, doubtful_disks_keep_their_marks);
    tcase_add_test(all, migration_blocks);
    tcase_add_test(all, coordinator_changes);
    tcase_add_test(all, lost_tasks);
    tcase_add_test(all, transfers_of_metadata_are_removed);
}

UNIT_MAIN("operations")
