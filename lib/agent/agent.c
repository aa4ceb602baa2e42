/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The life of an agent: joining, its two threads, draining, leaving.
 */
#include "agent/agent.h"

#include <stdlib.h>
#include <string.h>

#include "agent/budget.h"
#include "agent/contact.h"
#include "agent/mirror.h"
#include "agent/reach.h"
#include "agent/state.h"
#include "base/thread.h"

struct xv_call xv_agent_call(const struct xv_agent *agent)
{
    const struct xv_call call = {.cancel = agent->cancel};
    return xv_call_within(&call, atomic_load(&agent->parking) ? XV_STORE_LAST_MS : XV_STORE_MS);
}

struct xv_repo *xv_agent_repo(const struct xv_agent *agent, const char *name)
{
    for (size_t i = 0; i < agent->repo_count; i++) {
        if (strcmp(agent->repos[i].name, name) == 0)
            return agent->repos[i].repo;
    }
    return NULL;
}

bool xv_agent_is_joined(const struct xv_agent *agent)
{
    return xv_member_state(agent->member) == XV_MEMBER_JOINED;
}

void xv_agent_note_store(struct xv_agent *agent, int rc, xvsa_error **error, const char *what)
{
    bool answered = atomic_exchange(&agent->store_answers, rc == 0);
    if (rc == 0 && !answered)
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: the coordination store answers again",
               agent->name);
    if (rc != 0 && rc != XVSA_ERR_CANCELLED) {
        atomic_fetch_add(&agent->figures.store_failures, 1);
        xv_log(agent->env, answered ? XVSA_LOG_WARNING : XVSA_LOG_DEBUG, "agent", "%s: %s: %s",
               agent->name, what, xvsa_error_message(*error));
    }
    xv_error_clear(error);
}

void xv_agent_guard_epoch(struct xv_agent *agent, struct xv_txn *txn)
{
    struct xv_epoch epoch;
    xv_member_epoch(agent->member, &epoch);
    const struct xv_kv_compare compare = xv_epoch_guard(&epoch);
    xv_txn_expect_as(txn, &compare);
}

/* ---- life ---- */

static void destroy(struct xv_agent *agent)
{
    xv_mirror_free(agent->mirror);
    json_decref(agent->helped);
    xv_turns_free(agent);
    xv_rates_free(agent);
    xv_lead_free(agent->lead);
    for (size_t i = 0; i < agent->repo_count; i++) {
        xv_assistant_free(agent->repos[i].assistant);
        xv_repo_unref(agent->repos[i].repo);
        free(agent->repos[i].name);
    }
    free(agent->repos);
    xv_pool_unref(agent->pool);
    xvsa_cancel_unref(agent->cancel);
    xv_site_unref(agent->site);
    free(agent->name);
    free(agent->pool_uuid);
    free(agent->pool_name);
    free(agent->vm_uuid);
    free(agent->address);
    free(agent->device_path);
    pthread_cond_destroy(&agent->changed);
    pthread_mutex_destroy(&agent->lock);
    pthread_mutex_destroy(&agent->assist_lock);
    pthread_mutex_destroy(&agent->telling);
    free(agent);
}

struct xv_agent *xv_agent_ref(struct xv_agent *agent)
{
    atomic_fetch_add_explicit(&agent->references, 1, memory_order_relaxed);
    return agent;
}

void xv_agent_unref(struct xv_agent *agent)
{
    if (agent != NULL &&
        atomic_fetch_sub_explicit(&agent->references, 1, memory_order_acq_rel) == 1)
        destroy(agent);
}

int xv_agent_thread(struct xv_agent *agent, const char *name, void *(*body)(void *), void *argument,
                    xvsa_error **error)
{
    xv_agent_ref(agent);
    pthread_mutex_lock(&agent->lock);
    agent->threads++;
    pthread_mutex_unlock(&agent->lock);
    int rc = xv_thread_start(name, true, body, argument, NULL, error);
    if (rc != 0)
        xv_agent_thread_end(agent);
    return rc;
}

void xv_agent_thread_end(struct xv_agent *agent)
{
    pthread_mutex_lock(&agent->lock);
    agent->threads--;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    xv_agent_unref(agent);
}

/* ---- facts for others ---- */

