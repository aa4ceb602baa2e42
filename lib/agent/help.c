/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A member's free places are for units of others' disks.
 */
#include "agent/help.h"

#include <stdlib.h>
#include <string.h>

size_t xv_help_count(const struct xv_agent *agent)
{
    size_t count = 0;
    for (const struct xv_help_unit *unit = agent->units; unit != NULL; unit = unit->next)
        count += !unit->ended;
    return count;
}

/* Units of a work that must not go on now. */
static bool must_stop(struct xv_agent *agent, const struct xv_help_unit *unit,
                      const struct xv_view *view)
{
    if (atomic_load(&agent->parking) || view == NULL)
        return atomic_load(&agent->parking);
    const struct xv_view_job *job = xv_view_job(view, unit->job_id);
    return job == NULL || job->job.control == XV_CONTROL_CANCEL_NOW || xv_view_hold(job)[0] != '\0';
}

/* Units are taken out of the list by nobody but the caller's thread. */
static void review(struct xv_agent *agent, const struct xv_view *view)
{
    pthread_mutex_lock(&agent->lock);
    struct xv_help_unit **place = &agent->units;
    struct xv_help_unit *gone = NULL;
    while (*place != NULL) {
        struct xv_help_unit *unit = *place;
        if (unit->ended) {
            *place = unit->next;
            unit->next = gone;
            gone = unit;
        } else {
            if (must_stop(agent, unit, view))
                xvsa_cancel_fire(unit->cancel);
            place = &unit->next;
        }
    }
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    while (gone != NULL) {
        struct xv_help_unit *next = gone->next;
        xv_help_unit_free(gone);
        gone = next;
    }
}

/* What has been read and is being made durable takes no place, unless that is what takes long. */
static uint32_t free_places(struct xv_agent *agent)
{
    size_t used = atomic_load(&agent->disks_running);
    size_t saving = 0;
    pthread_mutex_lock(&agent->lock);
    for (const struct xv_help_unit *unit = agent->units; unit != NULL; unit = unit->next) {
        used += !unit->moved && !unit->ended;
        saving += unit->moved && !unit->ended;
    }
    pthread_mutex_unlock(&agent->lock);
    return used >= agent->max_disks || saving >= agent->max_disks
               ? 0
               : agent->max_disks - (uint32_t)used;
}

static void note_failure(struct xv_agent *agent, int rc, xvsa_error *error)
{
    if (rc != 0)
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: cannot help now: %s", agent->name,
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* Begins units for half of the places, or until nothing suits; the others wait for the next look. Units that begin
 * together share the link, end together, and leave it idle until others begin. */
static int begin_units(struct xv_agent *agent, struct xv_offers *offers, uint32_t places,
                       xvsa_error **error)
{
    /* What the host's server takes; what is taken of it each unit's allowance decides. */
    static const struct xv_limits limits = {.host_connections = 16};
    const struct xv_load load = {offers->host_connections, offers->sr_transfers,
                                 offers->proxy_disks};
    size_t self = xv_reach_proxy(&offers->reach, agent->name);
    uint32_t rest = places / 2;
    int rc = 0;
    while (rc == 0 && places > rest && self != XV_SCHED_NONE) {
        offers->proxy_disks[self] = agent->max_disks - places;
        size_t at = xv_sched_next_board(&offers->reach.site, self, offers->boards, offers->count,
                                        &limits, &load);
        if (at == XV_SCHED_NONE)
            break;
        struct xv_board *board = &offers->boards[at];
        const struct xv_offer *offer = &offers->offers[at];
        bool begun = false;
        struct xv_allowance allowance;
        bool allowed = false;
        rc = xv_allowance_take(agent, offer, &allowance, &allowed, error);
        if (rc == 0 && allowed)
            rc = xv_help_begin(agent, offer, &allowance, &begun, error);
        if (!begun) {
            board->units_free = 0;
            continue;
        }
        places--;
        board->units_free--;
        board->movers++;
        board->own_movers++;
        size_t host = offers->reach.site.proxies[self].host;
        if (host != XV_SCHED_NONE)
            offers->host_connections[host] += XV_SCHED_DISK_CONNECTIONS;
        if (board->sr != XV_SCHED_NONE)
            offers->sr_transfers[board->sr]++;
        if (places == rest && rest > 0)
            atomic_store(&agent->place_freed, true);
    }
    return rc;
}

/* ---- works that are over ---- */

struct farewell {
    struct xv_agent *agent;
    struct xv_assistant *assistant;
    char work[XV_SITE_ID_LENGTH + 1];
};

static void *forget(void *argument)
{
    struct farewell *farewell = argument;
    struct xv_agent *agent = farewell->agent;
    xv_assistant_forget(farewell->assistant, farewell->work);
    free(farewell);
    xv_agent_thread_end(agent);
    return NULL;
}

static void bid_farewell(struct xv_agent *agent, const char *work)
{
    for (size_t i = 0; i < agent->repo_count; i++) {
        pthread_mutex_lock(&agent->assist_lock);
        struct xv_assistant *assistant = agent->repos[i].assistant;
        pthread_mutex_unlock(&agent->assist_lock);
        struct farewell *farewell = assistant == NULL ? NULL : calloc(1, sizeof *farewell);
        if (farewell == NULL)
            continue;
        farewell->agent = agent;
        farewell->assistant = assistant;
        snprintf(farewell->work, sizeof farewell->work, "%s", work);
        /* Without a thread the session ends when other works are helped with, or with the process. */
        if (xv_agent_thread(agent, "xvsa-forget", forget, farewell, NULL) != 0)
            free(farewell);
    }
}

static bool is_under_way(const struct xv_view *view, const char *work)
{
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        for (size_t j = 0; j < job->task_count; j++) {
            if (!xv_task_has_ended(job->tasks[j].state) && strcmp(job->tasks[j].work, work) == 0)
                return true;
        }
    }
    return false;
}

static void forget_works(struct xv_agent *agent, const struct xv_view *view)
{
    const char *work;
    json_t *value;
    void *next;
    json_object_foreach_safe(agent->helped, next, work, value)
    {
        if (is_under_way(view, work))
            continue;
        bid_farewell(agent, work);
        json_object_del(agent->helped, work);
    }
}

static void note_works(struct xv_agent *agent)
{
    pthread_mutex_lock(&agent->lock);
    for (const struct xv_help_unit *unit = agent->units; unit != NULL; unit = unit->next)
        json_object_set_new(agent->helped, unit->disk.work_id, json_true());
    pthread_mutex_unlock(&agent->lock);
}

void xv_help_look(struct xv_agent *agent, const struct xv_view *view)
{
    struct xv_offers offers;
    xvsa_error *error = NULL;
    review(agent, view);
    if (view == NULL)
        return;
    forget_works(agent, view);
    uint32_t places = free_places(agent);
    if (places == 0 || atomic_load(&agent->draining) || !xv_agent_is_joined(agent) ||
        !atomic_load(&agent->reaches_pool))
        return;
    int rc = xv_offers_read(agent, view, &offers, &error);
    if (rc == 0) {
        if (offers.count > 0)
            rc = begin_units(agent, &offers, places, &error);
        xv_offers_free(&offers);
        note_works(agent);
    }
    note_failure(agent, rc, error);
}
