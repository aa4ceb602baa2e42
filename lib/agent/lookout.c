/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/lookout.h"

#include <string.h>

#include "agent/state.h"

/* So long what was read stands at most, for a watch may be silent because its server is. */
#define KEEP_MS 5000

static bool wakes(void *user, const char *key)
{
    struct xv_lookout *lookout = user;
    enum xv_matter matter = key == NULL ? XV_MATTER_READ : lookout->matter_of(lookout->agent, key);
    if (matter == XV_MATTER_READ)
        lookout->stale = true;
    if (key == NULL || strcmp(key, XV_EPOCH_KEY) == 0)
        lookout->anew = true;
    return matter != XV_MATTER_NONE;
}

static void open_watch(struct xv_lookout *lookout)
{
    struct xv_agent *agent = lookout->agent;
    xvsa_error *error = NULL;
    if (xv_kv_watch_open(agent->kv, "", &lookout->watch, &error) == 0)
        xv_kv_watch_filter(lookout->watch, wakes, lookout);
    else
        xv_log(agent->env, XVSA_LOG_WARNING, "agent",
               "%s: no watch over the coordination store, looking every second instead: %s",
               agent->name, xvsa_error_message(error));
    xvsa_error_unref(error);
}

void xv_lookout_open(struct xv_lookout *lookout, struct xv_agent *agent, xv_matter_of matter_of,
                     atomic_bool *nudge)
{
    *lookout = (struct xv_lookout){.agent = agent, .matter_of = matter_of, .nudge = nudge};
    open_watch(lookout);
}

void xv_lookout_close(struct xv_lookout *lookout)
{
    xv_kv_watch_close(lookout->watch);
    lookout->watch = NULL;
    xv_lookout_drop(lookout);
}

/* Whether nothing tells that what was read has changed. */
static bool is_unchanged(const struct xv_lookout *lookout)
{
    struct xv_agent *agent = lookout->agent;
    return lookout->kept && !lookout->stale && lookout->watch != NULL &&
           xv_kv_watch_is_live(lookout->watch) && lookout->doubts == xv_kv_doubts(agent->kv) &&
           lookout->generation == xv_member_generation(agent->member);
}

bool xv_lookout_is_current(const struct xv_lookout *lookout)
{
    return is_unchanged(lookout) && atomic_load(&lookout->agent->store_answers) &&
           xv_clock_ms() - lookout->read_ms < KEEP_MS;
}

/* Differs when views do: revisions of a store only grow. */
static uint64_t print_of(const struct xv_view *view)
{
    uint64_t print = view->member_count + view->job_count;
    for (size_t i = 0; i < view->member_count; i++)
        print += (uint64_t)view->members[i].create;
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        print += (uint64_t)job->job.mod + job->part_count + job->task_count + job->claims.count;
        for (size_t j = 0; j < job->part_count; j++)
            print += (uint64_t)job->parts[j].mod;
        for (size_t j = 0; j < job->task_count; j++)
            print += (uint64_t)job->tasks[j].mod;
        for (size_t j = 0; j < job->claims.count; j++)
            print += (uint64_t)job->claims.pairs[j].create_revision;
    }
    return print;
}

void xv_lookout_begin(struct xv_lookout *lookout)
{
    struct xv_agent *agent = lookout->agent;
    lookout->silent = is_unchanged(lookout);
    lookout->print = print_of(&lookout->view);
    if (lookout->anew)
        xv_view_free(&lookout->view);
    xv_view_free(&lookout->before);
    lookout->before = lookout->view;
    lookout->view = (struct xv_view){0};
    lookout->anew = false;
    lookout->kept = true;
    lookout->stale = false;
    lookout->read_ms = xv_clock_ms();
    lookout->doubts = xv_kv_doubts(agent->kv);
    lookout->generation = xv_member_generation(agent->member);
}

int xv_lookout_read(struct xv_lookout *lookout, const struct xv_call *call, xvsa_error **error)
{
    struct xv_agent *agent = lookout->agent;
    int rc = xv_view_read(agent->kv, agent->env, agent->pool_uuid, &lookout->before, call,
                          &lookout->view, error);
    xv_view_free(&lookout->before);
    /* The connection to its server may be dead without either end knowing; or the change has just been made. */
    if (rc == 0 && lookout->silent && print_of(&lookout->view) != lookout->print) {
        xv_log(agent->env, XVSA_LOG_DEBUG, "agent",
               "%s: the watch over the coordination store did not tell of a change: opened again",
               agent->name);
        xv_kv_watch_close(lookout->watch);
        lookout->watch = NULL;
        lookout->stale = true;
        open_watch(lookout);
    }
    return rc;
}

void xv_lookout_drop(struct xv_lookout *lookout)
{
    xv_view_free(&lookout->view);
    xv_view_free(&lookout->before);
    lookout->kept = false;
}

/* Looks that take long are made less often; one that took long for want of an answer says nothing. */
static int64_t least_pause(const struct xv_agent *agent, int64_t took_ms)
{
    int64_t least = atomic_load(&agent->store_answers) ? took_ms * 4 : 0;
    if (least < XV_LOOK_LEAST_MS)
        return XV_LOOK_LEAST_MS;
    return least > XV_LOOK_PAUSE_MOST_MS ? XV_LOOK_PAUSE_MOST_MS : least;
}

static bool is_nudged(const struct xv_lookout *lookout)
{
    return lookout->nudge != NULL && atomic_exchange(lookout->nudge, false);
}

/* The watch is waited for in steps, as nothing but its own news ends a step. */
static int await_news(struct xv_lookout *lookout, const struct xv_call *call)
{
    int64_t until = xv_clock_ms() + XV_LOOK_MS;
    bool changed = false;
    int rc = lookout->watch == NULL ? -1 : 0;
    while (rc == 0 && !changed && !is_nudged(lookout) && xv_clock_ms() < until)
        rc = xv_kv_watch_wait(lookout->watch, XV_LOOK_LEAST_MS, call, &changed, NULL);
    return rc;
}

/* A nudge is worth a look sooner. */
static int pause(struct xv_lookout *lookout, int64_t took_ms, const struct xv_call *call,
                 bool *ret_nudged)
{
    int64_t until = xv_clock_ms() + least_pause(lookout->agent, took_ms);
    int rc = 0;
    do {
        rc = xv_call_sleep(call, XV_LOOK_LEAST_MS, "agent", "waiting", NULL);
        *ret_nudged = is_nudged(lookout);
    } while (rc == 0 && !*ret_nudged && xv_clock_ms() < until);
    return rc;
}

void xv_lookout_wait(struct xv_lookout *lookout, int64_t took_ms)
{
    const struct xv_call call = {.cancel = lookout->agent->cancel};
    bool nudged = false;
    int rc = pause(lookout, took_ms, &call, &nudged);
    if (rc == 0 && !nudged)
        rc = await_news(lookout, &call);
    if (rc != 0)
        rc = xv_call_sleep(&call, XV_LOOK_MS, "agent", "waiting", NULL);
    (void)rc; /* cancelled: the loop looks at that itself */
}
