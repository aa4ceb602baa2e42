/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The journal: entries j/1, j/2, ... made with create-if-absent, each holding the digest of the one
 * before, so that a lost entry cannot be replaced unnoticed.
 */
#include <stdlib.h>

#include "repo/internal.h"

#define JSON_FLAGS JSON_COMPACT

void xv_journal_name(uint64_t seq, char name[XV_NAME_BYTES])
{
    snprintf(name, XV_NAME_BYTES, "j/%016llx", (unsigned long long)seq);
}

int xv_journal_decode(const struct xv_crypt *crypt, const char *name, const uint8_t *data,
                      size_t length, json_t **ret, xvsa_error **error)
{
    uint8_t *body = NULL;
    size_t body_length = 0;
    int rc =
        xv_object_unseal(crypt, XV_TYPE_JOURNAL, name, data, length, &body, &body_length, error);
    if (rc != 0)
        return rc;
    json_error_t why;
    json_t *entry = json_loadb((const char *)body, body_length, JSON_REJECT_DUPLICATES, &why);
    free(body);
    if (!json_is_object(entry)) {
        json_decref(entry);
        return xv_fault(error, name, "its content is not a JSON object");
    }
    *ret = entry;
    return 0;
}

/* Takes in the entry that follows the tail. */
static int take_in(struct xv_repo *repo, const char *name, const uint8_t *data, size_t length,
                   uint64_t *ret_accepted, xvsa_error **error)
{
    json_t *entry = NULL;
    uint8_t digest[32];
    uint8_t previous[32];
    int rc = xv_journal_decode(repo->crypt, name, data, length, &entry, error);
    if (rc == 0)
        rc = xv_sha256(data, length, digest, error);
    if (rc == 0 && (xv_json_hex(entry, "previous", previous, sizeof previous) != 0 ||
                    memcmp(previous, repo->state.digest, sizeof previous) != 0))
        rc = xv_fault(error, name, "it does not follow the entry before: one of them was replaced");
    if (rc == 0)
        rc = xv_state_apply(&repo->state, entry, name, ret_accepted, error);
    if (rc == 0)
        memcpy(repo->state.digest, digest, sizeof digest);
    json_decref(entry);
    return rc;
}

