/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Verifying packs, several at once. What is found is kept until the trees have been gone through.
 */
#include <stdlib.h>
#include <unistd.h>

#include "repo/verify.h"

#define THREADS_MAX 2u /* each holds a whole pack in memory */

struct checker {
    struct xv_verify *verify;
    struct xv_frame_opener *opener;
    uint8_t *raw;  /* XV_FRAME_RAW_MAX bytes */
    uint8_t *data; /* of a frame, when packs are not read whole */
    size_t data_capacity;
    pthread_t thread;
};

static void add_bad(struct xv_verify *verify, const struct xv_pack_task *task, uint32_t offset,
                    const char *message)
{
    pthread_mutex_lock(&verify->lock);
    size_t count = verify->bad_count;
    struct xv_bad_frame *grown = verify->bad;
    if ((count & (count - 1)) == 0)
        grown = realloc(verify->bad, (count == 0 ? 1 : 2 * count) * sizeof *grown);
    char *copy = strdup(message);
    if (grown != NULL)
        verify->bad = grown;
    if (grown == NULL || copy == NULL) {
        free(copy);
        verify->failed = XVSA_ERR_MEMORY;
    } else {
        struct xv_bad_frame *bad = &grown[verify->bad_count++];
        *bad = (struct xv_bad_frame){.nodes = task->nodes, .offset = offset, .message = copy};
        memcpy(bad->pack, task->pack, XV_HANDLE_BYTES);
    }
    pthread_mutex_unlock(&verify->lock);
}

/* Keeps damage as a finding; other errors end the verification. Returns 0 for damage. */
static int keep(struct checker *checker, const struct xv_pack_task *task, uint32_t offset, int rc,
                xvsa_error *e)
{
    struct xv_verify *verify = checker->verify;
    if (xv_fault_is_damage(rc)) {
        add_bad(verify, task, offset, xvsa_error_message(e));
        xvsa_error_unref(e);
        return 0;
    }
    pthread_mutex_lock(&verify->lock);
    if (verify->failed == 0) {
        verify->failed = rc;
        verify->failure = xvsa_error_ref(e);
    }
    pthread_mutex_unlock(&verify->lock);
    xvsa_error_unref(e);
    return rc;
}

static void count(struct xv_verify *verify, uint64_t objects, uint64_t bytes, uint64_t chunks)
{
    pthread_mutex_lock(&verify->lock);
    verify->result.objects += objects;
    verify->result.bytes += bytes;
    verify->result.chunks += chunks;
    pthread_mutex_unlock(&verify->lock);
}

/* Opens a frame whose bytes are at hand, and compares all its ids. */
static int check_frame(struct checker *checker, const struct xv_pack_task *task, const char *name,
                       const struct xv_frame *listed, const uint8_t *data, xvsa_error **error)
{
    struct xv_frame frame;
    int rc = xv_frame_decode(data, xv_frame_length(listed), name, &frame, error);
    if (rc == 0 && (frame.header_length != listed->header_length ||
                    memcmp(frame.entries - XV_FRAME_FIXED, listed->entries - XV_FRAME_FIXED,
                           frame.header_length) != 0))
        rc = xv_fault(error, name, "frame %u is not the one that the footer lists", listed->number);
    if (rc == 0)
        rc = xv_frame_open(checker->opener, task->pack, name, &frame, data, checker->raw, error);
    const uint8_t *bytes = checker->raw;
    for (uint32_t i = 0; rc == 0 && i < frame.count; i++) {
        rc = xv_frame_check(checker->opener, task->nodes, name, &frame, i, bytes, error);
        bytes += xv_frame_entry_length(&frame, i);
    }
    if (rc == 0)
        count(checker->verify, 0, 0, task->nodes ? 0 : frame.count);
    return rc;
}

static int check_frames(struct checker *checker, const struct xv_pack_task *task, const char *name,
                        const struct xv_pack_index *index, const uint8_t *data)
{
    for (uint32_t i = 0; i < index->count; i++) {
        xvsa_error *e = NULL;
        int rc = xv_call_check(checker->verify->call, "repo", "verifying", &e);
        if (rc == 0)
            rc = check_frame(checker, task, name, &index->frames[i], data + index->frames[i].offset,
                             &e);
        if (rc != 0 && keep(checker, task, index->frames[i].offset, rc, e) != 0)
            return rc;
    }
    return 0;
}

