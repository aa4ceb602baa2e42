/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Free blocks are announced through an eventfd, so that readers can wait for them together with
 * sockets and cancellation; filled ones through a condition variable.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "disk/disk.h"

#define COMPONENT "disk"
#define PAGE      4096u

#define POP_STEP_MS 20

struct xv_block_queue {
    pthread_mutex_t lock; /* guards what follows up to free_fd */
    pthread_cond_t filled;
    struct xv_block *free_list;
    struct xv_block *first, *last; /* filled, oldest first */
    bool closed, stopped;
    /* Readable exactly while free_list is not empty or stopped is set; changed under the lock. */
    int free_fd;
    void (*gate)(const struct xv_block *block);
    uint32_t count;
    uint32_t capacity;
    struct xv_block blocks[];
};

static int allocate_blocks(struct xv_block_queue *queue, uint32_t count, uint32_t capacity,
                           xvsa_error **error)
{
    size_t bytes = ((size_t)capacity + PAGE - 1) / PAGE * PAGE;
    queue->capacity = capacity;
    for (uint32_t i = 0; i < count; i++) {
        struct xv_block *block = &queue->blocks[i];
        block->data = aligned_alloc(PAGE, bytes);
        if (block->data == NULL)
            return xv_fail_memory(error);
        block->capacity = capacity;
        block->next = queue->free_list;
        queue->free_list = block;
        queue->count = i + 1;
    }
    return 0;
}

int xv_block_queue_new(uint32_t count, uint32_t capacity, struct xv_block_queue **ret,
                       xvsa_error **error)
{
    if (count == 0 || capacity == 0)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "a block queue needs blocks of some size");
    struct xv_block_queue *queue = calloc(1, sizeof *queue + count * sizeof queue->blocks[0]);
    if (queue == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&queue->lock, NULL);
    xv_condition_init(&queue->filled);
    queue->free_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = queue->free_fd < 0
                 ? xv_fail_errno(error, errno, COMPONENT, "cannot make a block queue")
                 : allocate_blocks(queue, count, capacity, error);
    if (rc != 0) {
        xv_block_queue_free(queue);
        return rc;
    }
    *ret = queue;
    return 0;
}

void xv_block_queue_free(struct xv_block_queue *queue)
{
    if (queue == NULL)
        return;
    for (uint32_t i = 0; i < queue->count; i++)
        free(queue->blocks[i].data);
    if (queue->free_fd >= 0)
        close(queue->free_fd);
    pthread_cond_destroy(&queue->filled);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/* Both hold the lock. The descriptor's counter is 0 or 1, so neither call can block or fail. */
static void announce_free(struct xv_block_queue *queue)
{
    uint64_t one = 1;
    ssize_t written = write(queue->free_fd, &one, sizeof one);
    (void)written;
}

static void withdraw_free(struct xv_block_queue *queue)
{
    uint64_t value;
    ssize_t got = read(queue->free_fd, &value, sizeof value);
    (void)got;
}

static struct xv_block *try_take(struct xv_block_queue *queue, bool *stopped)
{
    pthread_mutex_lock(&queue->lock);
    struct xv_block *block = queue->stopped ? NULL : queue->free_list;
    *stopped = queue->stopped;
    if (block != NULL) {
        queue->free_list = block->next;
        if (queue->free_list == NULL)
            withdraw_free(queue);
        block->next = NULL;
        block->offset = 0;
        block->length = 0;
        block->owner = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
    return block;
}

struct xv_block *xv_block_queue_try_take(struct xv_block_queue *queue)
{
    bool stopped;
    return try_take(queue, &stopped);
}

struct xv_block *xv_block_queue_take(struct xv_block_queue *queue, const struct xv_call *call)
{
    while (xv_call_check(call, COMPONENT, "waiting for a free block", NULL) == 0) {
        bool stopped;
        struct xv_block *block = try_take(queue, &stopped);
        if (block != NULL || stopped)
            return block;
        struct pollfd fds[] = {
            {.fd = queue->free_fd, .events = POLLIN},
            {.fd = call == NULL ? -1 : xv_cancel_fd(call->cancel), .events = POLLIN},
        };
        /* The bound keeps the conversion safe; a deadline further away takes several rounds. */
        if (poll(fds, 2, (int)xv_call_left(call, 60000)) < 0 && errno != EINTR)
            return NULL;
    }
    return NULL;
}

int xv_block_queue_free_fd(struct xv_block_queue *queue)
{
    return queue->free_fd;
}

void xv_block_queue_set_gate(struct xv_block_queue *queue,
                             void (*gate)(const struct xv_block *block))
{
    queue->gate = gate;
}

void xv_block_queue_push(struct xv_block_queue *queue, struct xv_block *block)
{
    if (queue->gate != NULL)
        queue->gate(block);
    pthread_mutex_lock(&queue->lock);
    block->next = NULL;
    if (queue->last == NULL)
        queue->first = block;
    else
        queue->last->next = block;
    queue->last = block;
    pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

struct xv_block *xv_block_queue_pop(struct xv_block_queue *queue, const struct xv_call *call)
{
    bool ended = false;
    pthread_mutex_lock(&queue->lock);
    while (queue->first == NULL && !queue->closed && !queue->stopped && !ended) {
        if (call == NULL) {
            pthread_cond_wait(&queue->filled, &queue->lock);
            continue;
        }
        /* In steps, because a cancellation does not signal the condition. */
        xv_condition_wait(&queue->filled, &queue->lock, POP_STEP_MS);
        ended = xv_call_check(call, COMPONENT, "waiting for a filled block", NULL) != 0;
    }
    struct xv_block *block = queue->stopped || ended ? NULL : queue->first;
    if (block != NULL) {
        queue->first = block->next;
        if (queue->first == NULL)
            queue->last = NULL;
        block->next = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
    return block;
}

void xv_block_queue_release(struct xv_block_queue *queue, struct xv_block *block)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->free_list == NULL && !queue->stopped)
        announce_free(queue);
    block->next = queue->free_list;
    queue->free_list = block;
    pthread_mutex_unlock(&queue->lock);
}

void xv_block_queue_close(struct xv_block_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

void xv_block_queue_stop(struct xv_block_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    if (!queue->stopped && queue->free_list == NULL)
        announce_free(queue);
    queue->stopped = true;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

bool xv_block_queue_is_stopped(struct xv_block_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    bool stopped = queue->stopped;
    pthread_mutex_unlock(&queue->lock);
    return stopped;
}

uint32_t xv_block_queue_capacity(const struct xv_block_queue *queue)
{
    return queue->capacity;
}
