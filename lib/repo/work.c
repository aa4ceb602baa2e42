/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works: what is done, and removing what is left of one that is over.
 */
#include "repo/work.h"

#include <stdlib.h>

#include "diff/extents.h"
#include "repo/session.h"
#include "repo/work_facts.h"
static int collect(struct xv_remains *left, const struct xv_work *work, xvsa_error **error)
{
    if (work->fact_count == 0)
        return 0;
    struct xv_handle *grown = realloc(left->ids, (left->count + work->fact_count) * sizeof *grown);
    if (grown == NULL)
        return xv_fail_memory(error);
    left->ids = grown;
    for (size_t i = 0; i < work->fact_count; i++)
        grown[left->count++] = work->facts[i].id;
    return 0;
}

int xv_remains_collect(struct xv_remains *left, const struct xv_state *state, const uint8_t *id,
                       xvsa_error **error)
{
    const struct xv_work *work = xv_state_work(state, id);
    left->count = 0;
    return work == NULL ? 0 : collect(left, work, error);
}

int xv_remains_collect_others(struct xv_remains *left, const struct xv_state *state,
                              const char *key, const uint8_t *id, xvsa_error **error)
{
    int rc = 0;
    left->count = 0;
    for (size_t i = 0; rc == 0 && i < state->work_count; i++) {
        const struct xv_work *work = &state->works[i];
        bool same = id != NULL && memcmp(work->id.bytes, id, XV_HANDLE_BYTES) == 0;
        if (!same && strcmp(work->key, key) == 0)
            rc = collect(left, work, error);
    }
    return rc;
}

int xv_parts_end(const struct xv_state *state, const uint8_t *id, json_t *records,
                 xvsa_error **error)
{
    for (size_t i = 0; i < state->session_count; i++) {
        const struct xv_active_session *session = &state->sessions[i];
        if (strcmp(session->kind, "part") != 0 ||
            memcmp(session->work.bytes, id, XV_HANDLE_BYTES) != 0)
            continue;
        json_t *record = xv_session_end_record(session->id.bytes, "aborted");
        if (record == NULL || json_array_append_new(records, record) != 0)
            return xv_fail_memory(error);
    }
    return 0;
}

int xv_parts_end_others(const struct xv_state *state, const char *key, const uint8_t *id,
                        json_t *records, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < state->work_count; i++) {
        const struct xv_work *work = &state->works[i];
        bool same = id != NULL && memcmp(work->id.bytes, id, XV_HANDLE_BYTES) == 0;
        if (!same && strcmp(work->key, key) == 0)
            rc = xv_parts_end(state, work->id.bytes, records, error);
    }
    return rc;
}

void xv_remains_remove(struct xv_remains *left, struct xv_repo *repo, const struct xv_call *call)
{
    size_t failed = 0;
    for (size_t i = 0; i < left->count; i++) {
        char name[XV_NAME_BYTES];
        xv_handle_name("w", left->ids[i].bytes, name);
        if (xv_call_check(call, "repo", "removing progress", NULL) != 0) {
            failed += left->count - i;
            break;
        }
        int rc = xv_target_remove(repo->target, name, call, NULL);
        failed += rc != 0 && rc != XVSA_ERR_NOT_FOUND;
    }
    if (failed > 0)
        xv_log(repo->env, XVSA_LOG_INFO, "repo", "%zu of %zu objects of a work that is over stay",
               failed, left->count);
    free(left->ids);
    *left = (struct xv_remains){0};
}

static int add_done(struct xv_extents *done, const struct xv_progress *progress,
                    uint32_t chunk_size, xvsa_error **error)
{
    struct xv_progress_run run;
    int rc = 0;
    xv_progress_begin(&run, progress);
    while (rc == 0 && xv_progress_next(&run)) {
        if (run.kind != XV_PROGRESS_GAP)
            rc = xv_told_add(done, progress, chunk_size, &run, error);
    }
    return rc;
}