/* Reads the entry after the tail; *ret_there is false when there is none. */
static int read_next(struct xv_repo *repo, bool *ret_there, const struct xv_call *call,
                     xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    uint64_t length = 0;
    uint64_t accepted;
    xvsa_error *e = NULL;
    xv_journal_name(repo->state.tail + 1, name);
    int rc = xv_target_get_all(repo->target, name, XV_JOURNAL_ENTRY_MAX, &data, &length, call, &e);
    *ret_there = rc == 0;
    if (rc == XVSA_ERR_NOT_FOUND) {
        xv_error_clear(&e);
        return 0;
    }
    if (rc == 0)
        rc = take_in(repo, name, data, (size_t)length, &accepted, &e);
    free(data);
    if (rc != 0 && xv_fault_is_damage(rc)) {
        repo->damage = e;
        *ret_there = false;
        return 0;
    }
    if (rc != 0 && error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

/* An entry beyond a missing one means that the missing one was lost. */
static int look_beyond(struct xv_repo *repo, bool *ret_more, const struct xv_call *call,
                       xvsa_error **error)
{
    char missing[XV_NAME_BYTES];
    char beyond[XV_NAME_BYTES];
    uint64_t length;
    xvsa_error *e = NULL;
    *ret_more = false;
    xv_journal_name(repo->state.tail + 1, missing);
    xv_journal_name(repo->state.tail + 2, beyond);
    int rc = xv_target_stat(repo->target, beyond, &length, call, &e);
    if (rc == XVSA_ERR_NOT_FOUND) {
        xv_error_clear(&e);
        return 0;
    }
    /* Somebody may have appended both meanwhile. */
    if (rc == 0)
        rc = read_next(repo, ret_more, call, &e);
    if (rc == 0 && !*ret_more && repo->damage == NULL)
        xv_fault(&repo->damage, missing, "it is missing, while '%s' is there", beyond);
    if (rc != 0 && error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

int xv_journal_refresh(struct xv_repo *repo, const struct xv_call *call, xvsa_error **error)
{
    bool more = repo->damage == NULL;
    bool first = repo->state.tail == 0;
    int rc = 0;
    while (rc == 0 && more) {
        rc = read_next(repo, &more, call, error);
        if (rc == 0 && !more && repo->damage == NULL && first) {
            first = false;
            rc = look_beyond(repo, &more, call, error);
        }
    }
    return rc;
}

int xv_journal_usable(struct xv_repo *repo, const char *point, xvsa_error **error)
{
    if (repo->damage != NULL) {
        int rc = (int)xvsa_error_code(repo->damage);
        if (error != NULL)
            *error = xvsa_error_ref(repo->damage);
        /* Which points there are and whether they count is what the journal says: all are concerned. */
        return xv_fault_disk(error, rc, point == NULL ? "*" : point, "*");
    }
    if (repo->state.read_blocked)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "the journal has records of a newer version that this one cannot read");
    return 0;
}

int xv_journal_enter(struct xv_repo *repo, const struct xv_call *call, xvsa_error **error)
{
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    rc = xv_journal_refresh(repo, call, error);
    if (rc == 0)
        rc = xv_journal_usable(repo, NULL, error);
    if (rc != 0)
        xv_baton_give(&repo->journal);
    return rc;
}

static int check_writable(struct xv_repo *repo, xvsa_error **error)
{
    if ((repo->flags & XVSA_REPO_READ_ONLY) != 0)
        return xv_fail(error, XVSA_ERR_STATE, "repo", "repository %s was opened for reading only",
                       repo->id);
    if (repo->config.ro_compat != 0 || repo->state.write_blocked)
        return xv_fail(error, XVSA_ERR_FORMAT, "repo",
                       "repository %s has features of a newer version: this one may only read it",
                       repo->id);
    if (!repo->if_absent && repo->lock_fd < 0)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, "repo",
                       "%s has no conditional writes and other writers cannot be locked out",
                       xv_target_url(repo->target));
    return 0;
}

/* The entry after the tail, as an object. */
static int encode_entry(struct xv_repo *repo, const char *name, const json_t *records,
                        uint8_t **ret, size_t *ret_length, xvsa_error **error)
{
    uint8_t nonce[16];
    char nonce_hex[33];
    char previous[65];
    int rc = xv_random(nonce, sizeof nonce, error);
    if (rc != 0)
        return rc;
    xv_hex_encode(nonce, sizeof nonce, nonce_hex);
    xv_hex_encode(repo->state.digest, sizeof repo->state.digest, previous);
    json_t *entry = json_pack("{s:I, s:s, s:s, s:I, s:O}", "seq", (json_int_t)repo->state.tail + 1,
                              "nonce", nonce_hex, "previous", previous, "written",
                              (json_int_t)xv_wall_ms(), "records", (json_t *)records);
    char *text = entry == NULL ? NULL : json_dumps(entry, JSON_FLAGS);
    json_decref(entry);
    if (text == NULL)
        return xv_fail_memory(error);
    rc = xv_object_seal(repo->crypt, XV_TYPE_JOURNAL, name, text, strlen(text), ret, ret_length,
                        error);
    free(text);
    if (rc == 0 && *ret_length > XV_JOURNAL_ENTRY_MAX)
        rc = xv_fail(error, XVSA_ERR_LIMIT, "repo", "an entry of the journal would have %zu bytes",
                     *ret_length);
    return rc;
}

/* EXISTS when somebody else was first. */
static int put_entry(struct xv_repo *repo, const char *name, const uint8_t *data, size_t length,
                     const struct xv_call *call, xvsa_error **error)
{
    xvsa_buffer piece = {data, length};
    uint32_t flags = repo->if_absent ? XVSA_PUT_IF_ABSENT : 0;
    return xv_target_put(repo->target, name, &piece, 1, flags, call, error);
}

static int append_once(struct xv_repo *repo, xv_records_fn make, void *user,
                       const struct xv_call *call, uint64_t *ret_accepted, xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    size_t length = 0;
    json_t *records = json_array();
    if (records == NULL)
        return xv_fail_memory(error);
    xv_journal_name(repo->state.tail + 1, name);
    int rc = make(user, &repo->state, records, error);
    if (rc == 0)
        rc = encode_entry(repo, name, records, &data, &length, error);
    json_decref(records);
    if (rc == 0)
        rc = put_entry(repo, name, data, length, call, error);
    if (rc == 0)
        rc = take_in(repo, name, data, length, ret_accepted, error);
    free(data);
    return rc;
}

int xv_journal_append(struct xv_repo *repo, xv_records_fn make, void *user,
                      const struct xv_call *call, uint64_t *ret_accepted, xvsa_error **error)
{
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    for (;;) {
        xvsa_error *e = NULL;
        rc = xv_call_check(call, "repo", "appending to the journal", &e);
        if (rc == 0)
            rc = xv_journal_refresh(repo, call, &e);
        if (rc == 0)
            rc = xv_journal_usable(repo, NULL, &e);
        if (rc == 0)
            rc = check_writable(repo, &e);
        bool tried = rc == 0;
        if (rc == 0)
            rc = append_once(repo, make, user, call, ret_accepted, &e);
        if (tried && rc == XVSA_ERR_EXISTS) {
            xv_error_clear(&e);
            continue;
        }
        if (rc == 0)
            rc = xv_target_barrier(repo->target, call, &e);
        if (rc == 0)
            return 0;
        xv_baton_give(&repo->journal);
        if (error != NULL)
            *error = e;
        else
            xvsa_error_unref(e);
        return rc;
    }
}
