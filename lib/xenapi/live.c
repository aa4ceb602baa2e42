/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Order of things: a token of the event stream is fetched before a full reading begins, so that whatever
 * changes during the reading comes as an event again. An answer of event.from is used only when its token
 * is still the last one; so events are never taken over out of order.
 */
#include "xenapi/live.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "xenapi/events.h"
#include "xenapi/live_internal.h"
#include "xenapi/operations_internal.h"

#define ATTEMPTS       3
#define STEP_MS        100
#define LOAD_AGE_MS    (60 * 60 * 1000) /* then everything is read again in any case */
#define SILENCE_AGE_MS (10 * 60 * 1000) /* a server forgets deletions after a while */
#define RECOUNT_MS     60000            /* between full readings because numbers differ */

int xv_live_new(struct xv_client *client, struct xv_live **ret, xvsa_error **error)
{
    struct xv_live *live = calloc(1, sizeof *live);
    if (live == NULL)
        return xv_fail_memory(error);
    live->client = client;
    pthread_mutex_init(&live->lock, NULL);
    pthread_mutex_init(&live->running, NULL);
    xv_condition_init(&live->idle);
    *ret = live;
    return 0;
}

void xv_live_free(struct xv_live *live)
{
    if (live == NULL)
        return;
    xv_live_stop(live);
    xv_draft_free(live->draft);
    xv_inventory_free(live->current);
    free(live->token);
    pthread_cond_destroy(&live->idle);
    pthread_mutex_destroy(&live->running);
    pthread_mutex_destroy(&live->lock);
    free(live);
}

struct xv_live_version xv_live_version(struct xv_live *live)
{
    pthread_mutex_lock(&live->lock);
    struct xv_live_version version = live->version;
    pthread_mutex_unlock(&live->lock);
    return version;
}

void xv_live_distrust(struct xv_live *live)
{
    pthread_mutex_lock(&live->lock);
    live->fresh = false;
    pthread_mutex_unlock(&live->lock);
}

/* Called with the lock held. */
static void announce(struct xv_live *live, unsigned changes)
{
    if (changes == 0)
        return;
    live->version.any++;
    if ((changes & XV_CHANGE_REACH) != 0)
        live->version.reach++;
    for (struct xv_live_watch *watch = live->watches; watch != NULL; watch = watch->next)
        xv_live_signal(watch);
}

struct xv_value *xv_live_classes(void)
{
    struct xv_value *classes = xv_value_new_array();
    bool good = classes != NULL;
    for (size_t i = 0; good && i < xv_class_reader_count; i++)
        good = xv_value_add(classes, xv_value_new_string(xv_class_readers[i].class_name));
    if (good)
        return classes;
    xv_value_free(classes);
    return NULL;
}

/* Called with the lock held. */
static bool can_catch_up(const struct xv_live *live, uint64_t epoch)
{
    int64_t now = xv_clock_ms();
    return live->fresh && live->token != NULL && live->epoch == epoch &&
           now - live->loaded_ms < LOAD_AGE_MS && now - live->heard_ms < SILENCE_AGE_MS;
}

int xv_live_place(struct xv_live *live, struct xv_live_place *ret, xvsa_error **error)
{
    uint64_t epoch = xv_client_epoch(live->client);
    pthread_mutex_lock(&live->lock);
    bool follows = can_catch_up(live, epoch);
    *ret = (struct xv_live_place){.token = follows ? strdup(live->token) : NULL,
                                  .position = live->position,
                                  .epoch = live->epoch};
    pthread_mutex_unlock(&live->lock);
    return follows && ret->token == NULL ? xv_fail_memory(error) : 0;
}

/* Called with the lock held. */
static int take_event(struct xv_live *live, const struct xv_value *event, unsigned *changes,
                      xvsa_error **error)
{
    const struct xv_class_reader *reader = xv_draft_class(xv_value_get_string(event, "class", ""));
    const char *ref = xv_value_get_string(event, "ref", "");
    const struct xv_value *record = xv_value_get(event, "snapshot");
    bool gone = strcmp(xv_value_get_string(event, "operation", ""), "del") == 0;
    if (reader == NULL || ref[0] == '\0')
        return 0;
    if (!gone && xv_value_kind(record) != XV_VALUE_STRUCT)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "an event of a %s has no record",
                       reader->class_name);
    int rc = live->draft == NULL ? xv_draft_new(live->current, &live->draft, error) : 0;
    if (rc == 0 && gone)
        xv_draft_drop(live->draft, reader, ref, changes);
    else if (rc == 0)
        rc = xv_draft_put(live->draft, reader, ref, record, changes, error);
    return rc;
}

