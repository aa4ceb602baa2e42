/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "agent/board.h"

#define TRIES_MAX  8
#define UNITS_MAX  (1u << 20)
#define RELEASE_MS 3000

int xv_claims_init(struct xv_claims *claims, struct xv_agent *agent, const char *place,
                   uint32_t units, bool backwards, xvsa_error **error)
{
    *claims = (struct xv_claims){.agent = agent, .units = units, .backwards = backwards};
    snprintf(claims->place, sizeof claims->place, "%s", place);
    claims->claimed = calloc(units + 1u, sizeof *claims->claimed);
    if (claims->claimed == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&claims->lock, NULL);
    return 0;
}

void xv_claims_free(struct xv_claims *claims)
{
    if (claims->claimed == NULL)
        return;
    pthread_mutex_destroy(&claims->lock);
    free(claims->claimed);
}

void xv_claims_renew(struct xv_claims *claims, int64_t mod, uint32_t units)
{
    pthread_mutex_lock(&claims->lock);
    int64_t *grown = realloc(claims->claimed, (units + 1u) * sizeof *grown);
    if (grown != NULL) {
        memset(grown, 0, (units + 1u) * sizeof *grown);
        claims->claimed = grown;
        claims->units = units;
    } else if (units < claims->units) {
        claims->units = units;
    }
    claims->mod = mod;
    pthread_mutex_unlock(&claims->lock);
}

/* Marks units that keys of a list end with. */
static uint32_t mark(const struct xv_kv_list *list, bool *taken, uint32_t units)
{
    uint32_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        char *end = NULL;
        unsigned long unit = strtoul(xv_key_end(list->pairs[i].key), &end, 10);
        if (*end == '\0' && unit < units) {
            count++;
            taken[unit] = true;
        }
    }
    return count;
}

static uint32_t pick(const bool *taken, uint32_t units, bool backwards)
{
    for (uint32_t i = 0; i < units; i++) {
        uint32_t unit = backwards ? units - 1 - i : i;
        if (!taken[unit])
            return unit;
    }
    return XV_UNIT_NONE;
}

static int look(struct xv_claims *claims, uint32_t units, uint32_t *ret_unit, uint32_t *ret_left,
                const struct xv_call *call, xvsa_error **error)
{
    struct xv_kv_list done = {0};
    struct xv_kv_list claimed = {0};
    bool *taken = calloc(units + 1u, sizeof *taken);
    if (taken == NULL)
        return xv_fail_memory(error);
    /* Claims first: one that turns into a result in between is seen twice, not missed. */
    int rc = xv_kv_read(claims->agent->kv, call, &claimed, error, "c/%s/", claims->place);
    if (rc == 0)
        rc = xv_kv_read(claims->agent->kv, call, &done, error, "d/%s/", claims->place);
    if (rc == 0) {
        mark(&claimed, taken, units);
        *ret_left = units - mark(&done, taken, units);
        *ret_unit = pick(taken, units, claims->backwards);
    }
    xv_kv_list_free(&done);
    xv_kv_list_free(&claimed);
    free(taken);
    return rc;
}

static int try_claim(struct xv_claims *claims, int64_t mod, uint32_t unit,
                     const struct xv_call *call, bool *ret_succeeded, xvsa_error **error)
{
    struct xv_agent *agent = claims->agent;
    struct xv_txn txn;
    int64_t revision = 0;
    json_t *mark_json = json_pack("{s:s}", "member", agent->name);
    xv_txn_init(&txn);
    xv_agent_guard_epoch(agent, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, mod, "b/%s", claims->place);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "c/%s/%06u", claims->place, unit);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "d/%s/%06u", claims->place, unit);
    xv_txn_put_leased(&txn, xv_member_lease(agent->member), mark_json, "c/%s/%06u", claims->place,
                      unit);
    json_decref(mark_json);
    int rc = xv_txn_run(&txn, agent->kv, call, ret_succeeded, &revision, error);
    if (rc == 0 && *ret_succeeded) {
        pthread_mutex_lock(&claims->lock);
        if (unit < claims->units)
            claims->claimed[unit] = revision;
        pthread_mutex_unlock(&claims->lock);
    }
    return rc;
}

