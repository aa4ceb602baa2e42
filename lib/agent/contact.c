/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A member says at once that its pool does not answer, but yields the office later: when the pool is out of
 * reach of all, everybody has said so by then, and the office stays where it is.
 */
#include "agent/contact.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

/* Questions in a time to live. Each is given up after one. */
#define ASKS_IN_TTL 3

/* Of its thread alone, but for stop. */
struct xv_contact {
    struct xv_agent *agent;
    xvsa_cancel *stop;
    pthread_t thread;
    int64_t reached_ms; /* when the last question that was answered was asked, xv_clock_ms */
    bool told;          /* what the others know: whether the pool is reached */
    bool replaceable;   /* another member reached the pool at the look before, too */
    bool alone;         /* it stays for want of others, and has said so */
};

static int ask(struct xv_contact *contact, const struct xv_call *call, xvsa_error **error)
{
    struct xv_value *pools = NULL;
    const struct xv_call limit = xv_call_within(call, contact->agent->ttl_ms);
    int rc = xv_client_call(xv_pool_client(contact->agent->pool), "pool.get_all", NULL, true,
                            &limit, &pools, error);
    xv_value_free(pools);
    return rc;
}

static void note_answer(struct xv_contact *contact, bool reached, const xvsa_error *problem)
{
    struct xv_agent *agent = contact->agent;
    bool before = atomic_exchange(&agent->reaches_pool, reached);
    if (reached && !before)
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: pool %s answers again", agent->name,
               agent->pool_uuid);
    else if (!reached && before)
        xv_log(agent->env, XVSA_LOG_WARNING, "agent", "%s: pool %s does not answer: %s",
               agent->name, agent->pool_uuid, xvsa_error_message(problem));
    if (contact->told != reached && xv_agent_tell(agent) == 0)
        contact->told = reached;
}

/* A member that could coordinate the pool; NULL: there is none. It belongs to the view. */
static const char *find_other(const struct xv_agent *agent, const struct xv_view *view)
{
    for (size_t i = 0; i < view->member_count; i++) {
        const struct xv_site_member *member = &view->members[i];
        if (strcmp(member->pool, agent->pool_uuid) == 0 && strcmp(member->name, agent->name) != 0 &&
            member->reaches_pool && !member->draining)
            return member->name;
    }
    return NULL;
}

/* Done at each look while it yields: its other thread may have been elected since the last one. */
static void resign(struct xv_contact *contact, const struct xv_call *call)
{
    struct xv_agent *agent = contact->agent;
    xvsa_error *error = NULL;
    const struct xv_call soon = xv_call_within(call, XV_STORE_MS);
    int rc = xv_member_resign(agent->member, &soon, &error);
    if (rc == 0)
        atomic_store(&agent->term, 0);
    xv_agent_note_store(agent, rc, &error, "cannot resign as coordinator");
}

static void begin_to_yield(struct xv_contact *contact, const char *other)
{
    struct xv_agent *agent = contact->agent;
    long long seconds = (long long)((xv_clock_ms() - contact->reached_ms) / 1000);
    if (atomic_exchange(&agent->yields, true))
        return;
    if (atomic_load(&agent->term) != 0)
        xv_log(agent->env, XVSA_LOG_WARNING, "agent",
               "%s: has not reached pool %s for %lld s and resigns as its coordinator; %s reaches"
               " it",
               agent->name, agent->pool_uuid, seconds, other);
    else
        xv_log(agent->env, XVSA_LOG_INFO, "agent",
               "%s: has not reached pool %s for %lld s and is not to be its coordinator",
               agent->name, agent->pool_uuid, seconds);
}

/* The office is better with somebody who may reach the pool again any time than with nobody. */
static void stay(struct xv_contact *contact)
{
    struct xv_agent *agent = contact->agent;
    atomic_store(&agent->yields, false);
    if (contact->alone || atomic_load(&agent->term) == 0)
        return;
    contact->alone = true;
    xv_log(agent->env, XVSA_LOG_WARNING, "agent",
           "%s: has not reached pool %s for %lld s and stays its coordinator, for no other member"
           " says that it reaches it",
           agent->name, agent->pool_uuid,
           (long long)((xv_clock_ms() - contact->reached_ms) / 1000));
}

/* After a question that failed. Who reaches the pool must have done so before that question as well: when
 * the pool comes back, the first to notice does not get the office from who would have noticed next. */
static void look_at_others(struct xv_contact *contact, const struct xv_call *call)
{
    struct xv_agent *agent = contact->agent;
    struct xv_view view;
    xvsa_error *error = NULL;
    const struct xv_call soon = xv_call_within(call, XV_STORE_MS);
    int rc = xv_view_read_members(agent->kv, agent->env, &soon, &view, &error);
    xv_agent_note_store(agent, rc, &error, "cannot see who else reaches the pool");
    if (rc != 0)
        return;
    const char *other = find_other(agent, &view);
    bool before = contact->replaceable;
    contact->replaceable = other != NULL;
    if (xv_clock_ms() - contact->reached_ms > XV_CONTACT_AWAY_TTLS * agent->ttl_ms) {
        if (other == NULL)
            stay(contact);
        else if (before)
            begin_to_yield(contact, other);
    }
    if (atomic_load(&agent->yields))
        resign(contact, call);
    xv_view_free(&view);
}

static void look(struct xv_contact *contact, const struct xv_call *call)
{
    struct xv_agent *agent = contact->agent;
    xvsa_error *error = NULL;
    int64_t asked_ms = xv_clock_ms();
    int rc = ask(contact, call, &error);
    if (rc == 0) {
        contact->reached_ms = asked_ms;
        contact->replaceable = false;
        contact->alone = false;
        atomic_store(&agent->yields, false);
    }
    if (rc != XVSA_ERR_CANCELLED && rc != XVSA_ERR_MEMORY) {
        note_answer(contact, rc == 0, error);
        if (rc != 0)
            look_at_others(contact, call);
    }
    xvsa_error_unref(error);
}

static void *watch(void *argument)
{
    struct xv_contact *contact = argument;
    const struct xv_call call = {.cancel = contact->stop};
    while (xv_call_sleep(&call, contact->agent->ttl_ms / ASKS_IN_TTL, "agent", "waiting", NULL) ==
           0)
        look(contact, &call);
    return NULL;
}

static void free_contact(struct xv_contact *contact)
{
    xvsa_cancel_unref(contact->stop);
    free(contact);
}

int xv_contact_start(struct xv_agent *agent, xvsa_error **error)
{
    struct xv_contact *contact = calloc(1, sizeof *contact);
    if (contact == NULL)
        return xv_fail_memory(error);
    contact->agent = agent;
    contact->reached_ms = xv_clock_ms();
    contact->told = true;
    int rc = xvsa_cancel_new(&contact->stop, error);
    if (rc == 0)
        rc = xv_thread_start("xvsa-contact", false, watch, contact, &contact->thread, error);
    if (rc == 0)
        agent->contact = contact;
    else
        free_contact(contact);
    return rc;
}

void xv_contact_stop(struct xv_agent *agent)
{
    if (agent->contact == NULL)
        return;
    xvsa_cancel_fire(agent->contact->stop);
    pthread_join(agent->contact->thread, NULL);
    free_contact(agent->contact);
    agent->contact = NULL;
}