/* Deletions that the server forgot show in the number of objects only. Called with the lock held. */
static int check_counts(struct xv_live *live, const struct xv_value *answer, xvsa_error **error)
{
    const struct xv_value *counts = xv_value_get(answer, "valid_ref_counts");
    if (xv_clock_ms() - live->loaded_ms < RECOUNT_MS)
        return 0;
    for (size_t i = 0; i < xv_value_count(counts); i++) {
        const struct xv_class_reader *reader = xv_draft_class(xv_value_key_at(counts, i));
        if (reader == NULL)
            continue;
        int64_t told = xv_value_int(xv_value_at(counts, i), -1);
        size_t known = live->draft != NULL ? xv_draft_count(live->draft, reader)
                                           : xv_store_count(xv_store_of(live->current), reader);
        /* A server may count objects of a class that it does not show. */
        if (told >= 0 && (uint64_t)told != known && !(reader->optional && known == 0))
            return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                           "the pool has %lld objects of class %s, its events told of %zu",
                           (long long)told, reader->class_name, known);
    }
    return 0;
}

/* Called with the lock held. */
static int take_answer(struct xv_live *live, const struct xv_value *answer, int64_t began_ms,
                       xvsa_error **error)
{
    const struct xv_value *events = xv_value_get(answer, "events");
    unsigned changes = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < xv_value_count(events); i++)
        rc = take_event(live, xv_value_at(events, i), &changes, error);
    if (rc == 0)
        rc = check_counts(live, answer, error);
    char *token = rc != 0 ? NULL : strdup(xv_value_get_string(answer, "token", ""));
    if (rc == 0 && token == NULL)
        rc = xv_fail_memory(error);
    live->fresh = rc == 0;
    if (rc != 0)
        return rc;
    free(live->token);
    live->token = token;
    live->position++;
    if (began_ms > live->heard_ms)
        live->heard_ms = began_ms;
    live->dirty = live->dirty || changes != 0;
    announce(live, changes);
    return 0;
}

/* Called and returns with the lock held. */
static int await_idle(struct xv_live *live, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    while (rc == 0 && live->busy) {
        /* In steps, because a cancellation does not signal the condition. */
        xv_condition_wait(&live->idle, &live->lock, STEP_MS);
        rc = xv_call_check(call, XV_COMPONENT, "waiting for the pool's inventory", error);
    }
    return rc;
}

int xv_live_take(struct xv_live *live, const struct xv_live_place *place, int64_t began_ms,
                 const struct xv_value *answer, const struct xv_call *call, xvsa_error **error)
{
    pthread_mutex_lock(&live->lock);
    int rc = await_idle(live, call, error);
    if (rc == 0 && live->fresh && live->position == place->position)
        rc = take_answer(live, answer, began_ms, error);
    pthread_mutex_unlock(&live->lock);
    return rc;
}

