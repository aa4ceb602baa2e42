/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sessions of restores that nobody goes on with: what they pin may be deleted again.
 */
#include "repo/session.h"

struct releasing {
    xv_restore_over_fn over;
    void *user;
    size_t count;
};

static bool is_over(const struct releasing *releasing, const struct xv_active_session *session)
{
    return strcmp(session->kind, "restore") == 0 && releasing->over(releasing->user, session->key);
}

static int make_ends(void *user, const struct xv_state *state, json_t *records, xvsa_error **error)
{
    struct releasing *releasing = user;
    releasing->count = 0;
    for (size_t i = 0; i < state->session_count; i++) {
        if (!is_over(releasing, &state->sessions[i]))
            continue;
        json_t *record = xv_session_end_record(state->sessions[i].id.bytes, "aborted");
        if (record == NULL || json_array_append_new(records, record) != 0)
            return xv_fail_memory(error);
        releasing->count++;
    }
    return 0;
}

static int look(struct xv_repo *repo, struct releasing *releasing, const struct xv_call *call,
                xvsa_error **error)
{
    int rc = xv_journal_enter(repo, call, error);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < repo->state.session_count; i++)
        releasing->count += is_over(releasing, &repo->state.sessions[i]);
    xv_baton_give(&repo->journal);
    return 0;
}

int xv_repo_end_restores(struct xv_repo *repo, xv_restore_over_fn over, void *user,
                         const struct xv_call *call, size_t *ret_ended, xvsa_error **error)
{
    struct releasing releasing = {.over = over, .user = user};
    uint64_t accepted = 0;
    *ret_ended = 0;
    /* No entry is written for nothing. */
    int rc = look(repo, &releasing, call, error);
    if (rc != 0 || releasing.count == 0)
        return rc;
    rc = xv_journal_append(repo, make_ends, &releasing, call, &accepted, error);
    if (rc != 0)
        return rc;
    xv_baton_give(&repo->journal);
    *ret_ended = releasing.count;
    return 0;
}
