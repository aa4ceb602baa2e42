/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "agent/help.h"
#include "agent/subject.h"

void xv_help_unit_free(struct xv_help_unit *unit)
{
    xv_allowance_give_back(&unit->allowance);
    xv_claims_free(&unit->claims);
    json_decref(unit->board);
    xvsa_cancel_unref(unit->cancel);
    free(unit->session_key);
    free(unit->spec);
    free(unit);
}

static int assistant_of(struct xv_agent *agent, struct xv_agent_named_repo *repo,
                        struct xv_assistant **ret, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&agent->assist_lock);
    if (repo->assistant == NULL)
        rc = xv_assistant_new(xv_site_engine(agent->site), agent->pool, repo->repo,
                              &repo->assistant, error);
    *ret = repo->assistant;
    pthread_mutex_unlock(&agent->assist_lock);
    return rc;
}

static void note_moved(void *user)
{
    struct xv_help_unit *unit = user;
    struct xv_agent *agent = unit->agent;
    xv_allowance_disconnect(&unit->allowance);
    pthread_mutex_lock(&agent->lock);
    unit->moved = true;
    pthread_mutex_unlock(&agent->lock);
    atomic_store(&agent->place_freed, true);
}

static int assist(struct xv_help_unit *unit, uint64_t *ret_bytes, char **ret_reasons,
                  xvsa_error **error)
{
    struct xv_agent *agent = unit->agent;
    struct xv_assistant *assistant = NULL;
    const struct xv_call call = {.cancel = unit->cancel};
    int rc = assistant_of(agent, unit->repo, &assistant, error);
    if (rc != 0)
        return rc;
    const struct xv_assist_unit options = {
        .key = unit->session_key,
        .work_id = unit->disk.work_id,
        .member = agent->name,
        .proxy_vm_uuid = agent->vm_uuid,
        .spec = unit->spec,
        .disk = unit->disk,
        .unit = unit->unit,
        .rate = unit->allowance.rate,
        .connections = unit->allowance.connections,
        .moved = note_moved,
        .user = unit,
    };
    return xv_assist(assistant, &options, &call, ret_bytes, ret_reasons, error);
}

/* Its progress is in the journal: the owner finds it there even if the store never hears of it. */
static void finish(struct xv_help_unit *unit, uint64_t bytes, const char *reasons)
{
    struct xv_agent *agent = unit->agent;
    struct xv_call call = xv_agent_call(agent);
    xvsa_error *error = NULL;
    int rc = xv_claims_finish(&unit->claims, unit->unit, bytes, reasons, &call, &error);
    atomic_fetch_add(&agent->figures.units, 1);
    atomic_fetch_add(&agent->figures.bytes_helped, bytes);
    if (rc != 0)
        xv_log(agent->env, XVSA_LOG_INFO, "agent", "%s: unit %u of %s is done, not told: %s",
               agent->name, unit->unit, unit->place, xvsa_error_message(error));
    xvsa_error_unref(error);
}

static void *help(void *argument)
{
    struct xv_help_unit *unit = argument;
    struct xv_agent *agent = unit->agent;
    uint64_t bytes = 0;
    char *reasons = NULL;
    xvsa_error *error = NULL;
    int rc = assist(unit, &bytes, &reasons, &error);
    if (rc == 0) {
        finish(unit, bytes, reasons);
    } else {
        bool expected =
            rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_NOT_FOUND || rc == XVSA_ERR_FENCED;
        atomic_fetch_add(&agent->figures.units_failed, 1);
        /* Busy: with other works, as far as its memory goes. */
        xv_log(agent->env, expected || rc == XVSA_ERR_BUSY ? XVSA_LOG_INFO : XVSA_LOG_WARNING,
               "agent", "%s: unit %u of %s goes back: %s", agent->name, unit->unit, unit->place,
               xvsa_error_message(error));
        xv_claims_release(&unit->claims, unit->unit);
        if (!expected) {
            const struct xv_call call = {.cancel = unit->cancel};
            /* Somebody else's turn first. */
            rc = xv_call_sleep(&call, XV_LOOK_MS, "agent", "waiting", NULL);
        }
    }
    /* Not before the claim is gone: who looks sees no more transfers than there may be. */
    xv_allowance_give_back(&unit->allowance);
    xvsa_error_unref(error);
    free(reasons);
    pthread_mutex_lock(&agent->lock);
    unit->ended = true;
    pthread_mutex_unlock(&agent->lock);
    atomic_store(&agent->place_freed, true);
    xv_agent_thread_end(agent);
    return NULL;
}

static int make_unit(struct xv_agent *agent, const struct xv_offer *offer,
                     struct xv_help_unit **ret, xvsa_error **error)
{
    struct xv_help_unit *unit = calloc(1, sizeof *unit);
    if (unit == NULL)
        return xv_fail_memory(error);
    unit->agent = agent;
    unit->repo = offer->repo;
    unit->board = json_incref(offer->json);
    unit->disk = offer->disk;
    snprintf(unit->job_id, sizeof unit->job_id, "%s", offer->job->job.id);
    snprintf(unit->place, sizeof unit->place, "%s", offer->place);
    unit->spec = xv_subject_spec(&offer->job->job, offer->subject);
    int rc = 0;
    if (asprintf(&unit->session_key, "%s/%s", agent->pool_uuid, offer->subject) < 0) {
        unit->session_key = NULL;
        rc = xv_fail_memory(error);
    }
    if (rc == 0 && unit->spec == NULL)
        rc = xv_fail_memory(error);
    if (rc == 0)
        rc = xvsa_cancel_new(&unit->cancel, error);
    if (rc == 0)
        rc = xv_claims_init(&unit->claims, agent, offer->place, offer->disk.units, true, error);
    if (rc != 0) {
        xv_help_unit_free(unit);
        return rc;
    }
    xv_claims_renew(&unit->claims, offer->mod, offer->disk.units);
    *ret = unit;
    return 0;
}

int xv_help_begin(struct xv_agent *agent, const struct xv_offer *offer,
                  struct xv_allowance *allowance, bool *ret_begun, xvsa_error **error)
{
    struct xv_help_unit *unit = NULL;
    struct xv_call call = xv_agent_call(agent);
    uint32_t left = 0;
    *ret_begun = false;
    int rc = make_unit(agent, offer, &unit, error);
    if (rc != 0) {
        xv_allowance_give_back(allowance);
        return rc;
    }
    unit->allowance = *allowance;
    rc = xv_claims_take(&unit->claims, &unit->unit, &left, &call, error);
    if (rc != 0 || unit->unit == XV_UNIT_NONE) {
        xv_help_unit_free(unit);
        return rc;
    }
    pthread_mutex_lock(&agent->lock);
    unit->next = agent->units;
    agent->units = unit;
    pthread_mutex_unlock(&agent->lock);
    rc = xv_agent_thread(agent, "xvsa-help", help, unit, error);
    if (rc != 0) {
        xv_claims_release(&unit->claims, unit->unit);
        pthread_mutex_lock(&agent->lock);
        unit->ended = true;
        pthread_mutex_unlock(&agent->lock);
    }
    *ret_begun = rc == 0;
    return rc;
}