static json_t *facts_to_json(const struct xv_agent *agent)
{
    json_t *repositories = json_object();
    for (size_t i = 0; i < agent->repo_count; i++)
        json_object_set_new(repositories, agent->repos[i].name,
                            json_string(xv_repo_id(agent->repos[i].repo)));
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:b, s:b}", "name", agent->name,
                     "pool_name", agent->pool_name, "vm_uuid", agent->vm_uuid, "version",
                     xvsa_version_string(), "max_disks", (int)agent->max_disks, "address",
                     agent->address == NULL ? json_null() : json_string(agent->address),
                     "repositories", repositories, "draining", (int)atomic_load(&agent->draining),
                     "reaches_pool", (int)atomic_load(&agent->reaches_pool));
}

/* A store that is new, or was lost with everybody who knew it, begins with a generation above all tokens in the
 * repositories, so that no attempt gets a token that was there before. */
static int begin_epoch(struct xv_agent *agent, const struct xv_call *call, xvsa_error **error)
{
    struct xv_epoch epoch;
    int64_t generation = 0;
    int rc = xv_epoch_read(agent->kv, call, &epoch, error);
    for (size_t i = 0; rc == 0 && epoch.gen == 0 && i < agent->repo_count; i++) {
        uint64_t token = 0;
        rc = xv_repo_highest_token(agent->repos[i].repo, call, &token, error);
        if (rc == 0 && xv_epoch_of_token((int64_t)token) > generation)
            generation = xv_epoch_of_token((int64_t)token);
    }
    if (rc == 0 && epoch.gen == 0)
        rc = xv_epoch_ensure(agent->kv, generation + 1, NULL, call, &epoch, error);
    return rc;
}

static int join(struct xv_agent *agent, const struct xv_call *call, xvsa_error **error)
{
    int begun = begin_epoch(agent, call, error);
    if (begun != 0)
        return begun;
    json_t *json = facts_to_json(agent);
    char *facts = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (facts == NULL)
        return xv_fail_memory(error);
    const struct xv_member_options options = {
        .env = agent->env,
        .name = agent->name,
        .pool = agent->pool_uuid,
        .facts = facts,
        .ttl_ms = agent->ttl_ms,
    };
    int rc = xv_member_join(agent->kv, &options, call, &agent->member, error);
    free(facts);
    return rc;
}

int xv_agent_tell(struct xv_agent *agent)
{
    struct xv_call call = xv_agent_call(agent);
    xvsa_error *error = NULL;
    pthread_mutex_lock(&agent->telling);
    json_t *json = facts_to_json(agent);
    char *facts = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    json_decref(json);
    int rc = facts == NULL ? xv_fail_memory(&error)
                           : xv_member_tell(agent->member, facts, &call, &error);
    pthread_mutex_unlock(&agent->telling);
    free(facts);
    xv_agent_note_store(agent, rc, &error, "cannot tell the site how it is");
    return rc;
}

/* ---- threads ---- */

static bool has_work(struct xv_agent *agent)
{
    pthread_mutex_lock(&agent->lock);
    bool has = agent->tasks != NULL || agent->units != NULL;
    pthread_mutex_unlock(&agent->lock);
    return has;
}

static void *lead(void *argument)
{
    struct xv_agent *agent = argument;
    struct xv_lookout lookout;
    xv_lookout_open(&lookout, agent, xv_lead_matter, NULL);
    while (!atomic_load(&agent->draining)) {
        int64_t began = xv_clock_ms();
        xv_lead_look(agent, &lookout);
        xv_lookout_wait(&lookout, xv_clock_ms() - began);
    }
    xv_lookout_close(&lookout);
    struct xv_call call = xv_agent_call(agent);
    xvsa_error *error = NULL;
    int rc = xv_member_resign(agent->member, &call, &error);
    xv_agent_note_store(agent, rc, &error, "cannot hand the coordination over");
    atomic_store(&agent->term, 0);
    pthread_mutex_lock(&agent->lock);
    agent->lead_ended = true;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
    xv_agent_thread_end(agent);
    return NULL;
}

