/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Disks read and written through the pool simulator, over HTTP and NBD. Skipped, visibly, without python3.
 */
#include "operations_pool.h"

struct reading {
    struct xv_disk *disk;
    struct xv_block_queue *queue;
    struct xv_extents ranges;
    const struct xv_call *call;
    int rc;
    xvsa_error *error;
};

static void *read_disk(void *argument)
{
    struct reading *reading = argument;
    reading->rc = xv_disk_stream(reading->disk, &reading->ranges, reading->queue, NULL,
                                 reading->call, &reading->error);
    xv_block_queue_close(reading->queue);
    return NULL;
}

/* Reads ranges of a disk into memory of the disk's size. */
static int read_into(struct pool *pool, struct xv_disk *disk, uint64_t offset, uint64_t length,
                     uint8_t *memory, xvsa_error **error)
{
    struct reading reading = {.disk = disk, .call = &pool->call};
    pthread_t thread;
    xv_extents_init(&reading.ranges);
    ck_assert_int_eq(xv_extents_add(&reading.ranges, offset, length, NULL), 0);
    ck_assert_int_eq(xv_block_queue_new(4, 256 << 10, &reading.queue, NULL), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_disk, &reading), 0);
    uint64_t got = 0;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(reading.queue, NULL)) != NULL) {
        memcpy(memory + block->offset, block->data, block->length);
        got += block->length;
        xv_block_queue_release(reading.queue, block);
    }
    pthread_join(thread, NULL);
    if (reading.rc == 0)
        ck_assert_uint_eq(got, length);
    xv_block_queue_free(reading.queue);
    xv_extents_free(&reading.ranges);
    *error = reading.error;
    return reading.rc;
}

static const struct xv_host *any_host(const struct xv_inventory *all, const char *sr)
{
    for (size_t i = 0; i < all->host_count; i++) {
        if (xv_inventory_reaches(all, &all->hosts[i], xv_inventory_sr(all, sr)))
            return &all->hosts[i];
    }
    return NULL;
}

START_TEST(exports)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    struct xv_disk *http = NULL;
    struct xv_disk *nbd = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    struct xv_inventory *all = inventory_of(&pool);
    const struct xv_host *host = any_host(all, disks[0].sr_ref);
    size_t size = disks[0].size;
    uint8_t *first = malloc(size);
    uint8_t *second = malloc(size);
    memset(first, 1, size);
    memset(second, 2, size);
    struct xv_nbd_options options = {.size = size, .disk_name = disks[0].vdi_uuid};
    ck_ok(xv_vdi_open_nbd(pool.client, all, disks[0].vdi_ref, host->address, false, &options,
                          &pool.call, &nbd, &error),
          error);
    ck_ok(read_into(&pool, nbd, 0, size, second, &error), error);
    xv_disk_close(nbd);
    ck_ok(xv_vdi_open_http(pool.client, all, disks[0].vdi_ref, host, &pool.call, &http, &error),
          error);
    ck_ok(read_into(&pool, http, 0, size, first, &error), error);
    ck_assert_mem_eq(first, second, size);
    memset(first, 3, size);
    ck_ok(read_into(&pool, http, 65536, 3 << 20, first, &error), error);
    ck_assert_mem_eq(first + 65536, second + 65536, 3 << 20);
    struct xv_extents allocated;
    xv_extents_init(&allocated);
    ck_ok(xv_disk_allocated(http, &allocated, &pool.call, &error), error);
    ck_assert_uint_gt(allocated.count, 0);
    ck_assert_uint_le(xv_extents_bytes(&allocated), size);
    xv_extents_free(&allocated);
    ck_fails(xv_disk_read(http, 0, first, 512, &pool.call, &error), XVSA_ERR_UNSUPPORTED, error);
    /* A host that fails at once, in the middle, or goes away. */
    fault(&pool,
          "{\"method\": \"SM.vdi_attach\", \"error\": [\"SR_BACKEND_FAILURE_46\", \"\", \"x\", "
          "\"\"]}");
    ck_fails(read_into(&pool, http, 0, size, first, &error), XVSA_ERR_BUSY, error);
    fault(&pool,
          "{\"method\": \"transfer\", \"nth\": 2, \"error\": [\"VDI_IO_ERROR\", \"Device I/O "
          "errors\"]}");
    ck_fails(read_into(&pool, http, 0, size, first, &error), XVSA_ERR_XENAPI, error);
    fault(&pool, "{\"method\": \"transfer\", \"nth\": 2, \"cut\": true}");
    ck_assert_int_ne(read_into(&pool, http, 0, size, first, &error), 0);
    xv_error_clear(&error);
    xv_disk_close(http);
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    ck_assert_uint_eq(leftovers(&pool), 0);
    free(first);
    free(second);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(all);
    free(ref);
    stop_pool(&pool);
}
END_TEST

