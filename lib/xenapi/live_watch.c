/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Watches, and the thread that waits for events while there is one.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "xenapi/events.h"
#include "xenapi/live_internal.h"
#include "xenapi/operations_internal.h"

#define EVENT_SECONDS 30
#define POLL_MS       30000 /* of servers without events */
#define PAUSE_MS      250   /* between answers, which gathers events and stops a server's haste */
#define QUICK_MS      1000  /* an answer without events that came earlier than that is haste */
#define RETRY_MS      1000
#define RETRY_MAX_MS  15000

void xv_live_signal(struct xv_live_watch *watch)
{
    uint64_t one = 1;
    /* Fails only when nobody took 2^64 - 2 signals: it is readable then. */
    ssize_t written = write(watch->fd, &one, sizeof one);
    (void)written;
}

/* Waits for events and takes them over. *ret_pause: what to wait before the next question. */
static int follow_once(struct xv_live *live, const struct xv_call *call, int64_t *ret_pause,
                       xvsa_error **error)
{
    struct xv_live_place place;
    struct xv_value *answer = NULL;
    int rc = xv_live_place(live, &place, error);
    if (rc != 0)
        return rc;
    if (place.token == NULL) {
        struct xv_inventory *inventory = NULL;
        rc = xv_live_inventory(live, 0, call, &inventory, error);
        xv_inventory_free(inventory);
        pthread_mutex_lock(&live->lock);
        *ret_pause = live->mute ? POLL_MS : 0;
        pthread_mutex_unlock(&live->lock);
        return rc;
    }
    int64_t began_ms = xv_clock_ms();
    rc = xv_events_from(live->client, xv_live_classes(), place.token, EVENT_SECONDS, call, &answer,
                        error);
    bool haste =
        xv_value_count(xv_value_get(answer, "events")) == 0 && xv_clock_ms() - began_ms < QUICK_MS;
    *ret_pause = haste ? QUICK_MS : PAUSE_MS;
    if (rc == 0 && xv_client_epoch(live->client) == place.epoch)
        rc = xv_live_take(live, &place, began_ms, answer, call, error);
    xv_value_free(answer);
    free(place.token);
    return rc;
}

static void *follow(void *argument)
{
    struct xv_live *live = argument;
    struct xv_call call = {.cancel = live->cancel};
    int64_t retry = RETRY_MS;
    while (!xvsa_cancel_is_fired(live->cancel)) {
        xvsa_error *failure = NULL;
        int64_t pause = 0;
        int rc = follow_once(live, &call, &pause, &failure);
        if (rc != 0 && !xvsa_cancel_is_fired(live->cancel)) {
            xv_live_distrust(live);
            xv_log(live->client->env, XVSA_LOG_WARNING, XV_COMPONENT,
                   "the pool's events are lost, its inventory will be read again: %s",
                   xvsa_error_message(failure));
            pause = retry;
            retry = retry * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : retry * 2;
        } else {
            retry = RETRY_MS;
        }
        xvsa_error_unref(failure);
        if (xv_call_sleep(&call, pause, XV_COMPONENT, "waiting for events", NULL) != 0)
            break;
    }
    return NULL;
}

/* Called with running held. */
static int start(struct xv_live *live, xvsa_error **error)
{
    if (live->stopped)
        return xv_fail(error, XVSA_ERR_STATE, XV_COMPONENT, "the pool is closed");
    if (live->has_thread)
        return 0;
    int rc = xvsa_cancel_new(&live->cancel, error);
    if (rc != 0)
        return rc;
    rc = xv_thread_start("xvsa-events", false, follow, live, &live->thread, error);
    live->has_thread = rc == 0;
    if (rc != 0)
        xvsa_cancel_unref(live->cancel);
    return rc;
}

/* Called with running held. */
static void stop(struct xv_live *live)
{
    if (!live->has_thread)
        return;
    xvsa_cancel_fire(live->cancel);
    pthread_join(live->thread, NULL);
    xvsa_cancel_unref(live->cancel);
    live->has_thread = false;
}

void xv_live_stop(struct xv_live *live)
{
    pthread_mutex_lock(&live->running);
    live->stopped = true;
    stop(live);
    pthread_mutex_unlock(&live->running);
}

int xv_live_watch_open(struct xv_live *live, struct xv_live_watch **ret, xvsa_error **error)
{
    struct xv_live_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return xv_fail_memory(error);
    watch->live = live;
    watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->fd < 0) {
        free(watch);
        return xv_fail_errno(error, errno, XV_COMPONENT, "cannot watch the pool");
    }
    pthread_mutex_lock(&live->running);
    int rc = start(live, error);
    if (rc == 0) {
        pthread_mutex_lock(&live->lock);
        watch->next = live->watches;
        live->watches = watch;
        pthread_mutex_unlock(&live->lock);
    }
    pthread_mutex_unlock(&live->running);
    if (rc != 0) {
        close(watch->fd);
        free(watch);
        return rc;
    }
    *ret = watch;
    return 0;
}

void xv_live_watch_close(struct xv_live_watch *watch)
{
    if (watch == NULL)
        return;
    struct xv_live *live = watch->live;
    pthread_mutex_lock(&live->running);
    pthread_mutex_lock(&live->lock);
    struct xv_live_watch **link = &live->watches;
    while (*link != watch)
        link = &(*link)->next;
    *link = watch->next;
    bool last = live->watches == NULL;
    pthread_mutex_unlock(&live->lock);
    if (last)
        stop(live);
    pthread_mutex_unlock(&live->running);
    close(watch->fd);
    free(watch);
}

int xv_live_watch_fd(const struct xv_live_watch *watch)
{
    return watch->fd;
}

struct xv_live_version xv_live_watch_take(struct xv_live_watch *watch)
{
    uint64_t count = 0;
    /* Nothing to read is fine: nothing grew. */
    ssize_t length = read(watch->fd, &count, sizeof count);
    (void)length;
    return xv_live_version(watch->live);
}