/* What was read before of a disk of a work that is still open. */
struct xv_done {
    struct xv_done *next;
    uint8_t work[XV_HANDLE_BYTES];
    uint64_t opened; /* position in the journal: a work may be opened again */
    char *key;
    size_t seen; /* facts of the work that were dealt with */
    struct xv_extents ranges;
};

void xv_done_free(struct xv_done *done)
{
    while (done != NULL) {
        struct xv_done *next = done->next;
        xv_extents_free(&done->ranges);
        free(done->key);
        free(done);
        done = next;
    }
}

/* Forgets works that are over. With the journal's baton. */
static void prune(struct xv_repo *repo)
{
    for (struct xv_done **at = &repo->done; *at != NULL;) {
        struct xv_done *done = *at;
        const struct xv_work *work = xv_state_work(&repo->state, done->work);
        if (work != NULL && work->opened == done->opened) {
            at = &done->next;
            continue;
        }
        *at = done->next;
        done->next = NULL;
        xv_done_free(done);
    }
}

static struct xv_done *find_done(struct xv_repo *repo, const struct xv_work *work, const char *key)
{
    struct xv_done *done = repo->done;
    while (done != NULL && (memcmp(done->work, work->id.bytes, XV_HANDLE_BYTES) != 0 ||
                            strcmp(done->key, key) != 0))
        done = done->next;
    if (done != NULL)
        return done;
    done = calloc(1, sizeof *done);
    char *copy = strdup(key);
    if (done == NULL || copy == NULL) {
        free(done);
        free(copy);
        return NULL;
    }
    memcpy(done->work, work->id.bytes, XV_HANDLE_BYTES);
    done->opened = work->opened;
    done->key = copy;
    xv_extents_init(&done->ranges);
    done->next = repo->done;
    repo->done = done;
    return done;
}

/* What is new of a disk; *ret_done is NULL when the work is not open. */
static int look(struct xv_repo *repo, const uint8_t *id, const char *key, struct xv_done **ret_done,
                struct xv_facts *ret, const struct xv_call *call, xvsa_error **error)
{
    *ret_done = NULL;
    int rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    prune(repo);
    const struct xv_work *work = xv_state_work(&repo->state, id);
    if (work != NULL) {
        *ret_done = find_done(repo, work, key);
        rc = *ret_done == NULL
                 ? xv_fail_memory(error)
                 : xv_facts_copy(work, key, XV_WORK_DONE, (*ret_done)->seen, ret, error);
    }
    xv_baton_give(&repo->journal);
    return rc;
}

/* With the baton of what is done. */
static int read_done(struct xv_repo *repo, const uint8_t *id, const char *key,
                     struct xv_extents *ret, const struct xv_call *call, xvsa_error **error)
{
    struct xv_facts facts = {0};
    struct xv_done *done = NULL;
    int rc = look(repo, id, key, &done, &facts, call, error);
    for (size_t i = 0; rc == 0 && i < facts.count; i++) {
        struct xv_told told;
        rc = xv_told_read(repo, &facts.list[i], &told, call, error);
        if (rc == 0 && told.body != NULL)
            rc = add_done(&done->ranges, &told.progress, xv_repo_chunk_size(repo), error);
        free(told.body);
    }
    free(facts.list);
    if (rc == 0 && done != NULL)
        done->seen = facts.seen;
    for (size_t i = 0; rc == 0 && done != NULL && i < done->ranges.count; i++)
        rc = xv_extents_add(ret, done->ranges.ranges[i].offset, done->ranges.ranges[i].length,
                            error);
    return rc;
}

int xv_work_done(struct xv_repo *repo, const char *work_id, const char *key,
                 const struct xv_call *call, struct xv_extents *ret, xvsa_error **error)
{
    uint8_t id[XV_HANDLE_BYTES];
    int rc = xv_work_parse(work_id, id, error);
    if (rc == 0)
        rc = xv_baton_take(&repo->doing, call, error);
    if (rc != 0)
        return rc;
    rc = read_done(repo, id, key, ret, call, error);
    xv_baton_give(&repo->doing);
    return rc;
}
