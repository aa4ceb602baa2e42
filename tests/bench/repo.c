/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The data path of a job without a pool: disks come from an NBD server, restore points go to and come
 * from a directory. See tests/bench/run.
 *
 *     bench-repo init DIR
 *     bench-repo backup DIR VM URI [--changes BITMAP]
 *     bench-repo restore DIR POINT FILE
 *     bench-repo verify DIR
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diff/changes.h"
#include "job/transfer.h"

#define BLOCK_BYTES    (1u << 20)
#define MEMORY         (64u << 20)
#define AUDIT_PERMILLE 1
#define AUDIT_LEAST    32

static const char passphrase[] = "benchmark";

static void check(int rc, xvsa_error *error, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s", what, xvsa_code_name(rc));
    for (const xvsa_error *e = error; e != NULL; e = xvsa_error_cause(e))
        fprintf(stderr, ": %s", xvsa_error_message(e));
    fprintf(stderr, "\n");
    exit(1);
}

static uint32_t processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (uint32_t)count;
}

static struct xv_repo *open_repo(struct xv_target_registry *registry, const char *directory,
                                 bool init)
{
    xvsa_error *error = NULL;
    struct xv_target *target = NULL;
    struct xv_repo *repo = NULL;
    char *url = NULL;
    if (asprintf(&url, "file://%s", directory) < 0)
        exit(1);
    check(xv_target_open(registry, NULL, url, XVSA_TARGET_CREATE, NULL, &target, &error), error,
          url);
    struct xv_repo_options options = {.passphrase = passphrase,
                                      .passphrase_size = sizeof passphrase - 1};
    check(init ? xv_repo_init(target, &options, NULL, &repo, &error)
               : xv_repo_open(target, &options, NULL, &repo, &error),
          error, directory);
    xv_target_unref(target);
    free(url);
    return repo;
}

static void read_bitmap(const char *path, uint64_t size, struct xv_extents *ret)
{
    size_t length = (size_t)((size / XV_CBT_BLOCK + (size % XV_CBT_BLOCK != 0) + 7) / 8);
    uint8_t *bits = malloc(length);
    FILE *file = fopen(path, "rb");
    if (bits == NULL || file == NULL || fread(bits, 1, length, file) != length) {
        fprintf(stderr, "%s: cannot read %zu bytes\n", path, length);
        exit(1);
    }
    fclose(file);
    xvsa_error *error = NULL;
    check(xv_changes_decode_bits(bits, length, size, ret, &error), error, path);
    free(bits);
}

/* What an incremental backup does with blocks that are said to be unchanged: keeps them, and reads some. */
static void keep_unchanged(struct xv_disk *disk, struct xv_disk_writer *writer,
                           const struct xv_extents *changed)
{
    xvsa_error *error = NULL;
    struct xv_extents whole, same, sample;
    xv_extents_init(&whole);
    xv_extents_init(&same);
    xv_extents_init(&sample);
    check(xv_extents_add(&whole, 0, disk->size, &error), error, "keep");
    check(xv_extents_subtract(&whole, changed, &same, &error), error, "keep");
    check(xv_disk_writer_keep(writer, &same, NULL, &error), error, "keep");
    check(xv_changes_sample(changed, disk->size, XV_CBT_BLOCK, AUDIT_PERMILLE, AUDIT_LEAST, 1,
                            &sample, &error),
          error, "sample");
    static uint8_t data[XV_CBT_BLOCK];
    for (size_t i = 0; i < sample.count; i++) {
        uint64_t end = sample.ranges[i].offset + sample.ranges[i].length;
        for (uint64_t at = sample.ranges[i].offset; at < end; at += XV_CBT_BLOCK) {
            size_t length = end - at < XV_CBT_BLOCK ? (size_t)(end - at) : XV_CBT_BLOCK;
            bool match = false;
            check(xv_disk_read(disk, at, data, length, NULL, &error), error, "audit");
            check(xv_disk_writer_matches_base(writer, at, data, length, NULL, &match, &error),
                  error, "audit");
            if (!match) {
                fprintf(stderr, "the bitmap lies about byte %llu\n", (unsigned long long)at);
                exit(1);
            }
        }
    }
    xv_extents_free(&whole);
    xv_extents_free(&same);
    xv_extents_free(&sample);
}

static void move(struct xv_session *session, struct xv_disk *disk, const struct xv_extents *ranges,
                 struct xv_disk_writer *writer)
{
    xvsa_error *error = NULL;
    xvsa_cancel *cancel = NULL;
    struct xv_pipeline *pipeline = NULL;
    struct xv_intake *intake = NULL;
    check(xvsa_cancel_new(&cancel, &error), error, "cancel");
    check(xv_pipeline_new(processors(), MEMORY, BLOCK_BYTES, NULL, &pipeline, &error), error,
          "pipeline");
    check(xv_intake_new(pipeline, session, cancel, &intake, &error), error, "intake");
    struct xv_call call = {.cancel = cancel};
    check(xv_intake_move(intake, disk, ranges, writer, NULL, NULL, &call, &error), error, "move");
    check(xv_intake_flush(intake, NULL, &error), error, "flush");
    xv_intake_free(intake);
    xv_pipeline_free(pipeline);
    xvsa_cancel_unref(cancel);
}