/* Reads all of a pack. */
static int check_whole(struct checker *checker, const struct xv_pack_task *task, const char *name)
{
    struct xv_verify *verify = checker->verify;
    uint8_t *data = NULL;
    uint8_t *table = NULL;
    uint64_t size = 0;
    uint32_t offset = 0;
    uint32_t length = 0;
    struct xv_pack_index index = {0};
    xvsa_error *e = NULL;
    int rc = xv_target_get_all(verify->repo->target, name, XV_OBJECT_MAX, &data, &size,
                               verify->call, &e);
    if (rc == 0 && size < XV_PACK_HEAD_BYTES + XV_PACK_TAIL_BYTES)
        rc = xv_fault(&e, name, "it is only %llu bytes long", (unsigned long long)size);
    if (rc == 0)
        rc = xv_pack_head_check(verify->repo->crypt, task->nodes, name, data, size, &e);
    if (rc == 0)
        rc =
            xv_pack_tail_decode(name, data + size - XV_PACK_TAIL_BYTES, size, &offset, &length, &e);
    if (rc == 0 && (table = malloc(length)) == NULL)
        rc = xv_fail_memory(&e);
    if (rc == 0) {
        memcpy(table, data + offset, length);
        rc = xv_pack_index_decode(verify->repo->crypt, name, data, table,
                                  data + size - XV_PACK_TAIL_BYTES, size, &index, &e);
    }
    if (rc != 0) {
        rc = keep(checker, task, 0, rc, e);
    } else {
        count(verify, 1, size, 0);
        rc = check_frames(checker, task, name, &index, data);
    }
    xv_pack_index_free(&index);
    free(data);
    return rc;
}

static int read_frame(struct checker *checker, const char *name, const struct xv_frame *frame,
                      xvsa_error **error)
{
    uint32_t length = xv_frame_length(frame);
    if (checker->data_capacity < length) {
        free(checker->data);
        checker->data = malloc(length);
        checker->data_capacity = checker->data == NULL ? 0 : length;
        if (checker->data == NULL)
            return xv_fail_memory(error);
    }
    count(checker->verify, 0, length, 0);
    return xv_target_get(checker->verify->repo->target, name, frame->offset, checker->data, length,
                         checker->verify->call, error);
}

/* Of one point's verification: only the frames that it wants. */
static int check_wanted(struct checker *checker, const struct xv_pack_task *task, const char *name,
                        const struct xv_pack_index *index)
{
    const struct xv_verify *verify = checker->verify;
    uint32_t last = UINT32_MAX;
    size_t i = 0;
    while (i < verify->wanted_count &&
           memcmp(verify->wanted[i].pack, task->pack, XV_HANDLE_BYTES) < 0)
        i++;
    for (; i < verify->wanted_count &&
           memcmp(verify->wanted[i].pack, task->pack, XV_HANDLE_BYTES) == 0;
         i++) {
        const struct xv_frame *frame = xv_pack_index_find(index, verify->wanted[i].offset);
        /* A frame that is not listed is the trees' finding. */
        if (frame == NULL || frame->offset == last)
            continue;
        last = frame->offset;
        xvsa_error *e = NULL;
        int rc = read_frame(checker, name, frame, &e);
        if (rc == 0)
            rc = check_frame(checker, task, name, frame, checker->data, &e);
        if (rc != 0 && keep(checker, task, frame->offset, rc, e) != 0)
            return rc;
    }
    return 0;
}

static int check_listed(struct checker *checker, const struct xv_pack_task *task, const char *name)
{
    struct xv_verify *verify = checker->verify;
    struct xv_pack_index index = {0};
    xvsa_error *e = NULL;
    int rc = xv_pack_index_read(verify->repo->target, verify->repo->crypt, task->nodes, task->pack,
                                &index, verify->call, &e);
    if (rc != 0)
        return keep(checker, task, 0, rc, e);
    count(verify, 1, XV_PACK_HEAD_BYTES + XV_PACK_TAIL_BYTES, 0);
    if (!verify->options->quick)
        rc = check_wanted(checker, task, name, &index);
    xv_pack_index_free(&index);
    return rc;
}

static const struct xv_pack_task *next_task(struct xv_verify *verify)
{
    const struct xv_pack_task *task = NULL;
    pthread_mutex_lock(&verify->lock);
    if (verify->failed == 0 && verify->next_pack < verify->pack_count)
        task = &verify->packs[verify->next_pack++];
    pthread_mutex_unlock(&verify->lock);
    return task;
}

