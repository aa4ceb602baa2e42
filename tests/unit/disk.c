/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The block queue, the dispatch with its default stream, and file disks.
 */
#include "unit.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"

#define MIB   (1u << 20)
#define BLOCK (64u << 10)

static struct xv_block_queue *new_queue(uint32_t count, uint32_t capacity)
{
    struct xv_block_queue *queue = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_block_queue_new(count, capacity, &queue, &error), error);
    return queue;
}

static bool readable(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

START_TEST(queue_hands_blocks_round)
{
    struct xv_block_queue *queue = new_queue(2, 5000);
    struct xv_block *a = xv_block_queue_take(queue, NULL);
    ck_assert_ptr_nonnull(a);
    ck_assert_uint_eq(a->capacity, 5000);
    ck_assert_uint_eq((uintptr_t)a->data % 4096, 0);
    ck_assert(readable(xv_block_queue_free_fd(queue)));
    struct xv_block *b = xv_block_queue_try_take(queue);
    ck_assert_ptr_nonnull(b);
    ck_assert(!readable(xv_block_queue_free_fd(queue)));
    ck_assert_ptr_null(xv_block_queue_try_take(queue));
    struct xv_call call = {.deadline_ms = xv_clock_ms() + 20};
    ck_assert_ptr_null(xv_block_queue_take(queue, &call));
    xv_block_queue_push(queue, a);
    xv_block_queue_push(queue, b);
    ck_assert_ptr_eq(xv_block_queue_pop(queue, NULL), a);
    xv_block_queue_release(queue, a);
    ck_assert(readable(xv_block_queue_free_fd(queue)));
    ck_assert_ptr_eq(xv_block_queue_take(queue, NULL), a);
    xv_block_queue_close(queue);
    ck_assert_ptr_eq(xv_block_queue_pop(queue, NULL), b);
    ck_assert_ptr_null(xv_block_queue_pop(queue, NULL));
    xv_block_queue_free(queue);
}
END_TEST

START_TEST(stopped_queue_wakes_everybody)
{
    struct xv_block_queue *queue = new_queue(1, 512);
    struct xv_block *block = xv_block_queue_take(queue, NULL);
    xv_block_queue_push(queue, block);
    xv_block_queue_stop(queue);
    xv_block_queue_stop(queue);
    ck_assert(readable(xv_block_queue_free_fd(queue)));
    ck_assert_ptr_null(xv_block_queue_pop(queue, NULL));
    ck_assert_ptr_null(xv_block_queue_take(queue, NULL));
    ck_assert_ptr_null(xv_block_queue_try_take(queue));
    xv_block_queue_release(queue, block);
    ck_assert_ptr_null(xv_block_queue_take(queue, NULL));
    xv_block_queue_free(queue);
}
END_TEST

struct popping {
    struct xv_block_queue *queue;
    struct xv_call call;
    struct xv_block *block;
    atomic_bool begun;
};

START_TEST(cancellation_ends_a_take)
{
    struct xv_block_queue *queue = new_queue(1, 512);
    xvsa_cancel *cancel = NULL;
    xvsa_error *error = NULL;
    ck_ok(xvsa_cancel_new(&cancel, &error), error);
    struct xv_call call = {.cancel = cancel};
    ck_assert_ptr_nonnull(xv_block_queue_take(queue, &call));
    xvsa_cancel_fire(cancel);
    ck_assert_ptr_null(xv_block_queue_take(queue, &call));
    xvsa_cancel_unref(cancel);
    xv_block_queue_free(queue);
}
END_TEST

static void *pop_one(void *argument)
{
    struct popping *popping = argument;
    atomic_store(&popping->begun, true);
    popping->block = xv_block_queue_pop(popping->queue, &popping->call);
    return NULL;
}

START_TEST(cancellation_ends_a_pop)
{
    struct popping popping = {.queue = new_queue(1, 512)};
    struct xv_block *block = xv_block_queue_take(popping.queue, NULL);
    pthread_t thread;
    xvsa_error *error = NULL;
    popping.call = xv_call_within(NULL, 50);
    popping.block = block;
    pop_one(&popping);
    ck_assert_ptr_null(popping.block);
    ck_ok(xvsa_cancel_new(&popping.call.cancel, &error), error);
    popping.call.deadline_ms = 0;
    popping.block = block;
    atomic_store(&popping.begun, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, pop_one, &popping), 0);
    while (!atomic_load(&popping.begun))
        usleep(1000);
    xvsa_cancel_fire(popping.call.cancel);
    pthread_join(thread, NULL);
    ck_assert_ptr_null(popping.block);
    /* What is there goes out while the call goes on. */
    xv_block_queue_push(popping.queue, block);
    struct xv_call call = xv_call_within(NULL, 60000);
    ck_assert_ptr_eq(xv_block_queue_pop(popping.queue, &call), block);
    xvsa_cancel_unref(popping.call.cancel);
    xv_block_queue_free(popping.queue);
}
END_TEST

