/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Works in the journal: when one is open, and what is known of it. Rules in docs/format.md.
 */
#include <stdlib.h>

#include "repo/state.h"

#define DISK_KEY_MAX 4096

static void free_work(struct xv_work *work)
{
    for (size_t i = 0; i < work->fact_count; i++)
        free(work->facts[i].disk);
    free(work->facts);
    free(work->key);
}

void xv_state_free_works(struct xv_state *state)
{
    for (size_t i = 0; i < state->work_count; i++)
        free_work(&state->works[i]);
    free(state->works);
    state->works = NULL;
    state->work_count = 0;
}

static size_t find_work(const struct xv_state *state, const uint8_t *id)
{
    size_t i = 0;
    while (i < state->work_count && memcmp(state->works[i].id.bytes, id, XV_HANDLE_BYTES) != 0)
        i++;
    return i;
}

const struct xv_work *xv_state_work(const struct xv_state *state, const uint8_t *id)
{
    size_t i = find_work(state, id);
    return i < state->work_count ? &state->works[i] : NULL;
}

bool xv_state_has_work(const struct xv_active_session *session)
{
    static const struct xv_handle none;
    return memcmp(&session->work, &none, sizeof none) != 0;
}

static void close_at(struct xv_state *state, size_t index)
{
    free_work(&state->works[index]);
    state->work_count--;
    memmove(&state->works[index], &state->works[index + 1],
            (state->work_count - index) * sizeof state->works[0]);
}

int xv_state_open_work(struct xv_state *state, const struct xv_active_session *session)
{
    /* Whatever else was begun under the key is given up; so is a work of this name of another key. */
    for (size_t i = state->work_count; i-- > 0;) {
        const struct xv_work *work = &state->works[i];
        bool same_key = strcmp(work->key, session->key) == 0;
        bool same_id = memcmp(&work->id, &session->work, sizeof work->id) == 0;
        if (same_key && same_id)
            return 0;
        if (same_key || same_id)
            close_at(state, i);
    }
    if (!xv_state_has_work(session))
        return 0;
    struct xv_work *grown = realloc(state->works, (state->work_count + 1) * sizeof *grown);
    if (grown == NULL)
        return XVSA_ERR_MEMORY;
    state->works = grown;
    struct xv_work work = {.id = session->work, .key = strdup(session->key), .opened = state->tail};
    if (work.key == NULL)
        return XVSA_ERR_MEMORY;
    grown[state->work_count++] = work;
    return 0;
}

void xv_state_close_work(struct xv_state *state, const struct xv_active_session *session)
{
    size_t i = find_work(state, session->work.bytes);
    if (i < state->work_count && xv_state_has_work(session) && strcmp(session->kind, "backup") == 0)
        close_at(state, i);
}

static int read_fact(const json_t *object, struct xv_work_fact *fact)
{
    const char *content = json_string_value(json_object_get(object, "content"));
    const char *disk = json_string_value(json_object_get(object, "key"));
    if (content == NULL || disk == NULL || strlen(disk) > DISK_KEY_MAX ||
        xv_json_hex(object, "id", fact->id.bytes, XV_HANDLE_BYTES) != 0 ||
        xv_json_hex(object, "digest", fact->digest, sizeof fact->digest) != 0 ||
        xv_json_u64(object, "length", &fact->length) != 0)
        return XVSA_ERR_CORRUPT;
    if (strcmp(content, "map") == 0)
        fact->content = XV_WORK_MAP;
    else
        fact->content = strcmp(content, "done") == 0 ? XV_WORK_DONE : XV_WORK_OTHER;
    fact->disk = strdup(disk);
    return fact->disk == NULL ? XVSA_ERR_MEMORY : 0;
}

static int add_fact(struct xv_work *work, const struct xv_work_fact *fact)
{
    if (work->fact_count == work->fact_capacity) {
        size_t capacity = work->fact_capacity == 0 ? 16 : work->fact_capacity * 2;
        struct xv_work_fact *grown = realloc(work->facts, capacity * sizeof *grown);
        if (grown == NULL)
            return XVSA_ERR_MEMORY;
        work->facts = grown;
        work->fact_capacity = capacity;
    }
    work->facts[work->fact_count++] = *fact;
    return 0;
}

int xv_state_apply_progress(struct xv_state *state, const json_t *record)
{
    struct xv_handle sid, wid;
    const json_t *objects = json_object_get(record, "objects");
    if (xv_json_hex(record, "session", sid.bytes, sizeof sid.bytes) != 0 ||
        xv_json_hex(record, "work", wid.bytes, sizeof wid.bytes) != 0 || !json_is_array(objects))
        return XVSA_ERR_CORRUPT;
    const struct xv_active_session *session = xv_state_session(state, sid.bytes);
    size_t i = find_work(state, wid.bytes);
    struct xv_work *work = NULL;
    if (session != NULL && i < state->work_count && memcmp(&session->work, &wid, sizeof wid) == 0)
        work = &state->works[i];
    if (work != NULL)
        work->records++;
    /* What is wrong is damage, whether the record is void or not. */
    for (size_t k = 0; k < json_array_size(objects); k++) {
        struct xv_work_fact fact = {.session = sid, .record = work == NULL ? 0 : work->records};
        int rc = read_fact(json_array_get(objects, k), &fact);
        if (rc == 0 && work != NULL)
            rc = add_fact(work, &fact);
        if (rc != 0 || work == NULL)
            free(fact.disk);
        if (rc != 0)
            return rc;
    }
    return work == NULL ? 0 : 1;
}