/* A task's plan is made with the living members, whoever coordinates. */
static void sync_proxies(struct xv_agent *agent, const struct xv_view *view)
{
    xvsa_error *error = NULL;
    if (xv_reach_sync(agent, view, &error) != 0)
        xv_log(agent->env, XVSA_LOG_WARNING, "agent", "%s: who else reaches the pool: %s",
               agent->name, xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* What changes mean to the thread that works. What others claim and have done leaves nothing to begin. */
static enum xv_matter work_matter(struct xv_agent *agent, const char *key)
{
    static const char *const sooner[] = {"b/", "t/", "rt/", NULL};
    if (xv_view_rests_on(key, agent->pool_uuid))
        return XV_MATTER_READ;
    for (size_t i = 0; sooner[i] != NULL; i++) {
        if (strncmp(key, sooner[i], strlen(sooner[i])) == 0)
            return XV_MATTER_LOOK;
    }
    return XV_MATTER_NONE;
}

static int read_anew(struct xv_agent *agent, struct xv_lookout *lookout, xvsa_error **error)
{
    struct xv_call call = xv_agent_call(agent);
    xv_lookout_begin(lookout);
    int rc = xv_mirror_keep(agent, &call, error);
    if (rc == 0)
        rc = xv_lookout_read(lookout, &call, error);
    if (rc != 0)
        xv_lookout_drop(lookout);
    return rc;
}

static void look_at_work(struct xv_agent *agent, struct xv_lookout *lookout)
{
    xvsa_error *error = NULL;
    struct xv_view *view = &lookout->view;
    bool current = xv_lookout_is_current(lookout);
    int rc = current ? 0 : read_anew(agent, lookout, &error);
    if (rc == 0) {
        sync_proxies(agent, view);
        xv_budget_look(agent, view);
        xv_turns_look(agent);
        xv_own_look(agent, view);
        xv_help_look(agent, view);
        xv_rates_look(agent, view);
        if (!current)
            xv_mirror_learn(agent, view);
    } else {
        xv_own_look(agent, NULL);
        xv_help_look(agent, NULL);
    }
    if (!current)
        xv_agent_note_store(agent, rc, &error, "cannot look at the site");
}

static void leave(struct xv_agent *agent)
{
    pthread_mutex_lock(&agent->lock);
    while (!agent->lead_ended)
        pthread_cond_wait(&agent->changed, &agent->lock);
    pthread_mutex_unlock(&agent->lock);
    xv_contact_stop(agent);
    pthread_mutex_lock(&agent->lock);
    struct xv_member *member = agent->member;
    agent->member = NULL;
    pthread_mutex_unlock(&agent->lock);
    xv_member_leave(member);
    xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: left the site", agent->name);
    xv_site_remove_agent(agent->site);
    pthread_mutex_lock(&agent->lock);
    agent->left = true;
    pthread_cond_broadcast(&agent->changed);
    pthread_mutex_unlock(&agent->lock);
}

static void *work(void *argument)
{
    struct xv_agent *agent = argument;
    struct xv_lookout lookout;
    bool told = false;
    xv_lookout_open(&lookout, agent, work_matter, &agent->place_freed);
    while (!atomic_load(&agent->draining) || has_work(agent)) {
        int64_t began = xv_clock_ms();
        if (!told && atomic_load(&agent->draining))
            told = xv_agent_tell(agent) == 0;
        look_at_work(agent, &lookout);
        xv_lookout_wait(&lookout, xv_clock_ms() - began);
    }
    xv_lookout_close(&lookout);
    leave(agent);
    xv_agent_thread_end(agent);
    return NULL;
}

/* ---- start and drain ---- */

static char *copy(const char *text, bool *ok)
{
    char *result = text == NULL ? NULL : strdup(text);
    *ok = *ok && (text == NULL || result != NULL);
    return result;
}

static int copy_repos(struct xv_agent *agent, const struct xv_agent_options *options,
                      xvsa_error **error)
{
    bool ok = true;
    agent->repos = calloc(options->repo_count + 1, sizeof *agent->repos);
    if (agent->repos == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < options->repo_count; i++) {
        if (xv_agent_repo(agent, options->repos[i].name) != NULL)
            return xv_fail(error, XVSA_ERR_INVALID, "agent",
                           "xvsa_agent_options.repositories: two are named \"%s\"",
                           options->repos[i].name);
        agent->repos[i].name = copy(options->repos[i].name, &ok);
        agent->repos[i].repo = xv_repo_ref(options->repos[i].repo);
        agent->repo_count++;
    }
    return ok ? 0 : xv_fail_memory(error);
}

static int make_agent(struct xv_site *site, const struct xv_agent_options *options,
                      struct xv_agent **ret, xvsa_error **error)
{
    struct xv_agent *agent = calloc(1, sizeof *agent);
    if (agent == NULL)
        return xv_fail_memory(error);
    const struct xv_client *client = xv_pool_client(options->pool);
    const char *pool_name =
        options->pool_name == NULL ? xv_client_pool_name(client) : options->pool_name;
    bool ok = true;
    atomic_init(&agent->references, 1);
    atomic_init(&agent->store_answers, true);
    atomic_init(&agent->reaches_pool, true);
    pthread_mutex_init(&agent->lock, NULL);
    pthread_mutex_init(&agent->assist_lock, NULL);
    pthread_mutex_init(&agent->telling, NULL);
    xv_condition_init(&agent->changed);
    agent->site = xv_site_ref(site);
    agent->env = xv_engine_env(xv_site_engine(site));
    agent->kv = xv_site_kv(site);
    agent->pool = xv_pool_ref(options->pool);
    agent->name = copy(options->name, &ok);
    agent->pool_uuid = copy(xv_client_pool_uuid(client), &ok);
    agent->pool_name = copy(pool_name, &ok);
    agent->vm_uuid = copy(options->vm_uuid, &ok);
    agent->address = copy(options->address, &ok);
    agent->hotadd = options->hotadd;
    agent->device_path = copy(options->device_path, &ok);
    agent->max_disks = options->max_disks == 0 ? XV_PROXY_DISKS : options->max_disks;
    agent->ttl_ms = options->ttl_ms == 0 ? XV_MEMBER_TTL_MS : options->ttl_ms;
    agent->checkpoint_ms = options->checkpoint_ms;
    agent->unit_bytes = options->unit_bytes;
    agent->helped = json_object();
    int rc = ok ? copy_repos(agent, options, error) : xv_fail_memory(error);
    if (rc == 0)
        rc = xvsa_cancel_new(&agent->cancel, error);
    if (rc == 0)
        *ret = agent;
    else
        xv_agent_unref(agent);
    return rc;
}

/* The own proxy is in the pool from the beginning, so that a VM that is not there is told at once. */
static int add_own_proxy(struct xv_agent *agent, const struct xv_call *call, xvsa_error **error)
{
    struct xv_proxy *proxy = NULL;
    int rc = xv_pool_add_proxy(agent->pool, agent->name, agent->vm_uuid, agent->max_disks, call,
                               &proxy, error);
    if (rc == 0)
        rc = xv_reach_settle(agent, proxy, error);
    xv_proxy_unref(proxy);
    return rc;
}

static int start_threads(struct xv_agent *agent, xvsa_error **error)
{
    int rc = xv_contact_start(agent, error);
    if (rc == 0)
        rc = xv_agent_thread(agent, "xvsa-lead", lead, agent, error);
    if (rc != 0)
        agent->lead_ended = true;
    if (rc == 0)
        rc = xv_agent_thread(agent, "xvsa-work", work, agent, error);
    if (rc == 0)
        return 0;
    atomic_store(&agent->draining, true);
    leave(agent);
    return rc;
}

int xv_agent_start(struct xv_site *site, const struct xv_agent_options *options,
                   const struct xv_call *call, struct xv_agent **ret, xvsa_error **error)
{
    struct xv_agent *agent = NULL;
    int rc = make_agent(site, options, &agent, error);
    if (rc != 0)
        return rc;
    rc = add_own_proxy(agent, call, error);
    if (rc == 0)
        rc = xv_site_add_agent(site, error);
    if (rc == 0) {
        rc = join(agent, call, error);
        if (rc != 0)
            xv_site_remove_agent(site);
    }
    if (rc == 0)
        rc = start_threads(agent, error);
    if (rc != 0) {
        xv_agent_unref(agent);
        return rc;
    }
    xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: joined the site for pool %s", agent->name,
           agent->pool_uuid);
    *ret = agent;
    return 0;
}

int xv_agent_drain(struct xv_agent *agent, const struct xv_call *call, xvsa_error **error)
{
    (void)error; /* what stays behind is left to others by design */
    atomic_store(&agent->draining, true);
    pthread_mutex_lock(&agent->lock);
    while (!agent->left) {
        if (xv_call_check(call, "agent", "draining", NULL) != 0 && !atomic_load(&agent->parking)) {
            atomic_store(&agent->parked_ms, xv_clock_ms());
            atomic_store(&agent->parking, true);
        }
        xv_condition_wait(&agent->changed, &agent->lock, XV_LOOK_LEAST_MS);
    }
    pthread_mutex_unlock(&agent->lock);
    return 0;
}
