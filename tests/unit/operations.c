/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Operations against the pool simulator, with its faults. Skipped, visibly, without python3.
 */
#include "xenapi/operations.h"

#include <curl/curl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"
#include "xenapi/operations_internal.h"

#define SOON_MS 120000

static const char scenario[] =
    "{\"name\": \"ops\", \"hosts\": [{\"name\": \"host1\"}, {\"name\": \"host2\"}],"
    " \"srs\": [{\"name\": \"nfs\", \"type\": \"nfs\", \"shared\": true, \"size\": \"1 TiB\","
    "            \"default\": true}],"
    " \"networks\": [{\"name\": \"lan\", \"bridge\": \"xenbr0\", \"purpose\": [\"nbd\"]}],"
    " \"vms\": [{\"name\": \"web\", \"power_state\": \"Running\", \"host\": \"host1\","
    "            \"tags\": [\"a\"], \"cd\": true, \"NVRAM\": {\"EFI-variables\": \"AAEC\"},"
    "            \"disks\": [{\"sr\": \"nfs\", \"size\": \"16 MiB\", \"cbt\": true,"
    "                         \"generate\": {\"seed\": 1, \"bytes\": 3145728}},"
    "                        {\"sr\": \"nfs\", \"size\": \"8 MiB\"}],"
    "            \"vifs\": [{\"network\": \"lan\", \"mac\": \"02:00:00:00:00:01\"}]}],"
    " \"options\": {\"lock_wait\": 0.3, \"data_destroy_wait\": 0.05}}";

struct pool {
    char folder[64];
    char url[128];
    char sim[128];
    char fingerprint[128]; /* of the first coordinator */
    bool tls;
    pid_t process;
    struct xv_client *client;
    struct xv_call call;
    char *vm;
};

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);
    if (file == NULL || text == NULL) {
        free(text);
        if (file != NULL)
            fclose(file);
        return NULL;
    }
    size_t length = fread(text, 1, 65535, file);
    fclose(file);
    text[length] = '\0';
    return text;
}

static void path_in(const struct pool *pool, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", pool->folder, name);
}

static void spawn(struct pool *pool)
{
    char program[1024];
    char file[128];
    char ready[128];
    char data[128];
    const char *root = getenv("XVSA_SOURCE_ROOT");
    const char *chosen = getenv("XVSA_POOLSIM");
    ck_assert_msg(root != NULL, "XVSA_SOURCE_ROOT is not set");
    snprintf(program, sizeof program, "%s/tests/pool/poolsim", root);
    path_in(pool, "scenario.json", file, sizeof file);
    path_in(pool, "ready.json", ready, sizeof ready);
    path_in(pool, "data", data, sizeof data);
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(scenario, out), 0);
    ck_assert_int_eq(fclose(out), 0);
    pool->process = fork();
    ck_assert_int_ge(pool->process, 0);
    if (pool->process == 0) {
        execlp("python3", "python3", chosen != NULL ? chosen : program, "--scenario", file,
               "--data", data, "--ready-file", ready, pool->tls ? "--tls" : NULL, (char *)NULL);
        _exit(127);
    }
}

static void await_ready(struct pool *pool)
{
    char ready[128];
    path_in(pool, "ready.json", ready, sizeof ready);
    for (int i = 0; i < 600; i++) {
        int status = 0;
        ck_assert_msg(waitpid(pool->process, &status, WNOHANG) == 0, "the simulator ended");
        char *text = read_file(ready);
        if (text != NULL) {
            json_t *json = json_loads(text, 0, NULL);
            free(text);
            snprintf(pool->url, sizeof pool->url, "%s",
                     json_string_value(json_object_get(json, "coordinator")));
            snprintf(pool->sim, sizeof pool->sim, "%s",
                     json_string_value(json_object_get(json, "sim")));
            snprintf(pool->fingerprint, sizeof pool->fingerprint, "%s",
                     json_string_value(json_object_get(json, "fingerprint_sha256")));
            json_decref(json);
            return;
        }
        usleep(100000);
    }
    ck_abort_msg("the simulator does not get ready");
}

static void start_pool_with(struct pool *pool, bool tls)
{
    xvsa_error *error = NULL;
    *pool = (struct pool){.folder = "/tmp/xvsa-ops-XXXXXX", .tls = tls};
    ck_assert_ptr_nonnull(mkdtemp(pool->folder));
    spawn(pool);
    await_ready(pool);
    const char *url = pool->url;
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "password",
                                        .flags = tls ? 0 : XVSA_POOL_ALLOW_PLAIN_HTTP};
    const char *fingerprint = pool->fingerprint;
    if (tls) {
        options.fingerprints = &fingerprint;
        options.fingerprint_count = 1;
    }
    pool->call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_client_open(&options, &pool->call, &pool->client, &error), error);
    struct xv_value *refs = NULL;
    ck_ok(xv_ask(pool->client, "VM.get_by_name_label", xv_params("web", NULL), true, &pool->call,
                 &refs, &error),
          error);
    pool->vm = strdup(xv_value_string(xv_value_at(refs, 0), ""));
    xv_value_free(refs);
}