int xv_claims_take(struct xv_claims *claims, uint32_t *ret_unit, uint32_t *ret_left,
                   const struct xv_call *call, xvsa_error **error)
{
    pthread_mutex_lock(&claims->lock);
    int64_t mod = claims->mod;
    uint32_t units = claims->units;
    pthread_mutex_unlock(&claims->lock);
    if (units > UNITS_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, "agent", "board %s has %u units", claims->place,
                       units);
    for (int i = 0; i < TRIES_MAX; i++) {
        bool succeeded = false;
        int rc = look(claims, units, ret_unit, ret_left, call, error);
        if (rc != 0 || *ret_unit == XV_UNIT_NONE)
            return rc;
        rc = try_claim(claims, mod, *ret_unit, call, &succeeded, error);
        if (rc != 0 || succeeded)
            return rc;
    }
    return xv_fail(error, XVSA_ERR_CONFLICT, "agent",
                   "no unit of board %s could be claimed: it is gone or was written anew",
                   claims->place);
}

int xv_claims_left(struct xv_claims *claims, uint32_t *ret, const struct xv_call *call,
                   xvsa_error **error)
{
    uint32_t unit = XV_UNIT_NONE;
    pthread_mutex_lock(&claims->lock);
    uint32_t units = claims->units;
    pthread_mutex_unlock(&claims->lock);
    return look(claims, units, &unit, ret, call, error);
}

bool xv_claims_are_held(struct xv_claims *claims)
{
    bool held = false;
    pthread_mutex_lock(&claims->lock);
    for (uint32_t i = 0; i < claims->units && !held; i++)
        held = claims->claimed[i] != 0;
    pthread_mutex_unlock(&claims->lock);
    return held;
}

int xv_claims_finish(struct xv_claims *claims, uint32_t unit, uint64_t bytes, const char *reasons,
                     const struct xv_call *call, xvsa_error **error)
{
    struct xv_agent *agent = claims->agent;
    struct xv_txn txn;
    bool succeeded = false;
    json_t *list = reasons == NULL ? NULL : json_loads(reasons, 0, NULL);
    json_t *json = json_pack("{s:s, s:I, s:o}", "member", agent->name, "bytes", (json_int_t)bytes,
                             "reasons", list == NULL ? json_array() : list);
    pthread_mutex_lock(&claims->lock);
    int64_t mod = claims->mod;
    if (unit < claims->units)
        claims->claimed[unit] = 0;
    pthread_mutex_unlock(&claims->lock);
    xv_txn_init(&txn);
    xv_agent_guard_epoch(agent, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, mod, "b/%s", claims->place);
    xv_txn_put(&txn, 0, json, "d/%s/%06u", claims->place, unit);
    xv_txn_delete(&txn, "c/%s/%06u", claims->place, unit);
    json_decref(json);
    return xv_txn_run(&txn, agent->kv, call, &succeeded, NULL, error);
}