struct traffic {
    struct xv_block_queue *queue;
    atomic_uint next; /* number of the next block to be filled */
    atomic_uint seen[4000];
    bool stop;
};

static void *fill_blocks(void *argument)
{
    struct traffic *traffic = argument;
    for (;;) {
        struct xv_block *block = xv_block_queue_take(traffic->queue, NULL);
        if (block == NULL)
            return NULL;
        unsigned number = atomic_fetch_add(&traffic->next, 1);
        if (number >= 4000) {
            xv_block_queue_release(traffic->queue, block);
            return NULL;
        }
        memcpy(block->data, &number, sizeof number);
        block->offset = number;
        xv_block_queue_push(traffic->queue, block);
        if (traffic->stop && number == 2000)
            xv_block_queue_stop(traffic->queue);
    }
}

static void *drain_blocks(void *argument)
{
    struct traffic *traffic = argument;
    struct xv_block *block;
    while ((block = xv_block_queue_pop(traffic->queue, NULL)) != NULL) {
        unsigned number;
        memcpy(&number, block->data, sizeof number);
        if (number == block->offset)
            atomic_fetch_add(&traffic->seen[number], 1);
        xv_block_queue_release(traffic->queue, block);
    }
    return NULL;
}

START_TEST(queue_survives_many_threads)
{
    struct traffic traffic = {.queue = new_queue(5, 4096), .stop = _i == 1};
    pthread_t fillers[3], drainers[3];
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_create(&fillers[i], NULL, fill_blocks, &traffic), 0);
        ck_assert_int_eq(pthread_create(&drainers[i], NULL, drain_blocks, &traffic), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(fillers[i], NULL);
    xv_block_queue_close(traffic.queue);
    for (int i = 0; i < 3; i++)
        pthread_join(drainers[i], NULL);
    for (int i = 0; i < 4000; i++) {
        unsigned seen = atomic_load(&traffic.seen[i]);
        ck_assert_uint_le(seen, 1);
        ck_assert(traffic.stop || seen == 1);
    }
    xv_block_queue_free(traffic.queue);
}
END_TEST

struct scratch {
    char path[64];
    int fd;
};

static void make_file(struct scratch *file, off_t size)
{
    strcpy(file->path, "/tmp/disk-test-XXXXXX");
    file->fd = mkstemp(file->path);
    ck_assert_int_ge(file->fd, 0);
    ck_assert_int_eq(ftruncate(file->fd, size), 0);
}

static void write_at(struct scratch *file, const void *data, size_t length, off_t offset)
{
    ck_assert_int_eq(pwrite(file->fd, data, length, offset), (ssize_t)length);
}

static void drop_file(struct scratch *file)
{
    close(file->fd);
    unlink(file->path);
}

static struct xv_disk *open_file(struct scratch *file)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    ck_ok(xv_file_disk_open(file->path, NULL, &disk, &error), error);
    return disk;
}

