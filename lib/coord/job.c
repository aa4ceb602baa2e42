/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Jobs and the last outcome of each VM. The texts of a job may be larger than a transaction: they
 * are written in pieces, and the record that makes them count comes last.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/state.h"

#define COMPONENT  XV_STATE_COMPONENT
#define KEY_MAX    256
#define PIECE_MAX  (512u << 10)
#define PIECES_MAX 1000000
#define TEXT_MAX   (256u << 20)

static int job_key(const char *id, char key[KEY_MAX], xvsa_error **error)
{
    int length = snprintf(key, KEY_MAX, "job/%s", id);
    if (length < 0 || length >= KEY_MAX - 32 || strchr(id, '/') != NULL)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "\"%.60s\" is no id of a job", id);
    return 0;
}

/* Writes all pieces but the last, each only while the job is as compare says; gives the last
 * one. */
static int put_pieces(struct xv_coord *coord, const char *id, const char *kind, const char *text,
                      const struct xv_kv_compare *compare, char key[KEY_MAX], const char **ret_last,
                      xvsa_error **error)
{
    for (unsigned i = 0;; i++) {
        snprintf(key, KEY_MAX, "jobtext/%s/%s/%06u", id, kind, i);
        if (strlen(text) <= PIECE_MAX) {
            *ret_last = text;
            return 0;
        }
        if (i == PIECES_MAX)
            return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "the %s of job %s is too long", kind,
                           id);
        char *piece = strndup(text, PIECE_MAX);
        if (piece == NULL)
            return xv_fail_memory(error);
        bool succeeded = false;
        struct xv_kv_op op = {.verb = XV_KV_PUT, .key = key, .value = piece};
        int rc = xv_kv_txn(coord->kv, compare, 1, &op, 1, NULL, &succeeded, NULL, error);
        free(piece);
        if (rc == 0 && !succeeded)
            rc = xv_fail(error, XVSA_ERR_EXISTS, COMPONENT,
                         "job %s was changed by somebody else meanwhile", id);
        if (rc != 0)
            return rc;
        text += PIECE_MAX;
    }
}

/* Makes the record and a text what they are to be; *ret_succeeded: compare held. */
static int put_job(struct xv_coord *coord, const char *id, const char *kind, const char *text,
                   const struct xv_kv_compare *compare, json_t *record, bool *ret_succeeded,
                   xvsa_error **error)
{
    char key[KEY_MAX];
    const char *last = NULL;
    size_t length = strlen(text);
    json_int_t pieces = length == 0 ? 1 : (json_int_t)((length + PIECE_MAX - 1) / PIECE_MAX);
    if (json_object_set_new(record, kind, json_integer(pieces)) != 0)
        return xv_fail_memory(error);
    char *head = json_dumps(record, JSON_COMPACT);
    if (head == NULL)
        return xv_fail_memory(error);
    int rc = put_pieces(coord, id, kind, text, compare, key, &last, error);
    struct xv_kv_op ops[] = {
        {.verb = XV_KV_PUT, .key = key, .value = last},
        {.verb = XV_KV_PUT, .key = compare->key, .value = head},
    };
    if (rc == 0)
        rc = xv_kv_txn(coord->kv, compare, 1, ops, 2, NULL, ret_succeeded, NULL, error);
    free(head);
    return rc;
}

int xv_coord_job_add(struct xv_coord *coord, const struct xv_coord_job *job, xvsa_error **error)
{
    char key[KEY_MAX];
    bool succeeded = false;
    int rc = job_key(job->id, key, error);
    if (rc != 0)
        return rc;
    json_t *record =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:i}", "type", job->type, "name", job->name,
                  "state", "running", "owner", coord->owner, "pool", job->pool_uuid, "repo",
                  job->repo_id, "started", (json_int_t)job->started_ms, "ended", 0);
    struct xv_kv_compare compare = {key, XV_KV_MOD_REVISION, 0, NULL};
    rc = put_job(coord, job->id, "spec", job->spec, &compare, record, &succeeded, error);
    json_decref(record);
    if (rc == 0 && !succeeded)
        rc = xv_fail(error, XVSA_ERR_EXISTS, COMPONENT, "there is a job %s already", job->id);
    return rc;
}

/* Reads the record of a key; NULL and 0 when there is none. */
static int read_record(struct xv_coord *coord, const char *key, json_t **ret, int64_t *ret_revision,
                       xvsa_error **error)
{
    struct xv_kv_list list;
    *ret = NULL;
    int rc = xv_kv_get(coord->kv, key, NULL, &list, error);
    if (rc != 0)
        return rc;
    if (list.count == 1) {
        *ret_revision = list.pairs[0].mod_revision;
        *ret = xv_state_record(&list.pairs[0], error);
        rc = *ret == NULL ? XVSA_ERR_FORMAT : 0;
    }
    xv_kv_list_free(&list);
    return rc;
}