static void check_next(struct checker *checker, const struct xv_pack_task *task)
{
    char name[XV_NAME_BYTES];
    xv_pack_name(task->nodes, task->pack, name);
    xvsa_error *e = NULL;
    int rc = xv_call_check(checker->verify->call, "repo", "verifying", &e);
    if (rc != 0)
        (void)keep(checker, task, 0, rc, e);
    else if (checker->verify->options->quick || checker->verify->options->point != NULL)
        (void)check_listed(checker, task, name);
    else
        (void)check_whole(checker, task, name);
}

static void *run_checker(void *argument)
{
    struct checker *checker = argument;
    const struct xv_pack_task *task;
    while ((task = next_task(checker->verify)) != NULL)
        check_next(checker, task);
    return NULL;
}

/* The calling thread works too, and is the one that tells progress. */
static void run_calling(struct checker *checker)
{
    struct xv_verify *verify = checker->verify;
    const struct xv_pack_task *task;
    while ((task = next_task(verify)) != NULL) {
        check_next(checker, task);
        pthread_mutex_lock(&verify->lock);
        uint64_t done = verify->result.bytes;
        pthread_mutex_unlock(&verify->lock);
        uint64_t total = verify->bytes_total > done ? verify->bytes_total : done;
        if (verify->options->progress != NULL)
            verify->options->progress(verify->options->user, done, total);
    }
}

static int32_t add_size(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)name;
    *(uint64_t *)sink += info->length;
    return 0;
}

/* Only for progress. */
static int measure(struct xv_verify *verify, xvsa_error **error)
{
    verify->bytes_total = verify->result.bytes;
    if (verify->options->progress == NULL || verify->options->quick ||
        verify->options->point != NULL)
        return 0;
    int rc = xv_target_list(verify->repo->target, "p/", add_size, &verify->bytes_total,
                            verify->call, error);
    if (rc == 0)
        rc = xv_target_list(verify->repo->target, "n/", add_size, &verify->bytes_total,
                            verify->call, error);
    return rc;
}

static uint32_t thread_count(const struct xv_verify *verify)
{
    const struct xv_env *env = verify->repo->env;
    long threads = env != NULL && env->worker_threads > 0 ? (long)env->worker_threads
                                                          : sysconf(_SC_NPROCESSORS_ONLN);
    return threads < 1 ? 1 : threads > (long)THREADS_MAX ? THREADS_MAX : (uint32_t)threads;
}

int xv_verify_packs(struct xv_verify *verify, xvsa_error **error)
{
    struct checker checkers[THREADS_MAX] = {0};
    uint32_t threads = thread_count(verify);
    uint32_t started = 1;
    int rc = measure(verify, error);
    for (uint32_t i = 0; rc == 0 && i < threads; i++) {
        checkers[i].verify = verify;
        checkers[i].raw = malloc(XV_FRAME_RAW_MAX);
        rc = checkers[i].raw == NULL
                 ? xv_fail_memory(error)
                 : xv_frame_opener_new(verify->repo->crypt, &checkers[i].opener, error);
    }
    if (rc == 0) {
        while (started < threads && pthread_create(&checkers[started].thread, NULL, run_checker,
                                                   &checkers[started]) == 0)
            started++;
        run_calling(&checkers[0]);
        for (uint32_t i = 1; i < started; i++)
            pthread_join(checkers[i].thread, NULL);
        rc = verify->failed;
        if (rc != 0 && error != NULL && verify->failure != NULL)
            *error = xvsa_error_ref(verify->failure);
        else if (rc == XVSA_ERR_MEMORY)
            xv_fail_memory(error);
    }
    for (uint32_t i = 0; i < threads; i++) {
        xv_frame_opener_free(checkers[i].opener);
        free(checkers[i].raw);
        free(checkers[i].data);
    }
    return rc;
}

const struct xv_bad_frame *xv_verify_bad(struct xv_verify *verify, const uint8_t *pack,
                                         uint32_t offset)
{
    for (size_t i = 0; i < verify->bad_count; i++) {
        struct xv_bad_frame *bad = &verify->bad[i];
        if (memcmp(bad->pack, pack, XV_HANDLE_BYTES) == 0 &&
            (bad->offset == 0 || bad->offset == offset)) {
            bad->told = true;
            return bad;
        }
    }
    return NULL;
}

void xv_verify_tell_rest(struct xv_verify *verify)
{
    for (size_t i = 0; i < verify->bad_count; i++) {
        const struct xv_bad_frame *bad = &verify->bad[i];
        char name[XV_NAME_BYTES];
        xv_pack_name(bad->nodes, bad->pack, name);
        if (!bad->told)
            xv_verify_tell(verify, name, NULL, NULL, bad->message);
    }
}
