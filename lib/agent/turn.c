/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "agent/budget.h"

#define TRIES_MAX  8
#define RELEASE_MS 3000
#define TURNS_MAX  1024u

struct xv_turn {
    struct xv_turn *next; /* agent's lock; of those to be given back */
    struct xv_agent *agent;
    char key[XV_KEY_MAX];
    int64_t
        revision; /* of its creation: a turn that ended with the lease may be another's; 0: it is not known
                         whether it was taken */
    char mark[XV_SITE_ID_LENGTH + 1];
};

/* The first number below limit that no key of the list ends with; limit: none. */
static uint32_t pick(const struct xv_kv_list *list, uint32_t limit)
{
    bool taken[TURNS_MAX] = {false};
    uint32_t number = 0;
    for (size_t i = 0; i < list->count; i++) {
        unsigned long used = strtoul(xv_key_end(list->pairs[i].key), NULL, 10);
        if (used < TURNS_MAX)
            taken[used] = true;
    }
    while (number < limit && taken[number])
        number++;
    return number;
}

static int try_take(struct xv_turn *turn, const struct xv_call *call, bool *ret_succeeded,
                    xvsa_error **error)
{
    struct xv_agent *agent = turn->agent;
    struct xv_txn txn;
    json_t *mark = json_pack("{s:s, s:s}", "member", agent->name, "mark", turn->mark);
    xv_txn_init(&txn);
    xv_agent_guard_epoch(agent, &txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "%s", turn->key);
    xv_txn_put_leased(&txn, xv_member_lease(agent->member), mark, "%s", turn->key);
    json_decref(mark);
    return xv_txn_run(&txn, agent->kv, call, ret_succeeded, &turn->revision, error);
}

/* To be given back later. */
static void keep(struct xv_turn *turn)
{
    struct xv_agent *agent = turn->agent;
    pthread_mutex_lock(&agent->lock);
    turn->next = agent->turns;
    agent->turns = turn;
    pthread_mutex_unlock(&agent->lock);
}

int xv_turn_take(struct xv_agent *agent, const char *job_id, const char *sr_uuid, uint32_t limit,
                 const struct xv_call *call, struct xv_turn **ret, xvsa_error **error)
{
    struct xv_turn *turn = calloc(1, sizeof *turn);
    bool succeeded = false;
    int rc = turn == NULL ? xv_fail_memory(error) : xv_make_id(turn->mark, error);
    bool doubtful = false;
    *ret = NULL;
    limit = limit > TURNS_MAX ? TURNS_MAX : limit;
    for (int i = 0; rc == 0 && !succeeded && i < TRIES_MAX; i++) {
        struct xv_kv_list list = {0};
        rc = xv_kv_read(agent->kv, call, &list, error, "t/%s/%s/", job_id, sr_uuid);
        uint32_t number = rc == 0 ? pick(&list, limit) : 0;
        xv_kv_list_free(&list);
        if (rc != 0 || number == limit)
            break;
        turn->agent = agent;
        turn->revision = 0;
        snprintf(turn->key, sizeof turn->key, "t/%s/%s/%04u", job_id, sr_uuid, number);
        rc = try_take(turn, call, &succeeded, error);
        doubtful = rc != 0;
    }
    if (rc == 0 && succeeded)
        *ret = turn;
    else if (doubtful)
        keep(turn);
    else
        free(turn);
    return rc;
}

/* The answer to the taking was lost: whether it is ours its mark tells. */
static int find_revision(struct xv_turn *turn, const struct xv_call *call, xvsa_error **error)
{
    struct xv_kv_list list = {0};
    int rc = xv_kv_get(turn->agent->kv, turn->key, call, &list, error);
    json_t *json = list.count == 0 ? NULL : xv_pair_json(&list.pairs[0]);
    if (rc == 0 && strcmp(xv_member_text(json, "mark"), turn->mark) == 0)
        turn->revision = list.pairs[0].create_revision;
    json_decref(json);
    xv_kv_list_free(&list);
    return rc;
}

static int give_back(struct xv_turn *turn, xvsa_error **error)
{
    struct xv_txn txn;
    bool succeeded = false;
    const struct xv_call none = {0};
    struct xv_call call = xv_call_within(&none, RELEASE_MS);
    int rc = turn->revision == 0 ? find_revision(turn, &call, error) : 0;
    if (rc != 0 || turn->revision == 0)
        return rc;
    xv_txn_init(&txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, turn->revision, "%s", turn->key);
    xv_txn_delete(&txn, "%s", turn->key);
    return xv_txn_run(&txn, turn->agent->kv, &call, &succeeded, NULL, error);
}

void xv_turn_leave(struct xv_turn *turn)
{
    xvsa_error *error = NULL;
    if (turn == NULL)
        return;
    struct xv_agent *agent = turn->agent;
    if (give_back(turn, &error) == 0) {
        free(turn);
    } else {
        xv_log(agent->env, XVSA_LOG_DEBUG, "agent", "%s is given back later: %s", turn->key,
               xvsa_error_message(error));
        keep(turn);
    }
    xvsa_error_unref(error);
}

static struct xv_turn *take_all(struct xv_agent *agent)
{
    pthread_mutex_lock(&agent->lock);
    struct xv_turn *turn = agent->turns;
    agent->turns = NULL;
    pthread_mutex_unlock(&agent->lock);
    return turn;
}

void xv_turns_look(struct xv_agent *agent)
{
    struct xv_turn *turn = take_all(agent);
    while (turn != NULL) {
        struct xv_turn *next = turn->next;
        xv_turn_leave(turn);
        turn = next;
    }
}

void xv_turns_free(struct xv_agent *agent)
{
    struct xv_turn *turn = take_all(agent);
    while (turn != NULL) {
        struct xv_turn *next = turn->next;
        free(turn);
        turn = next;
    }
}