/* Queues the data as blocks, out of order, and writes it into the disk. */
static int write_disk(struct pool *pool, const struct xv_host *host, const char *vdi,
                      const struct xv_extents *data, const uint8_t *memory, xvsa_error **error)
{
    struct xv_block_queue *queue = NULL;
    ck_assert_int_eq(xv_block_queue_new(64, 128 << 10, &queue, NULL), 0);
    for (size_t i = data->count; i > 0; i--) {
        const struct xv_range *range = &data->ranges[i - 1];
        for (uint64_t at = range->offset; at < range->offset + range->length;) {
            struct xv_block *block = xv_block_queue_try_take(queue);
            uint64_t end = (at / (128 << 10) + 1) * (128 << 10);
            ck_assert_ptr_nonnull(block);
            if (end > range->offset + range->length)
                end = range->offset + range->length;
            block->offset = at;
            block->length = (uint32_t)(end - at);
            memcpy(block->data, memory + at, block->length);
            xv_block_queue_push(queue, block);
            at = end;
        }
    }
    xv_block_queue_close(queue);
    int rc = xv_vdi_import(pool->client, host, vdi, data, 65536, queue, &pool->call, error);
    xv_block_queue_free(queue);
    return rc;
}

START_TEST(imports)
{
    struct pool pool;
    struct xv_extents data;
    struct xv_disk *disk = NULL;
    char *vdi = NULL;
    uint64_t size = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    struct xv_inventory *all = inventory_of(&pool);
    const struct xv_sr *sr = &all->srs[0];
    struct xv_vdi_spec spec = {
        .sr_ref = sr->ref, .name = "new", .tag = "job", .type = "user", .size = 4 << 20};
    ck_ok(xv_vdi_create(pool.client, &spec, &pool.call, &vdi, &size, &error), error);
    uint8_t *wanted = calloc(1, size);
    uint8_t *found = malloc(size);
    memset(found, 9, size);
    xv_extents_init(&data);
    ck_ok(xv_extents_add(&data, 0, 512, &error), error);
    ck_ok(xv_extents_add(&data, 65536, 300000 / 512 * 512, &error), error);
    ck_ok(xv_extents_add(&data, size - 4096, 4096, &error), error);
    for (size_t i = 0; i < data.count; i++) {
        for (uint64_t k = 0; k < data.ranges[i].length; k++)
            wanted[data.ranges[i].offset + k] = (uint8_t)(k * 7 + i + 1);
    }
    const struct xv_host *host = any_host(all, sr->ref);
    ck_ok(write_disk(&pool, host, vdi, &data, wanted, &error), error);
    ck_ok(xv_vdi_open_http(pool.client, all, vdi, host, &pool.call, &disk, &error), error);
    ck_ok(read_into(&pool, disk, 0, size, found, &error), error);
    ck_assert_mem_eq(found, wanted, size);
    xv_disk_close(disk);
    /* Data that does not come does not keep an upload beyond its deadline. */
    struct xv_block_queue *queue = NULL;
    struct xv_call brief = xv_call_within(NULL, 1000);
    ck_ok(xv_block_queue_new(1, 65536, &queue, &error), error);
    ck_fails(xv_vdi_import(pool.client, host, vdi, &data, 65536, queue, &brief, &error),
             XVSA_ERR_TIMEOUT, error);
    xv_block_queue_free(queue);
    fault(&pool,
          "{\"method\": \"SM.vdi_attach\", \"error\": [\"SR_BACKEND_FAILURE_46\", \"\", \"x\", "
          "\"\"]}");
    ck_fails(write_disk(&pool, host, vdi, &data, wanted, &error), XVSA_ERR_BUSY, error);
    ck_ok(xv_vdi_destroy(pool.client, vdi, &pool.call, &error), error);
    ck_ok(xv_vdi_destroy(pool.client, vdi, &pool.call, &error), error);
    xv_extents_free(&data);
    free(wanted);
    free(found);
    free(vdi);
    xv_inventory_free(all);
    stop_pool(&pool);
}
END_TEST

START_TEST(transfers_of_the_dead_are_ended)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    char *dead = NULL;
    char *other = NULL;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    ck_assert_uint_eq(count, 2);
    ck_ok(xv_task_create(pool.client, "VDI export", disks[0].vdi_ref, &pool.call, &dead, &error),
          error);
    ck_ok(xv_task_create(pool.client, "VDI export", disks[1].vdi_ref, &pool.call, &other, &error),
          error);
    xv_vdi_stop_exports(pool.client, disks[0].vdi_ref, &pool.call);
    ck_fails(xv_ask(pool.client, "task.get_status", xv_params(dead, NULL), true, &pool.call, NULL,
                    &error),
             XVSA_ERR_NOT_FOUND, error);
    ck_ok(xv_ask(pool.client, "task.get_status", xv_params(other, NULL), true, &pool.call, NULL,
                 &error),
          error);
    xv_snapshot_disks_free(disks, count);
    free(dead);
    free(other);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(disks_in_use)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    struct xv_disk *disk = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    json_decref(control(&pool, "option", "{\"name\": \"hot_unplug_delay\", \"value\": 1.0}"));
    char *ref = snapshot(&pool, "job", &disks, &count);
    struct xv_inventory *all = inventory_of(&pool);
    struct xv_nbd_options options = {.size = disks[0].size, .disk_name = "disk"};
    uint8_t sector[512];
    ck_ok(xv_vdi_open_nbd(pool.client, all, disks[0].vdi_ref, NULL, false, &options, &pool.call,
                          &disk, &error),
          error);
    ck_ok(xv_disk_read(disk, 0, sector, sizeof sector, &pool.call, &error), error);
    xv_disk_close(disk);
    /* The control domain still has the disk for a while. */
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    ck_assert_uint_eq(leftovers(&pool), 0);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(all);
    free(ref);
    stop_pool(&pool);
}
END_TEST

