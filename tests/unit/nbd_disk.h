/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk of known content behind an NBD server, opened, read and streamed with every byte checked.
 */
#ifndef XV_TESTS_NBD_DISK_H
#define XV_TESTS_NBD_DISK_H

#include "disk/disk.h"
#include "nbd_servers.h"

#define MIB     (1u << 20)
#define SIZE    (24u * MIB + 1536)
#define EXPORT  "/2f1e-disk?session_id=OpaqueRef:very-secret"
#define BLOCKS  12u
#define TIMEOUT 120

static uint8_t content[SIZE], image[SIZE];
static uint8_t seen[SIZE / 512];

static bool skip_without(const char *program)
{
    if (have_program(program))
        return false;
    printf("SKIPPED: %s is not installed\n", program);
    return true;
}

static void make_disk(struct place *place)
{
    char path[200];
    make_place(place);
    uint64_t state = 1;
    for (size_t i = 0; i < SIZE; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        content[i] = (uint8_t)(state >> 56);
    }
    FILE *file = fopen(place_path(place, path, "disk"), "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(content, 1, SIZE, file), SIZE);
    ck_assert_int_eq(fclose(file), 0);
}

static const char *file_plugin(const struct place *place, char *text, const char *options,
                               const char *parameters)
{
    snprintf(text, 400, "%s file %s/disk %s", options, place->folder, parameters);
    return text;
}

static struct xv_nbd_server server_at(uint16_t port, const char *certificate)
{
    return (struct xv_nbd_server){.address = "127.0.0.1",
                                  .export_name = EXPORT,
                                  .certificate = certificate,
                                  .subject = "host.pool",
                                  .port = port};
}

/* No message of the chain may show the session. */
static void check_discreet(const xvsa_error *error)
{
    for (; error != NULL; error = xvsa_error_cause(error))
        ck_assert_msg(strstr(xvsa_error_message(error), "secret") == NULL, "%s",
                      xvsa_error_message(error));
}

static struct xv_disk *open_disk(struct xv_nbd_server server, struct xv_nbd_options options)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    options.disk_name = "d";
    ck_ok(xv_nbd_disk_open(&server, 1, &options, NULL, &disk, &error), error);
    return disk;
}

static void check_open_fails(struct xv_nbd_server server, struct xv_nbd_options options, int code)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    options.disk_name = "d";
    int rc = xv_nbd_disk_open(&server, 1, &options, NULL, &disk, &error);
    check_discreet(error);
    ck_fails(rc, code, error);
}

struct consumer {
    struct xv_block_queue *queue;
    void *owner;
    pthread_t thread;
    uint32_t stop_after; /* blocks; 0: never */
    uint32_t blocks;
    bool strange;
};

static void *consume(void *argument)
{
    struct consumer *consumer = argument;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(consumer->queue, NULL)) != NULL) {
        if (block->owner != consumer->owner || block->length == 0 ||
            block->offset + block->length > SIZE || block->offset % 512 != 0) {
            consumer->strange = true;
        } else {
            memcpy(image + block->offset, block->data, block->length);
            for (uint64_t at = 0; at < block->length; at += 512)
                seen[(block->offset + at) / 512]++;
        }
        xv_block_queue_release(consumer->queue, block);
        if (++consumer->blocks == consumer->stop_after)
            xv_block_queue_stop(consumer->queue);
    }
    return NULL;
}

static int stream(struct xv_disk *disk, const struct xv_extents *ranges, const struct xv_call *call,
                  uint32_t stop_after, xvsa_error **error)
{
    struct consumer consumer = {.owner = disk, .stop_after = stop_after};
    ck_assert_int_eq(xv_block_queue_new(BLOCKS, MIB, &consumer.queue, NULL), 0);
    memset(seen, 0, sizeof seen);
    memset(image, 0, sizeof image);
    ck_assert_int_eq(pthread_create(&consumer.thread, NULL, consume, &consumer), 0);
    int rc = xv_disk_stream(disk, ranges, consumer.queue, disk, call, error);
    xv_block_queue_close(consumer.queue);
    pthread_join(consumer.thread, NULL);
    ck_assert(!consumer.strange);
    if (stop_after == 0) {
        for (uint32_t i = 0; i < BLOCKS; i++)
            ck_assert_ptr_nonnull(xv_block_queue_try_take(consumer.queue));
    }
    xv_block_queue_free(consumer.queue);
    return rc;
}

static void check_stream(struct xv_disk *disk, const struct xv_extents *ranges)
{
    xvsa_error *error = NULL;
    ck_ok(stream(disk, ranges, NULL, 0, &error), error);
    size_t range = 0;
    for (uint64_t at = 0; at < disk->size; at += 512) {
        while (range < ranges->count &&
               ranges->ranges[range].offset + ranges->ranges[range].length <= at)
            range++;
        bool wanted = range < ranges->count && ranges->ranges[range].offset <= at;
        size_t length = disk->size - at < 512 ? (size_t)(disk->size - at) : 512;
        if (seen[at / 512] != wanted || (wanted && memcmp(image + at, content + at, length) != 0))
            ck_abort_msg("sector at %llu came %d times", (unsigned long long)at, seen[at / 512]);
    }
}

static void check_whole(struct xv_disk *disk)
{
    struct xv_extents all;
    xvsa_error *error = NULL;
    xv_extents_init(&all);
    ck_ok(xv_extents_add(&all, 0, disk->size, &error), error);
    check_stream(disk, &all);
    xv_extents_free(&all);
}

static void check_read(struct xv_disk *disk, uint64_t offset, size_t length)
{
    static _Thread_local uint8_t data[3 * MIB];
    xvsa_error *error = NULL;
    ck_ok(xv_disk_read(disk, offset, data, length, NULL, &error), error);
    ck_assert_int_eq(memcmp(data, content + offset, length), 0);
}

#endif
