/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The repository alone: files are stored through several packers, compared with the point before, read
 * back and verified.
 *
 *     bench-store DIR THREADS FILE [FILE...]
 *
 * DIR must be empty. Each file becomes a point on top of the one before. Only allocated ranges of a file
 * are read.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "disk/disk.h"
#include "repo/repo.h"

#define BLOCK (1u << 20)
#define GIB   1073741824.0

struct store {
    struct xv_session *session;
    struct xv_disk_writer *writer;
    struct xv_disk *file;
    struct xv_extents ranges;
    atomic_size_t next; /* block of the disk */
};

struct drain {
    struct xv_block_queue *queue;
    atomic_ullong bytes;
};

static void check(int rc, const xvsa_error *error)
{
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", xvsa_code_name(rc), xvsa_error_message(error));
        exit(1);
    }
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void report(const char *what, double bytes, int64_t began_ms, double cpu_before)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double wall = (double)(xv_clock_ms() - began_ms) * 1e-3;
    double cpu = cpu_seconds() - cpu_before;
    printf("%s: %.2f GiB, %.2f s, %.2f CPU s, %.2f CPU s/GiB, peak %ld MiB\n", what, bytes / GIB,
           wall, cpu, bytes > 0 ? cpu / (bytes / GIB) : 0.0, used.ru_maxrss / 1024);
}

static bool wanted(const struct store *store, uint64_t offset, uint64_t length)
{
    size_t low = 0;
    size_t high = store->ranges.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct xv_range *range = &store->ranges.ranges[middle];
        if (range->offset + range->length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < store->ranges.count && store->ranges.ranges[low].offset < offset + length;
}

static void *run_packer(void *argument)
{
    struct store *store = argument;
    struct xv_packer *packer = NULL;
    xvsa_error *error = NULL;
    uint8_t *data = aligned_alloc(4096, BLOCK);
    check(data == NULL ? -1 : xv_packer_new(store->session, &packer, &error), error);
    for (;;) {
        uint64_t offset = (uint64_t)atomic_fetch_add(&store->next, 1) * BLOCK;
        if (offset >= store->file->size)
            break;
        uint64_t left = store->file->size - offset;
        size_t length = left < BLOCK ? (size_t)left : BLOCK;
        if (!wanted(store, offset, length))
            continue;
        check(xv_disk_read(store->file, offset, data, length, NULL, &error), error);
        check(xv_packer_put(packer, store->writer, offset, data, length, NULL, &error), error);
    }
    check(xv_packer_flush(packer, NULL, &error), error);
    xv_packer_free(packer);
    free(data);
    return NULL;
}

static struct xv_point *store_file(struct xv_repo *repo, const char *path, unsigned threads,
                                   struct xv_point *base)
{
    struct store store = {0};
    struct xv_session_options options = {.job_key = "bench", .base = base};
    struct xv_point_facts facts = {.vm_uuid = "bench", .vm_name = path, .taken_ms = xv_wall_ms()};
    struct xv_store_stats stats;
    struct xv_point *point = NULL;
    xvsa_error *error = NULL;
    char id[XV_POINT_ID_LENGTH + 1];
    pthread_t workers[64];
    int64_t began = xv_clock_ms();
    double cpu = cpu_seconds();
    check(xv_file_disk_open(path, NULL, &store.file, &error), error);
    xv_extents_init(&store.ranges);
    check(xv_disk_allocated(store.file, &store.ranges, NULL, &error), error);
    check(xv_session_begin(repo, &options, NULL, &store.session, &error), error);
    check(xv_session_add_disk(store.session, "disk", "0", store.file->size, base == NULL ? -1 : 0,
                              NULL, &store.writer, &error),
          error);
    for (unsigned i = 0; i < threads; i++)
        check(pthread_create(&workers[i], NULL, run_packer, &store) == 0 ? 0 : -1, NULL);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(workers[i], NULL);
    printf("packers done after %.2f s\n", (double)(xv_clock_ms() - began) * 1e-3);
    check(xv_disk_writer_finish(store.writer, "{}", NULL, &error), error);
    xv_disk_writer_stats(store.writer, &stats);
    check(xv_session_commit(store.session, &facts, NULL, id, &error), error);
    report(path, (double)stats.bytes_read, began, cpu);
    printf("  zero %.1f same %.1f known %.1f new %.1f stored %.1f MiB\n",
           (double)stats.bytes_zero / 1048576, (double)stats.bytes_same / 1048576,
           (double)stats.bytes_known / 1048576, (double)stats.bytes_new / 1048576,
           (double)stats.bytes_stored / 1048576);
    xv_session_free(store.session);
    xv_extents_free(&store.ranges);
    xv_disk_close(store.file);
    check(xv_repo_find_point(repo, id, NULL, &point, &error), error);
    return point;
}

static void *run_drain(void *argument)
{
    struct drain *drain = argument;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(drain->queue, NULL)) != NULL) {
        atomic_fetch_add(&drain->bytes, block->length);
        xv_block_queue_release(drain->queue, block);
    }
    return NULL;
}