void xv_claims_release(struct xv_claims *claims, uint32_t unit)
{
    struct xv_txn txn;
    bool succeeded = false;
    xvsa_error *error = NULL;
    pthread_mutex_lock(&claims->lock);
    int64_t revision = unit < claims->units ? claims->claimed[unit] : 0;
    if (unit < claims->units)
        claims->claimed[unit] = 0;
    pthread_mutex_unlock(&claims->lock);
    if (revision == 0)
        return;
    const struct xv_call none = {0};
    struct xv_call call = xv_call_within(&none, RELEASE_MS);
    xv_txn_init(&txn);
    xv_agent_guard_epoch(claims->agent, &txn);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, revision, "c/%s/%06u", claims->place, unit);
    xv_txn_delete(&txn, "c/%s/%06u", claims->place, unit);
    if (xv_txn_run(&txn, claims->agent->kv, &call, &succeeded, NULL, &error) != 0)
        xv_log(claims->agent->env, XVSA_LOG_DEBUG, "agent",
               "unit %u of %s stays claimed until the lease ends: %s", unit, claims->place,
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* ---- account ---- */

static json_t *mover(json_t *movers, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(movers, i, entry)
    {
        if (strcmp(xv_member_text(entry, "proxy"), name) == 0)
            return entry;
    }
    entry =
        json_pack("{s:s, s:I, s:I}", "proxy", name, "bytes", (json_int_t)0, "units", (json_int_t)0);
    json_array_append_new(movers, entry);
    return entry;
}

static void add_result(json_t *movers, json_t *reasons, const struct xv_kv_pair *pair,
                       const char *own)
{
    json_t *json = xv_pair_json(pair);
    const char *member = xv_member_text(json, "member");
    if (member[0] != '\0' && strcmp(member, own) != 0) {
        json_t *entry = mover(movers, member);
        xv_set_number(entry, "bytes",
                      xv_member_number(entry, "bytes") + xv_member_number(json, "bytes"));
        xv_set_number(entry, "units", xv_member_number(entry, "units") + 1);
        json_array_extend(reasons, json_object_get(json, "reasons"));
    }
    json_decref(json);
}

int xv_claims_account(struct xv_claims *claims, char **ret, const struct xv_call *call,
                      xvsa_error **error)
{
    struct xv_kv_list done = {0};
    int rc = xv_kv_read(claims->agent->kv, call, &done, error, "d/%s/", claims->place);
    if (rc != 0)
        return rc;
    json_t *movers = json_array();
    json_t *reasons = json_array();
    for (size_t i = 0; i < done.count; i++)
        add_result(movers, reasons, &done.pairs[i], claims->agent->name);
    xv_kv_list_free(&done);
    json_t *json = json_pack("{s:o, s:o}", "movers", movers, "reasons", reasons);
    *ret = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}

/* ---- boards as values ---- */

json_t *xv_board_to_json(const struct xv_board_disk *disk)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "work", disk->work_id,
                     "key", disk->key, "device", disk->device, "sr", disk->sr_uuid, "snapshot",
                     disk->snapshot_uuid, "size", (json_int_t)disk->size, "bytes",
                     (json_int_t)disk->bytes, "unit_bytes", (json_int_t)disk->unit_bytes, "units",
                     (json_int_t)disk->units, "nbd", (int)disk->nbd);
}

int xv_board_read(const json_t *json, const char *key, struct xv_board_disk *ret,
                  xvsa_error **error)
{
    int64_t units = xv_member_number(json, "units");
    int64_t size = xv_member_number(json, "size");
    int64_t bytes = xv_member_number(json, "bytes");
    int64_t unit_bytes = xv_member_number(json, "unit_bytes");
    *ret = (struct xv_board_disk){
        .key = xv_member_text(json, "key"),
        .device = xv_member_text(json, "device"),
        .sr_uuid = xv_member_text(json, "sr"),
        .snapshot_uuid = xv_member_text(json, "snapshot"),
        .work_id = xv_member_text(json, "work"),
        .size = (uint64_t)size,
        .bytes = (uint64_t)bytes,
        .unit_bytes = (uint64_t)unit_bytes,
        .units = (uint32_t)units,
        .nbd = json_is_true(json_object_get(json, "nbd")),
    };
    if (units < 0 || units > UNITS_MAX || size < 0 || bytes < 0 || unit_bytes < 0 ||
        ret->key[0] == '\0' || ret->work_id[0] == '\0')
        return xv_fail(error, XVSA_ERR_FORMAT, "agent",
                       "the coordination store's entry \"%s\" is not understood", key);
    return 0;
}