/* Only the coordinator's certificate was pinned; those of the others are learnt over its connection. */
START_TEST(certificates_of_members)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool_with(&pool, true);
    char *ref = snapshot(&pool, "job", &disks, &count);
    struct xv_inventory *all = inventory_of(&pool);
    uint8_t *memory = malloc(disks[0].size);
    for (size_t i = 0; i < all->host_count; i++) {
        struct xv_disk *disk = NULL;
        ck_ok(xv_vdi_open_http(pool.client, all, disks[0].vdi_ref, &all->hosts[i], &pool.call,
                               &disk, &error),
              error);
        ck_ok(read_into(&pool, disk, 0, disks[0].size, memory, &error), error);
        xv_disk_close(disk);
    }
    json_decref(control(&pool, "coordinator", "{\"host\": \"host2\"}"));
    json_decref(control(&pool, "host/kill", "{\"host\": \"host1\"}"));
    ck_ok(xv_snapshot_destroy(pool.client, ref, NULL, 0, &pool.call, &error), error);
    ck_assert_uint_eq(leftovers(&pool), 0);
    free(memory);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(all);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(dead_host_and_nbd)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    struct xv_disk *disk = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool_with(&pool, true);
    struct xv_inventory *before = inventory_of(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    struct xv_nbd_options options = {.size = disks[0].size, .disk_name = "disk"};
    fault(&pool, "{\"method\": \"VDI.get_nbd_info\", \"error\": [\"HOST_OFFLINE\", \"x\"]}");
    /* What the live hosts would answer is made up for them, with the port of real servers: whether
     * somebody listens there is not known, yet it was tried. */
    int rc = xv_vdi_open_nbd(pool.client, before, disks[0].vdi_ref, NULL, false, &options,
                             &pool.call, &disk, &error);
    ck_assert_int_ne(rc, 0);
    ck_assert(!xv_error_is_xenapi(error, "HOST_OFFLINE"));
    ck_assert_str_eq(xvsa_error_component(error), "nbd");
    xv_error_clear(&error);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(before);
    free(ref);
    stop_pool(&pool);
}
END_TEST

START_TEST(nbd_purposes)
{
    struct pool pool;
    struct xv_snapshot_disk *disks = NULL;
    struct xv_disk *disk = NULL;
    size_t count = 0;
    xvsa_error *error = NULL;
    start_pool(&pool);
    char *ref = snapshot(&pool, "job", &disks, &count);
    struct xv_nbd_options options = {.size = disks[0].size, .disk_name = "disk"};
    struct xv_inventory *all = inventory_of(&pool);
    const char *network = all->networks[0].ref;
    ck_ok(xv_ask(pool.client, "network.remove_purpose", xv_params(network, "nbd", NULL), true,
                 &pool.call, NULL, &error),
          error);
    struct xv_inventory *none = inventory_of(&pool);
    ck_fails(xv_vdi_open_nbd(pool.client, none, disks[0].vdi_ref, NULL, true, &options, &pool.call,
                             &disk, &error),
             XVSA_ERR_UNSUPPORTED, error);
    ck_ok(xv_ask(pool.client, "network.add_purpose", xv_params(network, "insecure_nbd", NULL), true,
                 &pool.call, NULL, &error),
          error);
    struct xv_inventory *plain = inventory_of(&pool);
    ck_fails(xv_vdi_open_nbd(pool.client, plain, disks[0].vdi_ref, NULL, false, &options,
                             &pool.call, &disk, &error),
             XVSA_ERR_UNSUPPORTED, error);
    ck_ok(xv_vdi_open_nbd(pool.client, plain, disks[0].vdi_ref, NULL, true, &options, &pool.call,
                          &disk, &error),
          error);
    xv_disk_close(disk);
    xv_snapshot_disks_free(disks, count);
    xv_inventory_free(none);
    xv_inventory_free(plain);
    xv_inventory_free(all);
    free(ref);
    stop_pool(&pool);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("operations_transfer");
    tcase_set_timeout(all, 150);
    suite_add_tcase(suite, all);
    if (!has_python()) {
        printf("skipped: the pool simulator needs python3\n");
        return;
    }
    tcase_add_test(all, exports);
    tcase_add_test(all, imports);
    tcase_add_test(all, disks_in_use);
    tcase_add_test(all, transfers_of_the_dead_are_ended);
    tcase_add_test(all, certificates_of_members);
    tcase_add_test(all, dead_host_and_nbd);
    tcase_add_test(all, nbd_purposes);
}

UNIT_MAIN("operations_transfer")
