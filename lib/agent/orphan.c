/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Claims that live with this member though none of its threads stands behind them: the answer to claiming was lost, or
 * the task was given to somebody else while the lease was in doubt. As long as such a claim is there nobody
 * else can own the task, so it is given back.
 */
#include <string.h>

#include "agent/own.h"

/* Whether a thread owns the task, or is about to. */
static bool is_run_here(struct xv_agent *agent, const struct xv_view_job *job, const char *subject)
{
    char key[XV_KEY_MAX];
    snprintf(key, sizeof key, "v/%s/%s/%s", job->job.id, agent->pool_uuid, subject);
    pthread_mutex_lock(&agent->lock);
    bool here = false;
    for (struct xv_own_task *task = agent->tasks; task != NULL && !here; task = task->next)
        here = !task->ended && strcmp(task->key, key) == 0;
    pthread_mutex_unlock(&agent->lock);
    return here;
}

/* record: NULL when the task is gone. The transaction fails when either changed since they were read. */
static void give_back(struct xv_agent *agent, const struct xv_kv_pair *claim,
                      struct xv_task_record *record)
{
    struct xv_call call = xv_agent_call(agent);
    struct xv_txn txn;
    bool succeeded = false;
    xvsa_error *error = NULL;
    xv_txn_init(&txn);
    xv_agent_guard_epoch(agent, &txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, claim->create_revision, "%s", claim->key);
    xv_txn_delete(&txn, "%s", claim->key);
    if (record != NULL && record->state == XV_TASK_RUNNING &&
        strcmp(record->owner, agent->name) == 0) {
        json_object_set(record->json, "earlier", json_object_get(record->json, "owner"));
        xv_set_text(record->json, "owner", "");
        xv_set_text(record->json, "state", xv_task_state_name(XV_TASK_PENDING));
        xv_txn_expect(&txn, XV_KV_MOD_REVISION, record->mod, "%s", record->key);
        xv_txn_put(&txn, 0, record->json, "%s", record->key);
    }
    int rc = xv_txn_run(&txn, agent->kv, &call, &succeeded, NULL, &error);
    if (rc == 0 && succeeded)
        xv_log(agent->env, XVSA_LOG_WARNING, "agent",
               "%s: gave back %s, which it had without working on it", agent->name, claim->key);
    xv_agent_note_store(agent, rc, &error, "cannot give a claim back");
}

void xv_own_give_back(struct xv_agent *agent, const struct xv_view *view)
{
    int64_t lease = xv_member_lease(agent->member);
    for (size_t i = 0; lease != 0 && i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        for (size_t j = 0; j < job->claims.count; j++) {
            const struct xv_kv_pair *claim = &job->claims.pairs[j];
            const char *subject = xv_key_end(claim->key);
            if (claim->lease == lease && !is_run_here(agent, job, subject))
                give_back(agent, claim, xv_view_task(job, subject));
        }
    }
}