static int end_once(struct xv_coord *coord, const char *id, const char *key, const char *state,
                    const char *report, int64_t ended_ms, bool *ret_done, xvsa_error **error)
{
    json_t *record = NULL;
    int64_t revision = 0;
    int rc = read_record(coord, key, &record, &revision, error);
    if (rc != 0)
        return rc;
    if (record == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, COMPONENT, "the store has no job %s", id);
    struct xv_kv_compare compare = {key, XV_KV_MOD_REVISION, revision, NULL};
    if (json_object_set_new(record, "state", json_string(state)) != 0 ||
        json_object_set_new(record, "ended", json_integer(ended_ms)) != 0)
        rc = xv_fail_memory(error);
    else if (report == NULL)
        rc = xv_state_put(coord, key, revision, json_incref(record), ret_done, error);
    else
        rc = put_job(coord, id, "report", report, &compare, record, ret_done, error);
    json_decref(record);
    return rc;
}

int xv_coord_job_end(struct xv_coord *coord, const char *id, const char *state, const char *report,
                     int64_t ended_ms, xvsa_error **error)
{
    char key[KEY_MAX];
    bool done = false;
    int rc = job_key(id, key, error);
    while (rc == 0 && !done) {
        xvsa_error *failure = NULL;
        rc = end_once(coord, id, key, state, report, ended_ms, &done, &failure);
        if (rc == XVSA_ERR_EXISTS) { /* changed between two pieces */
            xv_error_clear(&failure);
            rc = 0;
        } else if (error != NULL) {
            *error = failure;
        } else {
            xvsa_error_unref(failure);
        }
    }
    return rc;
}

/* A job of a list with its record. */
struct row {
    const char *id;
    json_t *record;
    int64_t started_ms;
    int64_t create_revision;
    int64_t mod_revision;
};

struct rows {
    struct xv_kv_list list;
    struct row *rows;
    size_t count;
};

static void free_rows(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        json_decref(rows->rows[i].record);
    free(rows->rows);
    xv_kv_list_free(&rows->list);
}

static int by_start(const void *a, const void *b)
{
    const struct row *left = a;
    const struct row *right = b;
    int order = (left->started_ms < right->started_ms) - (left->started_ms > right->started_ms);
    return order != 0 ? order
                      : (left->create_revision < right->create_revision) -
                            (left->create_revision > right->create_revision);
}

static int read_rows(struct xv_coord *coord, struct rows *ret, xvsa_error **error)
{
    *ret = (struct rows){0};
    int rc = xv_kv_range(coord->kv, "job/", NULL, &ret->list, error);
    if (rc != 0)
        return rc;
    ret->rows = calloc(ret->list.count + 1, sizeof *ret->rows);
    if (ret->rows == NULL)
        rc = xv_fail_memory(error);
    for (size_t i = 0; rc == 0 && i < ret->list.count; i++) {
        const struct xv_kv_pair *pair = &ret->list.pairs[i];
        json_t *record = xv_state_record(pair, error);
        if (record == NULL) {
            rc = XVSA_ERR_FORMAT;
            break;
        }
        ret->rows[ret->count++] =
            (struct row){pair->key + strlen("job/"), record,
                         json_integer_value(json_object_get(record, "started")),
                         pair->create_revision, pair->mod_revision};
    }
    if (rc != 0)
        free_rows(ret);
    else
        qsort(ret->rows, ret->count, sizeof *ret->rows, by_start);
    return rc;
}

int xv_jobs_interrupt(struct xv_coord *coord, xvsa_error **error)
{
    struct rows rows;
    struct xv_kv_list owners;
    /* The owners second: who enters a job is in their list before it. */
    int rc = read_rows(coord, &rows, error);
    if (rc != 0)
        return rc;
    rc = xv_state_owners(coord, &owners, error);
    for (size_t i = 0; rc == 0 && i < rows.count; i++) {
        struct row *row = &rows.rows[i];
        char key[KEY_MAX];
        bool succeeded = false; /* else its end was written meanwhile, or another one did this */
        if (strcmp(xv_state_text(row->record, "state"), "running") != 0 ||
            xv_state_is_alive(&owners, xv_state_text(row->record, "owner")))
            continue;
        snprintf(key, sizeof key, "job/%s", row->id);
        if (json_object_set_new(row->record, "state", json_string("interrupted")) != 0)
            rc = xv_fail_memory(error);
        else
            rc = xv_state_put(coord, key, row->mod_revision, json_incref(row->record), &succeeded,
                              error);
    }
    xv_kv_list_free(&owners);
    free_rows(&rows);
    return rc;
}