static void backup(struct xv_repo *repo, const char *vm, const char *uri, const char *bitmap)
{
    xvsa_error *error = NULL;
    struct xv_disk *disk = NULL;
    struct xv_point *base = NULL;
    struct xv_session *session = NULL;
    struct xv_disk_writer *writer = NULL;
    struct xv_extents ranges;
    struct xv_nbd_options options = {.disk_name = vm};
    char latest[256];
    xv_extents_init(&ranges);
    check(xv_nbd_disk_open_uri(uri, &options, NULL, &disk, &error), error, uri);
    snprintf(latest, sizeof latest, "latest:%s", vm);
    if (bitmap != NULL)
        check(xv_repo_find_point(repo, latest, NULL, &base, &error), error, latest);
    struct xv_session_options begin = {.job_key = vm, .base = base};
    check(xv_session_begin(repo, &begin, NULL, &session, &error), error, "session");
    check(xv_session_add_disk(session, "disk", "0", disk->size, base == NULL ? -1 : 0, NULL,
                              &writer, &error),
          error, "disk");
    if (bitmap != NULL) {
        read_bitmap(bitmap, disk->size, &ranges);
        keep_unchanged(disk, writer, &ranges);
    } else {
        struct xv_extents allocated;
        xv_extents_init(&allocated);
        check(xv_disk_allocated(disk, &allocated, NULL, &error), error, "map");
        check(xv_extents_align(&allocated, xv_repo_chunk_size(repo), disk->size, &ranges, &error),
              error, "map");
        xv_extents_free(&allocated);
    }
    move(session, disk, &ranges, writer);
    check(xv_disk_writer_finish(writer, "{}", NULL, &error), error, "finish");
    struct xv_store_stats stats;
    xv_disk_writer_stats(writer, &stats);
    struct xv_point_facts facts = {.vm_uuid = vm,
                                   .vm_name = vm,
                                   .pool_uuid = "bench",
                                   .job_id = "bench",
                                   .taken_ms = xv_wall_ms(),
                                   .metadata = "{}"};
    char id[XV_POINT_ID_LENGTH + 1];
    check(xv_session_commit(session, &facts, NULL, id, &error), error, "commit");
    printf("{\"point\": \"%s\", \"read\": %llu, \"zero\": %llu, \"same\": %llu, \"known\": %llu, "
           "\"new\": %llu, \"stored\": %llu}\n",
           id, (unsigned long long)stats.bytes_read, (unsigned long long)stats.bytes_zero,
           (unsigned long long)stats.bytes_same, (unsigned long long)stats.bytes_known,
           (unsigned long long)stats.bytes_new, (unsigned long long)stats.bytes_stored);
    xv_disk_writer_free(writer);
    xv_session_free(session);
    xv_point_unref(base);
    xv_disk_close(disk);
    xv_extents_free(&ranges);
}

struct output {
    struct xv_block_queue *queue;
    int fd;
};

static void *write_blocks(void *argument)
{
    struct output *output = argument;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(output->queue, NULL)) != NULL) {
        if (pwrite(output->fd, block->data, block->length, (off_t)block->offset) !=
            (ssize_t)block->length) {
            fprintf(stderr, "write: %s\n", strerror(errno));
            exit(1);
        }
        xv_block_queue_release(output->queue, block);
    }
    return NULL;
}

static void restore(struct xv_repo *repo, const char *id, const char *path)
{
    xvsa_error *error = NULL;
    struct xv_point *point = NULL;
    struct xv_disk *disk = NULL;
    struct xv_extents data;
    struct output output;
    pthread_t writer;
    xv_extents_init(&data);
    check(xv_repo_find_point(repo, id, NULL, &point, &error), error, id);
    check(xv_point_open_disk(point, 0, NULL, &disk, &error), error, id);
    check(xv_disk_allocated(disk, &data, NULL, &error), error, id);
    output.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (output.fd < 0 || ftruncate(output.fd, (off_t)disk->size) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    check(xv_block_queue_new(MEMORY / BLOCK_BYTES, BLOCK_BYTES, &output.queue, &error), error,
          "queue");
    if (pthread_create(&writer, NULL, write_blocks, &output) != 0)
        exit(1);
    check(xv_disk_stream(disk, &data, output.queue, NULL, NULL, &error), error, id);
    xv_block_queue_close(output.queue);
    pthread_join(writer, NULL);
    if (fsync(output.fd) != 0 || close(output.fd) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    xv_block_queue_free(output.queue);
    xv_disk_close(disk);
    xv_point_unref(point);
    xv_extents_free(&data);
}

static void verify(struct xv_repo *repo)
{
    xvsa_error *error = NULL;
    struct xv_verify_options options = {0};
    struct xv_verify_result result = {0};
    check(xv_repo_verify(repo, &options, NULL, &result, &error), error, "verify");
    printf("{\"bytes\": %llu, \"faults\": %llu}\n", (unsigned long long)result.bytes,
           (unsigned long long)result.faults);
    if (result.faults != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    xvsa_error *error = NULL;
    struct xv_target_registry *registry = NULL;
    if (argc < 3) {
        fprintf(stderr, "usage: bench-repo init|backup|restore|verify DIR ...\n");
        return 2;
    }
    check(xv_target_registry_new(&registry, &error), error, "registry");
    struct xv_repo *repo = open_repo(registry, argv[2], strcmp(argv[1], "init") == 0);
    if (strcmp(argv[1], "backup") == 0 && argc == 5)
        backup(repo, argv[3], argv[4], NULL);
    else if (strcmp(argv[1], "backup") == 0 && argc == 7 && strcmp(argv[5], "--changes") == 0)
        backup(repo, argv[3], argv[4], argv[6]);
    else if (strcmp(argv[1], "restore") == 0 && argc == 5)
        restore(repo, argv[3], argv[4]);
    else if (strcmp(argv[1], "verify") == 0)
        verify(repo);
    xv_repo_unref(repo);
    xv_target_registry_free(registry);
    return 0;
}
