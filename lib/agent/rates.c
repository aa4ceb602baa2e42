/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A job's rate belongs to all members that move for it, of all its pools. Each tells what it could use in
 * "rt/<job>/<member>", reads what the others told, and takes its max-min fair share of the job's rate: all
 * compute the same from the same. A member that begins is counted by the others at their next look, within about a second.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/budget.h"

/* So long a demand is measured. */
#define MEASURE_MS 2000
/* Who uses less than its share may use so much more at once. */
#define DEMAND_LEAST (UINT64_C(1) << 20)

struct xv_job_rate {
    struct xv_job_rate *next; /* agent's lock */
    char job_id[XV_SITE_ID_LENGTH + 1];
    struct xv_rate *rate;
    uint32_t movers; /* agent's lock */
    /* Of the thread that looks. */
    uint64_t demand;
    int64_t measured_ms;
    int64_t told; /* what the store has, -1: unlimited; -2: nothing */
};

#define NOT_TOLD (-2)

static int64_t to_number(uint64_t rate)
{
    return rate > INT64_MAX ? -1 : (int64_t)rate;
}

static uint64_t of_number(int64_t number)
{
    return number < 0 ? XV_RATE_UNLIMITED : (uint64_t)number;
}

static bool has_rate(const struct xv_view_job *job)
{
    const json_t *limits = json_object_get(job->job.json, "limits");
    return json_object_get(limits, "rate") != NULL || json_object_get(limits, "rates") != NULL;
}

/* As the coordinator says, by its time zone; by this member's until it has said so. */
static uint64_t rate_of(const struct xv_view_job *job)
{
    const json_t *said = job->part == NULL ? NULL : json_object_get(job->part->json, "rate");
    struct xv_job_limits limits;
    uint64_t rate = 0;
    if (said != NULL)
        return json_is_integer(said) ? of_number(json_integer_value(said)) : XV_RATE_UNLIMITED;
    if (xv_job_limits_read(json_object_get(job->job.json, "limits"), "job.limits", &limits, NULL) ==
        0)
        rate = xv_curve_at(&limits.rate, xv_week_minute(xv_wall_ms())).rate;
    xv_job_limits_free(&limits);
    return rate;
}

/* The caller holds the lock. */
static struct xv_job_rate *find(const struct xv_agent *agent, const char *job_id)
{
    struct xv_job_rate *entry = agent->rates;
    while (entry != NULL && strcmp(entry->job_id, job_id) != 0)
        entry = entry->next;
    return entry;
}

static int make(const struct xv_view_job *job, struct xv_job_rate **ret, xvsa_error **error)
{
    struct xv_job_rate *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return xv_fail_memory(error);
    int rc = xv_rate_new(&entry->rate, error);
    if (rc != 0) {
        free(entry);
        return rc;
    }
    snprintf(entry->job_id, sizeof entry->job_id, "%s", job->job.id);
    entry->demand = XV_RATE_UNLIMITED;
    entry->told = NOT_TOLD;
    /* Until it is shared at the look that this is part of. */
    xv_rate_set(entry->rate, 0);
    *ret = entry;
    return 0;
}

int xv_rate_join(struct xv_agent *agent, const struct xv_view_job *job, struct xv_rate **ret,
                 xvsa_error **error)
{
    struct xv_job_rate *made = NULL;
    *ret = NULL;
    if (!has_rate(job))
        return 0;
    pthread_mutex_lock(&agent->lock);
    struct xv_job_rate *entry = find(agent, job->job.id);
    int rc = entry == NULL ? make(job, &made, error) : 0;
    if (made != NULL) {
        made->next = agent->rates;
        agent->rates = entry = made;
    }
    if (rc == 0) {
        entry->movers++;
        *ret = xv_rate_ref(entry->rate);
    }
    pthread_mutex_unlock(&agent->lock);
    return rc;
}

void xv_rate_leave(struct xv_agent *agent, struct xv_rate *rate)
{
    if (rate == NULL)
        return;
    pthread_mutex_lock(&agent->lock);
    for (struct xv_job_rate *entry = agent->rates; entry != NULL; entry = entry->next)
        entry->movers -= entry->rate == rate;
    pthread_mutex_unlock(&agent->lock);
    xv_rate_unref(rate);
}

/* ---- looks ---- */

static void measure(struct xv_job_rate *entry)
{
    int64_t now = xv_clock_ms();
    if (entry->measured_ms == 0)
        entry->measured_ms = now;
    if (now - entry->measured_ms < MEASURE_MS)
        return;
    uint64_t used = xv_rate_demand(entry->rate);
    entry->measured_ms = now;
    if (used > INT64_MAX / 2)
        entry->demand = XV_RATE_UNLIMITED;
    else
        entry->demand = used + used / 2 + DEMAND_LEAST;
}