START_TEST(file_is_read_inside_its_bounds)
{
    struct scratch file;
    char data[16];
    xvsa_error *error = NULL;
    make_file(&file, 1000);
    write_at(&file, "content", 7, 993);
    struct xv_disk *disk = open_file(&file);
    ck_assert_uint_eq(disk->size, 1000);
    ck_ok(xv_disk_read(disk, 993, data, 7, NULL, &error), error);
    ck_assert_mem_eq(data, "content", 7);
    ck_ok(xv_disk_read(disk, 1000, data, 0, NULL, &error), error);
    ck_fails(xv_disk_read(disk, 993, data, 8, NULL, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_disk_read(disk, UINT64_MAX, data, 8, NULL, &error), XVSA_ERR_INVALID, error);
    ck_assert_int_eq(ftruncate(file.fd, 500), 0);
    ck_fails(xv_disk_read(disk, 993, data, 7, NULL, &error), XVSA_ERR_IO, error);
    xv_disk_close(disk);
    drop_file(&file);
    xv_disk_close(NULL);
}
END_TEST

START_TEST(only_files_and_devices_are_opened)
{
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    char folder[] = "/tmp/disk-test-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    char fifo[64];
    snprintf(fifo, sizeof fifo, "%s/fifo", folder);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    ck_fails(xv_file_disk_open(folder, NULL, &disk, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_file_disk_open(fifo, NULL, &disk, &error), XVSA_ERR_INVALID, error);
    ck_fails(xv_file_disk_open("", NULL, &disk, &error), XVSA_ERR_INVALID, error);
    unlink(fifo);
    ck_fails(xv_file_disk_open(fifo, NULL, &disk, &error), XVSA_ERR_NOT_FOUND, error);
    rmdir(folder);
}
END_TEST

START_TEST(holes_are_not_allocated)
{
    struct scratch file;
    struct xv_extents set;
    xvsa_error *error = NULL;
    make_file(&file, 8 * MIB);
    write_at(&file, "x", 1, 3 * MIB);
    struct xv_disk *disk = open_file(&file);
    xv_extents_init(&set);
    ck_ok(xv_disk_allocated(disk, &set, NULL, &error), error);
    ck_assert_uint_ge(set.count, 1);
    struct xv_extents wanted, missing;
    xv_extents_init(&wanted);
    xv_extents_init(&missing);
    ck_ok(xv_extents_add(&wanted, 3 * MIB, 1, &error), error);
    ck_ok(xv_extents_subtract(&wanted, &set, &missing, &error), error);
    ck_assert_uint_eq(missing.count, 0);
    xv_extents_free(&wanted);
    xv_extents_free(&set);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

/* Reads what a stream pushed into an image, and checks the rules for blocks. */
static void collect(struct xv_block_queue *queue, uint8_t *image, uint8_t *seen, void *owner,
                    const struct xv_disk *disk)
{
    struct xv_block *block;
    xv_block_queue_close(queue);
    while ((block = xv_block_queue_pop(queue, NULL)) != NULL) {
        ck_assert_ptr_eq(block->owner, owner);
        ck_assert_uint_gt(block->length, 0);
        ck_assert_uint_le(block->length, block->capacity);
        ck_assert_uint_le(block->offset + block->length, disk->size);
        ck_assert_uint_eq(block->offset / block->capacity,
                          (block->offset + block->length - 1) / block->capacity);
        memcpy(image + block->offset, block->data, block->length);
        for (uint32_t i = 0; i < block->length; i++)
            seen[block->offset + i]++;
        xv_block_queue_release(queue, block);
    }
}

/* A disk that only reads: its stream is the default one. */
struct plain {
    struct xv_disk disk;
    struct xv_disk *file;
};

static int read_plain(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                      const struct xv_call *call, xvsa_error **error)
{
    return xv_disk_read(((struct plain *)disk)->file, offset, data, length, call, error);
}

static const struct xv_disk_ops plain_ops = {.transport = "plain", .read = read_plain};

static const struct xv_file_options stream_options[] = {
    {.in_flight = 1}, {.in_flight = 5}, {.in_flight = 3, .direct = true}};

/* The default stream, then those of file disks. */
START_TEST(stream_reads_each_byte_once)
{
    static uint8_t content[5 * MIB + 512], image[sizeof content], seen[sizeof content];
    struct scratch file;
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (uint8_t)(i * 31 + (i >> 12));
    make_file(&file, sizeof content);
    write_at(&file, content, sizeof content, 0);
    struct xv_disk *disk = NULL;
    ck_ok(xv_file_disk_open(file.path, _i == 0 ? NULL : &stream_options[_i - 1], &disk, &error),
          error);
    struct plain plain = {{&plain_ops, disk->size}, disk};
    xv_extents_init(&ranges);
    ck_ok(xv_extents_add(&ranges, BLOCK, BLOCK, &error), error);
    ck_ok(xv_extents_add(&ranges, MIB - BLOCK, 2 * MIB, &error), error);
    ck_ok(xv_extents_add(&ranges, 4 * MIB, MIB + 512, &error), error);
    struct xv_block_queue *queue = new_queue(16, MIB);
    ck_ok(xv_disk_stream(_i == 0 ? &plain.disk : disk, &ranges, queue, &ranges, NULL, &error),
          error);
    collect(queue, image, seen, &ranges, disk);
    for (size_t i = 0; i < sizeof content; i++) {
        bool wanted = (i >= BLOCK && i < 2 * BLOCK) || (i >= MIB - BLOCK && i < 3 * MIB - BLOCK) ||
                      i >= 4 * MIB;
        if (seen[i] != wanted || (wanted && image[i] != content[i]))
            ck_abort_msg("byte %zu was seen %d times", i, seen[i]);
    }
    xv_block_queue_free(queue);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

START_TEST(stream_ends_with_the_call_or_the_queue)
{
    struct scratch file;
    struct xv_extents ranges;
    xvsa_error *error = NULL;
    make_file(&file, 4 * MIB);
    struct xv_disk *disk = open_file(&file);
    xv_extents_init(&ranges);
    ck_ok(xv_extents_add(&ranges, 0, 4 * MIB, &error), error);
    struct xv_block_queue *queue = new_queue(2, MIB);
    struct xv_call call = {.deadline_ms = xv_clock_ms() + 30};
    ck_fails(xv_disk_stream(disk, &ranges, queue, NULL, &call, &error), XVSA_ERR_TIMEOUT, error);
    xv_block_queue_stop(queue);
    ck_fails(xv_disk_stream(disk, &ranges, queue, NULL, NULL, &error), XVSA_ERR_CANCELLED, error);
    ck_ok(xv_extents_add(&ranges, 4 * MIB, 1, &error), error);
    ck_fails(xv_disk_stream(disk, &ranges, queue, NULL, NULL, &error), XVSA_ERR_INVALID, error);
    xv_block_queue_free(queue);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

START_TEST(failing_reader_stops_its_team)
{
    struct scratch file;
    struct xv_extents ranges;
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    make_file(&file, 16 * MIB);
    ck_ok(xv_file_disk_open(file.path, &stream_options[1], &disk, &error), error);
    ck_assert_int_eq(ftruncate(file.fd, MIB), 0);
    xv_extents_init(&ranges);
    ck_ok(xv_extents_add(&ranges, 0, 16 * MIB, &error), error);
    struct xv_block_queue *queue = new_queue(20, MIB);
    ck_assert_int_eq(xv_disk_stream(disk, &ranges, queue, NULL, NULL, &error), XVSA_ERR_IO);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), file.path));
    xvsa_error_unref(error);
    xv_block_queue_free(queue);
    xv_extents_free(&ranges);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

static void push_bytes(struct xv_block_queue *queue, uint64_t offset, uint32_t length, int byte)
{
    struct xv_block *block = xv_block_queue_take(queue, NULL);
    block->offset = offset;
    block->length = length;
    memset(block->data, byte, length);
    xv_block_queue_push(queue, block);
}

START_TEST(blocks_are_written)
{
    static uint8_t image[4 * MIB];
    const struct xv_file_options options = {
        .name = "vdi-7", .writable = true, .direct = _i == 1, .size = 3 * MIB + 512};
    struct scratch file;
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    make_file(&file, 3 * MIB + 512);
    ck_ok(xv_file_disk_open(file.path, &options, &disk, &error), error);
    struct xv_block_queue *queue = new_queue(8, MIB);
    push_bytes(queue, 0, BLOCK, 1);
    push_bytes(queue, 2 * MIB, MIB, 2);
    push_bytes(queue, 3 * MIB, 512, 3);
    xv_block_queue_close(queue);
    ck_ok(xv_disk_write(disk, queue, NULL, &error), error);
    ck_assert_int_eq(pread(file.fd, image, sizeof image, 0), 3 * MIB + 512);
    for (size_t i = 0; i < 3 * MIB + 512; i++)
        ck_assert_int_eq(image[i], i < BLOCK ? 1 : i < 2 * MIB ? 0 : i < 3 * MIB ? 2 : 3);
    xv_block_queue_free(queue);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

START_TEST(writing_tells_its_end)
{
    const struct xv_file_options options = {.name = "vdi-7", .writable = true};
    struct scratch file;
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    make_file(&file, MIB);
    struct xv_disk *read_only = open_file(&file);
    struct xv_block_queue *queue = new_queue(2, MIB);
    ck_fails(xv_disk_write(read_only, queue, NULL, &error), XVSA_ERR_STATE, error);
    xv_disk_close(read_only);
    ck_ok(xv_file_disk_open(file.path, &options, &disk, &error), error);
    const struct xv_call call = xv_call_within(NULL, 20);
    ck_fails(xv_disk_write(disk, queue, &call, &error), XVSA_ERR_TIMEOUT, error);
    xv_block_queue_free(queue);
    queue = new_queue(2, MIB);
    push_bytes(queue, MIB / 2, MIB, 1);
    ck_assert_int_eq(xv_disk_write(disk, queue, NULL, &error), XVSA_ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(xvsa_error_message(error), "vdi-7"));
    xv_error_clear(&error);
    ck_assert(xv_block_queue_is_stopped(queue));
    ck_fails(xv_disk_write(disk, queue, NULL, &error), XVSA_ERR_CANCELLED, error);
    xv_block_queue_free(queue);
    xv_disk_close(disk);
    drop_file(&file);
}
END_TEST

START_TEST(size_is_checked)
{
    const struct xv_file_options options = {.size = MIB, .exclusive = true, .direct = true};
    struct scratch file;
    struct xv_disk *disk = NULL;
    xvsa_error *error = NULL;
    make_file(&file, MIB);
    ck_ok(xv_file_disk_open(file.path, &options, &disk, &error), error);
    xv_disk_close(disk);
    ck_assert_int_eq(ftruncate(file.fd, MIB + 512), 0);
    ck_fails(xv_file_disk_open(file.path, &options, &disk, &error), XVSA_ERR_STATE, error);
    drop_file(&file);
}
END_TEST

static int read_nothing(struct xv_disk *disk, uint64_t offset, void *data, size_t length,
                        const struct xv_call *call, xvsa_error **error)
{
    (void)disk, (void)call, (void)error;
    memset(data, (int)(offset & 1), length);
    return 0;
}

START_TEST(missing_operations_are_unsupported)
{
    static const struct xv_disk_ops ops = {.transport = "test", .read = read_nothing};
    struct xv_disk disk = {.ops = &ops, .size = 512};
    struct xv_extents set;
    xvsa_error *error = NULL;
    xv_extents_init(&set);
    ck_fails(xv_disk_allocated(&disk, &set, NULL, &error), XVSA_ERR_UNSUPPORTED, error);
    ck_fails(xv_disk_write(&disk, NULL, NULL, &error), XVSA_ERR_UNSUPPORTED, error);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *tests = tcase_create("disk");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, queue_hands_blocks_round);
    tcase_add_test(tests, stopped_queue_wakes_everybody);
    tcase_add_test(tests, cancellation_ends_a_take);
    tcase_add_test(tests, cancellation_ends_a_pop);
    tcase_add_loop_test(tests, queue_survives_many_threads, 0, 2);
    tcase_add_test(tests, file_is_read_inside_its_bounds);
    tcase_add_test(tests, only_files_and_devices_are_opened);
    tcase_add_test(tests, holes_are_not_allocated);
    tcase_add_loop_test(tests, stream_reads_each_byte_once, 0, 4);
    tcase_add_test(tests, failing_reader_stops_its_team);
    tcase_add_loop_test(tests, blocks_are_written, 0, 2);
    tcase_add_test(tests, writing_tells_its_end);
    tcase_add_test(tests, size_is_checked);
    tcase_add_test(tests, stream_ends_with_the_call_or_the_queue);
    tcase_add_test(tests, missing_operations_are_unsupported);
    suite_add_tcase(suite, tests);
}

UNIT_MAIN("disk")