/* Joins the pieces of a text, as many as the record says; NULL and 0 when there are none. The
 * caller frees. */
static int read_text(struct xv_coord *coord, const struct row *row, const char *kind, char **ret,
                     xvsa_error **error)
{
    char prefix[KEY_MAX];
    struct xv_kv_list list;
    struct xv_buffer text;
    snprintf(prefix, sizeof prefix, "jobtext/%s/%s/", row->id, kind);
    const json_t *pieces = json_object_get(row->record, kind);
    *ret = NULL;
    int rc = xv_kv_range(coord->kv, prefix, NULL, &list, error);
    if (rc != 0)
        return rc;
    xv_buffer_init(&text, TEXT_MAX);
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        if (pieces != NULL && i >= (size_t)json_integer_value(pieces))
            break;
        rc = xv_buffer_add(&text, list.pairs[i].value, list.pairs[i].length, error);
    }
    if (rc == 0 && list.count > 0 && (*ret = xv_buffer_steal(&text)) == NULL)
        rc = xv_fail_memory(error);
    xv_buffer_free(&text);
    xv_kv_list_free(&list);
    return rc;
}

static int visit(struct xv_coord *coord, const struct row *row, xv_coord_job_fn fn, void *user,
                 xvsa_error **error)
{
    char *spec = NULL;
    char *report = NULL;
    int rc = read_text(coord, row, "spec", &spec, error);
    int64_t ended_ms = json_integer_value(json_object_get(row->record, "ended"));
    if (rc == 0 && ended_ms != 0)
        rc = read_text(coord, row, "report", &report, error);
    if (rc == 0) {
        struct xv_coord_job job = {
            .id = row->id,
            .type = xv_state_text(row->record, "type"),
            .name = xv_state_text(row->record, "name"),
            .state = xv_state_text(row->record, "state"),
            .pool_uuid = xv_state_text(row->record, "pool"),
            .repo_id = xv_state_text(row->record, "repo"),
            .spec = spec == NULL ? "{}" : spec,
            .report = report,
            .started_ms = row->started_ms,
            .ended_ms = ended_ms,
        };
        rc = fn(user, &job, error);
    }
    free(spec);
    free(report);
    return rc;
}

int xv_coord_jobs(struct xv_coord *coord, uint32_t limit, xv_coord_job_fn fn, void *user,
                  xvsa_error **error)
{
    struct rows rows;
    int rc = xv_jobs_interrupt(coord, error);
    if (rc == 0)
        rc = read_rows(coord, &rows, error);
    if (rc != 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < rows.count && i < limit; i++)
        rc = visit(coord, &rows.rows[i], fn, user, error);
    free_rows(&rows);
    return rc;
}

static int outcome_key(const char *pool_uuid, const char *vm_uuid, char key[KEY_MAX],
                       xvsa_error **error)
{
    int length = snprintf(key, KEY_MAX, "outcome/%s/%s", pool_uuid, vm_uuid);
    if (length < 0 || length >= KEY_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT, "the UUIDs %.50s and %.50s are too long",
                       pool_uuid, vm_uuid);
    return 0;
}

int xv_coord_outcome_set(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool succeeded, int64_t ended_ms, xvsa_error **error)
{
    char key[KEY_MAX];
    char value[64];
    bool done = false;
    int rc = outcome_key(pool_uuid, vm_uuid, key, error);
    if (rc != 0)
        return rc;
    snprintf(value, sizeof value, "{\"failed\":%s,\"ended\":%lld}", succeeded ? "false" : "true",
             (long long)ended_ms);
    struct xv_kv_op op = {.verb = XV_KV_PUT, .key = key, .value = value};
    return xv_kv_txn(coord->kv, NULL, 0, &op, 1, NULL, &done, NULL, error);
}

int xv_coord_outcome_get(struct xv_coord *coord, const char *pool_uuid, const char *vm_uuid,
                         bool *ret_failed, xvsa_error **error)
{
    char key[KEY_MAX];
    json_t *record = NULL;
    int64_t revision = 0;
    *ret_failed = false;
    int rc = outcome_key(pool_uuid, vm_uuid, key, error);
    if (rc == 0)
        rc = read_record(coord, key, &record, &revision, error);
    *ret_failed = json_is_true(json_object_get(record, "failed"));
    json_decref(record);
    return rc;
}