static void start_pool(struct pool *pool)
{
    start_pool_with(pool, false);
}

static void stop_pool(struct pool *pool)
{
    xvsa_error *error = NULL;
    int status = 0;
    ck_ok(xv_client_close(pool->client, &pool->call, &error), error);
    xv_client_free(pool->client);
    kill(pool->process, SIGTERM);
    waitpid(pool->process, &status, 0);
    free(pool->vm);
    char *const remove[] = {(char *)"rm", (char *)"-rf", pool->folder, NULL};
    pid_t cleaner = fork();
    if (cleaner == 0) {
        execvp("rm", remove);
        _exit(127);
    }
    waitpid(cleaner, &status, 0);
}

static size_t collect(char *data, size_t size, size_t count, void *user)
{
    char **text = user;
    size_t had = *text == NULL ? 0 : strlen(*text);
    char *grown = realloc(*text, had + size * count + 1);
    ck_assert_ptr_nonnull(grown);
    memcpy(grown + had, data, size * count);
    grown[had + size * count] = '\0';
    *text = grown;
    return size * count;
}

/* Posts to the control interface; the caller frees the answer. */
static json_t *control(struct pool *pool, const char *action, const char *arguments)
{
    char url[256];
    char *text = NULL;
    CURL *curl = curl_easy_init();
    snprintf(url, sizeof url, "%s%s", pool->sim, action);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, arguments);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &text);
    ck_assert_int_eq((int)curl_easy_perform(curl), CURLE_OK);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    ck_assert_msg(status == 200, "%s: %s", action, text == NULL ? "" : text);
    curl_easy_cleanup(curl);
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    free(text);
    return json;
}

static void fault(struct pool *pool, const char *rule)
{
    json_decref(control(pool, "fault/add", rule));
}

/* How many objects that clients made still exist. */
static size_t leftovers(struct pool *pool)
{
    json_t *made = control(pool, "made", "{}");
    const json_t *objects = json_object_get(made, "objects");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(objects); i++) {
        const json_t *object = json_array_get(objects, i);
        const char *class_name = json_string_value(json_object_get(object, "class"));
        bool lasting = class_name == NULL ||
                       (strcmp(class_name, "task") != 0 && strcmp(class_name, "session") != 0);
        count += lasting && json_is_true(json_object_get(object, "exists"));
    }
    const json_t *entries = json_object_get(made, "entries");
    for (size_t i = 0; i < json_array_size(entries); i++)
        count += json_is_true(json_object_get(json_array_get(entries, i), "exists"));
    json_decref(made);
    return count;
}

static bool is_tag(void *user, const char *tag)
{
    return strcmp(tag, user) == 0;
}

static void sweep(struct pool *pool, const char *tag, size_t *ret_left)
{
    xvsa_error *error = NULL;
    size_t removed = 0;
    ck_ok(xv_leftovers_remove(pool->client, is_tag, (void *)(uintptr_t)tag, NULL, 0, &pool->call,
                              &removed, ret_left, &error),
          error);
}

static struct xv_inventory *inventory_of(struct pool *pool)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_inventory_read(pool->client, &pool->call, &all, &error), error);
    return all;
}

/* Takes a snapshot and lists its disks. */
static char *snapshot(struct pool *pool, const char *tag, struct xv_snapshot_disk **ret,
                      size_t *ret_count)
{
    char *ref = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_snapshot_take(pool->client, pool->vm, tag, NULL, 0, &pool->call, &ref, &error), error);
    ck_ok(xv_snapshot_disks(pool->client, ref, &pool->call, ret, ret_count, &error), error);
    return ref;
}

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
    while ((block = xv_block_queue_pop(reading.queue)) != NULL) {
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
    ck_ok(xv_vm_create(pool->client, *ret_record, "web again", "job", &pool->call, &vm, &error),
          error);
    if (!with_devices)
        return vm;
    struct xv_value *vbd = xv_value_new_struct();
    ck_assert(xv_value_set_string(vbd, "userdevice", "0"));
    ck_ok(xv_vbd_create(pool->client, vm, *ret_vdi, vbd, &pool->call, &error), error);
    ck_ok(xv_vbd_create(pool->client, vm, *ret_vdi, vbd, &pool->call, &error), error);
    ck_ok(xv_vif_create(pool->client, vm, all->networks[0].ref, "02:00:00:00:00:02", NULL,
                        &pool->call, &error),
          error);
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

static bool has_python(void)
{
    return system("command -v python3 >/dev/null 2>&1") == 0;
}

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
    tcase_add_test(all, exports);
    tcase_add_test(all, imports);
    tcase_add_test(all, changed_blocks);
    tcase_add_test(all, disks_in_use);
    tcase_add_test(all, restored_machines);
    tcase_add_test(all, unfinished_machines_are_removed);
    tcase_add_test(all, copies_are_spared);
    tcase_add_test(all, migration_blocks);
    tcase_add_test(all, coordinator_changes);
    tcase_add_test(all, certificates_of_members);
    tcase_add_test(all, lost_tasks);
}

UNIT_MAIN("operations")