/* A change that is worth a transaction, and everybody's look after it. */
static bool is_news(const struct xv_job_rate *entry)
{
    int64_t now = to_number(entry->demand);
    if (entry->told == NOT_TOLD || now < 0 || entry->told < 0)
        return now != entry->told;
    return now > entry->told + entry->told / 4 || now < entry->told - entry->told / 4;
}

static int tell(struct xv_agent *agent, struct xv_job_rate *entry, bool moves, xvsa_error **error)
{
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    bool done = false;
    if (moves ? !is_news(entry) : entry->told == NOT_TOLD)
        return 0;
    json_t *json = json_pack("{s:I}", "demand", (json_int_t)to_number(entry->demand));
    xv_txn_init(&txn);
    xv_agent_guard_epoch(agent, &txn);
    if (moves)
        xv_txn_put_leased(&txn, xv_member_lease(agent->member), json, "rt/%s/%s", entry->job_id,
                          agent->name);
    else
        xv_txn_delete(&txn, "rt/%s/%s", entry->job_id, agent->name);
    json_decref(json);
    int rc = xv_txn_run(&txn, agent->kv, &call, &done, NULL, error);
    if (rc == 0 && done)
        entry->told = moves ? to_number(entry->demand) : NOT_TOLD;
    return rc;
}

static int share(struct xv_agent *agent, struct xv_job_rate *entry, uint64_t rate,
                 xvsa_error **error)
{
    struct xv_call call = xv_agent_call(agent);
    struct xv_kv_list list = {0};
    int rc = xv_kv_read(agent->kv, &call, &list, error, "rt/%s/", entry->job_id);
    uint64_t *demands = calloc(list.count + 1, 2 * sizeof *demands);
    if (rc == 0 && demands == NULL)
        rc = xv_fail_memory(error);
    size_t self = SIZE_MAX;
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        json_t *json = xv_pair_json(&list.pairs[i]);
        demands[i] = of_number(xv_member_number(json, "demand"));
        if (strcmp(xv_key_end(list.pairs[i].key), agent->name) == 0)
            self = i;
        json_decref(json);
    }
    if (rc == 0 && self != SIZE_MAX) {
        uint64_t *shares = demands + list.count;
        xv_rate_share(rate, demands, list.count, shares);
        xv_rate_set(entry->rate, shares[self]);
    } else if (rc == 0) {
        /* Its lease went, and the key with it. */
        entry->told = NOT_TOLD;
    }
    free(demands);
    xv_kv_list_free(&list);
    return rc;
}

static int look_at(struct xv_agent *agent, struct xv_job_rate *entry, const struct xv_view *view,
                   xvsa_error **error)
{
    const struct xv_view_job *job = xv_view_job(view, entry->job_id);
    pthread_mutex_lock(&agent->lock);
    bool moves = entry->movers > 0;
    pthread_mutex_unlock(&agent->lock);
    measure(entry);
    int rc = tell(agent, entry, moves, error);
    if (rc == 0 && moves && job != NULL)
        rc = share(agent, entry, rate_of(job), error);
    return rc;
}

static void free_entry(struct xv_job_rate *entry)
{
    xv_rate_unref(entry->rate);
    free(entry);
}

/* Entries are taken out of the list by nobody but the caller's thread. */
static void forget(struct xv_agent *agent, const struct xv_view *view)
{
    pthread_mutex_lock(&agent->lock);
    struct xv_job_rate **place = &agent->rates;
    while (*place != NULL) {
        struct xv_job_rate *entry = *place;
        bool over = entry->movers == 0 && xv_view_job(view, entry->job_id) == NULL;
        if (over) {
            *place = entry->next;
            free_entry(entry);
        } else {
            place = &entry->next;
        }
    }
    pthread_mutex_unlock(&agent->lock);
}

void xv_rates_look(struct xv_agent *agent, const struct xv_view *view)
{
    xvsa_error *error = NULL;
    int rc = 0;
    pthread_mutex_lock(&agent->lock);
    struct xv_job_rate *entry = agent->rates;
    pthread_mutex_unlock(&agent->lock);
    /* New ones come before the first, and by this thread. */
    for (; rc == 0 && entry != NULL; entry = entry->next)
        rc = look_at(agent, entry, view, &error);
    xv_agent_note_store(agent, rc, &error, "cannot share the rate of a job");
    forget(agent, view);
}

void xv_rates_free(struct xv_agent *agent)
{
    while (agent->rates != NULL) {
        struct xv_job_rate *next = agent->rates->next;
        free_entry(agent->rates);
        agent->rates = next;
    }
}