static void read_point(struct xv_point *point)
{
    struct drain drain = {0};
    struct xv_disk *disk = NULL;
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    pthread_t thread;
    int64_t began = xv_clock_ms();
    double cpu = cpu_seconds();
    xv_extents_init(&ranges);
    check(xv_point_open_disk(point, 0, NULL, &disk, &error), error);
    check(xv_disk_allocated(disk, &ranges, NULL, &error), error);
    check(xv_block_queue_new(32, BLOCK, &drain.queue, &error), error);
    check(pthread_create(&thread, NULL, run_drain, &drain) == 0 ? 0 : -1, NULL);
    check(xv_disk_stream(disk, &ranges, drain.queue, NULL, NULL, &error), error);
    xv_block_queue_close(drain.queue);
    pthread_join(thread, NULL);
    report("read back", (double)drain.bytes, began, cpu);
    xv_block_queue_free(drain.queue);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
}

static void verify(struct xv_repo *repo)
{
    struct xv_verify_options options = {0};
    struct xv_verify_result result;
    xvsa_error *error = NULL;
    int64_t began = xv_clock_ms();
    double cpu = cpu_seconds();
    check(xv_repo_verify(repo, &options, NULL, &result, &error), error);
    report("verify", (double)result.bytes, began, cpu);
    printf("  %llu points, %llu chunks, %llu faults\n", (unsigned long long)result.points,
           (unsigned long long)result.chunks, (unsigned long long)result.faults);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench-store DIR THREADS FILE [FILE...]\n");
        return 2;
    }
    struct xv_target_registry *registry = NULL;
    struct xv_target *target = NULL;
    struct xv_repo *repo = NULL;
    struct xv_point *point = NULL;
    struct xv_repo_options options = {.passphrase = "bench", .passphrase_size = 5, .kdf_log_n = 10};
    xvsa_error *error = NULL;
    char url[4096];
    unsigned threads = (unsigned)atoi(argv[2]);
    snprintf(url, sizeof url, "file://%s", argv[1]);
    check(threads > 0 && threads <= 64 ? 0 : XVSA_ERR_INVALID, NULL);
    check(xv_target_registry_new(&registry, &error), error);
    check(xv_target_open(registry, NULL, url, XVSA_TARGET_CREATE, NULL, &target, &error), error);
    check(xv_repo_init(target, &options, NULL, &repo, &error), error);
    for (int i = 3; i < argc; i++) {
        struct xv_point *next = store_file(repo, argv[i], threads, point);
        xv_point_unref(point);
        point = next;
    }
    read_point(point);
    verify(repo);
    xv_point_unref(point);
    xv_repo_unref(repo);
    xv_target_unref(target);
    xv_target_registry_free(registry);
    return 0;
}