/* The state of the event stream of now. *ret stays NULL when the server does not tell. */
static int fetch_token(struct xv_live *live, const struct xv_call *call, char **ret,
                       xvsa_error **error)
{
    struct xv_value *answer = NULL;
    xvsa_error *failure = NULL;
    int rc = xv_events_from(live->client, xv_params("pool", NULL), "", 0, call, &answer, &failure);
    if (rc == 0) {
        *ret = strdup(xv_value_get_string(answer, "token", ""));
        xv_value_free(answer);
        return *ret == NULL ? xv_fail_memory(error) : 0;
    }
    if (xvsa_error_xenapi_code(failure) != NULL || rc == XVSA_ERR_PROTOCOL) {
        xv_log(live->client->env, XVSA_LOG_INFO, XV_COMPONENT,
               "the pool's events are not used, its inventory is read anew each time: %s",
               xvsa_error_message(failure));
        xvsa_error_unref(failure);
        return 0;
    }
    if (error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

struct reading {
    struct xv_inventory *inventory;
    char *token;
    int64_t began_ms;
};

static int read_everything(struct xv_live *live, const struct xv_call *call, struct reading *ret,
                           xvsa_error **error)
{
    for (int attempt = 1;; attempt++) {
        *ret = (struct reading){.began_ms = xv_clock_ms()};
        uint64_t epoch = xv_client_epoch(live->client);
        int rc = fetch_token(live, call, &ret->token, error);
        if (rc == 0)
            rc = xv_inventory_read(live->client, call, &ret->inventory, error);
        if (rc == 0 && (ret->inventory->epoch == epoch || attempt == ATTEMPTS))
            return 0;
        free(ret->token);
        xv_inventory_free(ret->inventory);
        if (rc != 0)
            return rc;
    }
}

/* What differs from the last inventory; everything when that cannot be said. */
static unsigned compare(const struct xv_live *live, const struct xv_inventory *inventory)
{
    unsigned changes = 0;
    struct xv_draft *draft = NULL;
    if (live->current == NULL || xv_draft_new(live->current, &draft, NULL) != 0)
        return XV_CHANGE_ANY | XV_CHANGE_REACH;
    if (xv_draft_compare(draft, inventory, &changes, NULL) != 0)
        changes = XV_CHANGE_ANY | XV_CHANGE_REACH;
    xv_draft_free(draft);
    return changes;
}

/* Called while busy, without the lock. */
static int load(struct xv_live *live, const struct xv_call *call, xvsa_error **error)
{
    struct reading reading;
    int rc = read_everything(live, call, &reading, error);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&live->lock);
    unsigned changes =
        live->dirty ? XV_CHANGE_ANY | XV_CHANGE_REACH : compare(live, reading.inventory);
    xv_draft_free(live->draft);
    xv_inventory_free(live->current);
    free(live->token);
    live->draft = NULL;
    live->dirty = false;
    live->current = reading.inventory;
    live->token = reading.token;
    live->mute = reading.token == NULL;
    live->fresh = true;
    live->epoch = reading.inventory->epoch;
    live->loaded_ms = reading.began_ms;
    live->heard_ms = reading.began_ms;
    live->position++;
    announce(live, changes);
    live->current->generation = live->version.any;
    pthread_mutex_unlock(&live->lock);
    return 0;
}

/* Called while busy, without the lock. */
static int catch_up(struct xv_live *live, const struct xv_live_place *place,
                    const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *answer = NULL;
    int64_t began_ms = xv_clock_ms();
    int rc = xv_events_from(live->client, xv_live_classes(), place->token, 0, call, &answer, error);
    if (rc != 0)
        return rc;
    if (xv_client_epoch(live->client) != place->epoch) {
        rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                     "the session changed while its events were read");
    } else {
        pthread_mutex_lock(&live->lock);
        rc = take_answer(live, answer, began_ms, error);
        pthread_mutex_unlock(&live->lock);
    }
    xv_value_free(answer);
    return rc;
}

/* Called while busy, without the lock. */
static int refresh(struct xv_live *live, const struct xv_call *call, xvsa_error **error)
{
    struct xv_live_place place;
    int rc = xv_live_place(live, &place, error);
    if (rc != 0)
        return rc;
    if (place.token != NULL) {
        xvsa_error *failure = NULL;
        rc = catch_up(live, &place, call, &failure);
        if (rc != 0)
            xv_log(live->client->env, XVSA_LOG_INFO, XV_COMPONENT,
                   "reading the whole inventory again: %s", xvsa_error_message(failure));
        xvsa_error_unref(failure);
        free(place.token);
        if (rc == 0)
            return 0;
        xv_live_distrust(live);
    }
    rc = xv_call_check(call, XV_COMPONENT, "reading the pool's inventory", error);
    return rc != 0 ? rc : load(live, call, error);
}

/* Called with the lock held. */
static int hand_out(struct xv_live *live, struct xv_inventory **ret, xvsa_error **error)
{
    if (live->dirty) {
        struct xv_inventory *next = NULL;
        struct xv_draft *draft = live->draft;
        live->draft = NULL;
        int rc = xv_draft_finish(draft, &next, error);
        if (rc != 0) {
            live->fresh = false;
            return rc;
        }
        next->generation = live->version.any;
        xv_inventory_free(live->current);
        live->current = next;
        live->dirty = false;
    }
    *ret = xv_inventory_ref(live->current);
    return 0;
}

/* Called with the lock held. */
static bool is_recent(const struct xv_live *live, int64_t since_ms)
{
    return live->fresh && live->current != NULL && live->heard_ms > since_ms;
}

int xv_live_inventory(struct xv_live *live, int64_t max_age_ms, const struct xv_call *call,
                      struct xv_inventory **ret, xvsa_error **error)
{
    int64_t since_ms = xv_clock_ms() - max_age_ms;
    pthread_mutex_lock(&live->lock);
    int rc = await_idle(live, call, error);
    if (rc == 0 && !is_recent(live, since_ms)) {
        live->busy = true;
        pthread_mutex_unlock(&live->lock);
        rc = refresh(live, call, error);
        pthread_mutex_lock(&live->lock);
        live->busy = false;
        pthread_cond_broadcast(&live->idle);
    }
    if (rc == 0)
        rc = hand_out(live, ret, error);
    pthread_mutex_unlock(&live->lock);
    return rc;
}
