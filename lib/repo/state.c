/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/state.h"

#include <stdlib.h>
#include <xxhash.h>

#include "repo/fault.h"

#define TEXT_MAX 4096

void xv_state_init(struct xv_state *state)
{
    *state = (struct xv_state){0};
}

static void free_session(struct xv_active_session *session)
{
    free(session->kind);
    free(session->key);
    free(session->owner);
    free(session->pins);
}

void xv_state_free(struct xv_state *state)
{
    for (size_t i = 0; i < state->session_count; i++)
        free_session(&state->sessions[i]);
    for (size_t i = 0; i < state->token_count; i++)
        free(state->tokens[i].key);
    for (size_t i = 0; i < state->point_count; i++)
        json_decref(state->points[i].record);
    free(state->sessions);
    free(state->tokens);
    free(state->token_slots);
    free(state->points);
    free(state->segments);
    free(state->deleted);
    xv_state_free_works(state);
    xv_state_init(state);
}

int xv_json_hex(const json_t *object, const char *member, uint8_t *ret, size_t length)
{
    const json_t *text = json_object_get(object, member);
    if (!json_is_string(text) || json_string_length(text) != 2 * length)
        return -1;
    return xv_hex_decode(json_string_value(text), ret, length);
}

int xv_json_u64(const json_t *object, const char *member, uint64_t *ret)
{
    const json_t *number = json_object_get(object, member);
    if (!json_is_integer(number) || json_integer_value(number) < 0)
        return -1;
    *ret = (uint64_t)json_integer_value(number);
    return 0;
}

json_t *xv_json_handle(const uint8_t *id)
{
    char hex[2 * XV_HANDLE_BYTES + 1];
    xv_hex_encode(id, XV_HANDLE_BYTES, hex);
    return json_string(hex);
}

/* Room for one more element; NULL without memory. The count stays for the caller to raise. */
static void *grow(void *array, size_t count, size_t size)
{
    if ((count & (count - 1)) != 0)
        return array;
    return realloc(array, (count == 0 ? 1 : 2 * count) * size);
}

static size_t find_session(const struct xv_state *state, const uint8_t *id)
{
    size_t i = 0;
    while (i < state->session_count &&
           memcmp(state->sessions[i].id.bytes, id, XV_HANDLE_BYTES) != 0)
        i++;
    return i;
}

static size_t find_point(const struct xv_state *state, const uint8_t *id)
{
    size_t i = 0;
    while (i < state->point_count && memcmp(state->points[i].id.bytes, id, XV_HANDLE_BYTES) != 0)
        i++;
    return i;
}

const struct xv_active_session *xv_state_session(const struct xv_state *state, const uint8_t *id)
{
    size_t i = find_session(state, id);
    return i < state->session_count ? &state->sessions[i] : NULL;
}

const struct xv_point_summary *xv_state_point(const struct xv_state *state, const uint8_t *id)
{
    size_t i = find_point(state, id);
    return i < state->point_count ? &state->points[i] : NULL;
}

bool xv_state_pins(const struct xv_active_session *session, const uint8_t *point)
{
    for (size_t i = 0; i < session->pin_count; i++) {
        if (memcmp(session->pins[i].bytes, point, XV_HANDLE_BYTES) == 0)
            return true;
    }
    return false;
}

static bool is_pinned(const struct xv_state *state, const uint8_t *point)
{
    for (size_t i = 0; i < state->session_count; i++) {
        if (xv_state_pins(&state->sessions[i], point))
            return true;
    }
    return false;
}

/* The slot of a key: where it is or where it would go. There are slots. */
static size_t *token_slot(const struct xv_state *state, const char *key)
{
    size_t mask = state->token_slot_count - 1;
    size_t at = (size_t)XXH3_64bits(key, strlen(key)) & mask;
    while (state->token_slots[at] != 0 &&
           strcmp(state->tokens[state->token_slots[at] - 1].key, key) != 0)
        at = (at + 1) & mask;
    return &state->token_slots[at];
}

/* Room for one more key; false without memory. */
static bool reserve_slots(struct xv_state *state)
{
    if (2 * (state->token_count + 1) <= state->token_slot_count)
        return true;
    size_t count = state->token_slot_count == 0 ? 64 : 2 * state->token_slot_count;
    size_t *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return false;
    free(state->token_slots);
    state->token_slots = slots;
    state->token_slot_count = count;
    for (size_t i = 0; i < state->token_count; i++)
        *token_slot(state, state->tokens[i].key) = i + 1;
    return true;
}

static struct xv_job_token *find_token(const struct xv_state *state, const char *key)
{
    size_t place = state->token_slot_count == 0 ? 0 : *token_slot(state, key);
    return place == 0 ? NULL : &state->tokens[place - 1];
}

uint64_t xv_state_token(const struct xv_state *state, const char *key)
{
    const struct xv_job_token *found = find_token(state, key);
    return found == NULL ? 0 : found->token;
}

static void end_session(struct xv_state *state, size_t index)
{
    free_session(&state->sessions[index]);
    state->session_count--;
    memmove(&state->sessions[index], &state->sessions[index + 1],
            (state->session_count - index) * sizeof state->sessions[0]);
}

/* Returns false without memory. */
static bool set_token(struct xv_state *state, const char *key, uint64_t token)
{
    struct xv_job_token *found = find_token(state, key);
    if (found != NULL) {
        found->token = token;
        return true;
    }
    struct xv_job_token *tokens = grow(state->tokens, state->token_count, sizeof *tokens);
    if (tokens == NULL)
        return false;
    state->tokens = tokens;
    char *copy = strdup(key);
    if (copy == NULL || !reserve_slots(state)) {
        free(copy);
        return false;
    }
    tokens[state->token_count] = (struct xv_job_token){copy, token};
    state->token_count++;
    *token_slot(state, copy) = state->token_count;
    return true;
}

/* Pins of points that are not live at this position fail, and the session goes on without them. */
static int read_pins(const struct xv_state *state, const json_t *record,
                     struct xv_active_session *session)
{
    const json_t *pins = json_object_get(record, "pins");
    size_t count = json_array_size(pins);
    session->pins = count == 0 ? NULL : calloc(count, sizeof *session->pins);
    if (count > 0 && session->pins == NULL)
        return XVSA_ERR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(pins, i));
        struct xv_handle pin;
        if (text == NULL || strlen(text) != 2 * XV_HANDLE_BYTES ||
            xv_hex_decode(text, pin.bytes, XV_HANDLE_BYTES) != 0)
            return XVSA_ERR_CORRUPT;
        if (xv_state_point(state, pin.bytes) != NULL)
            session->pins[session->pin_count++] = pin;
    }
    return 0;
}

/* Where an id is among the deleted ones, or would be. */
static size_t deleted_place(const struct xv_state *state, const uint8_t *id, bool *ret_there)
{
    size_t low = 0, high = state->deleted_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(state->deleted[middle].bytes, id, XV_HANDLE_BYTES) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_there =
        low < state->deleted_count && memcmp(state->deleted[low].bytes, id, XV_HANDLE_BYTES) == 0;
    return low;
}

/* The functions below return 1 for accepted, 0 for void, or a negative code. */

static int add_session(struct xv_state *state, struct xv_active_session *session)
{
    struct xv_active_session *grown = grow(state->sessions, state->session_count, sizeof *grown);
    if (grown == NULL)
        return XVSA_ERR_MEMORY;
    state->sessions = grown;
    if (!set_token(state, session->key, session->token))
        return XVSA_ERR_MEMORY;
    /* Older sessions of the same work are fenced by the newer one. */
    for (size_t i = state->session_count; i-- > 0;) {
        if (strcmp(state->sessions[i].key, session->key) == 0)
            end_session(state, i);
    }
    state->sessions[state->session_count++] = *session;
    return 1;
}

static int apply_begin(struct xv_state *state, const json_t *record)
{
    struct xv_active_session session = {.begun = state->tail};
    const char *kind = json_string_value(json_object_get(record, "kind"));
    const char *key = json_string_value(json_object_get(record, "key"));
    const char *owner = json_string_value(json_object_get(record, "owner"));
    if (kind == NULL || key == NULL || owner == NULL || strlen(key) > TEXT_MAX ||
        xv_json_hex(record, "session", session.id.bytes, XV_HANDLE_BYTES) != 0 ||
        xv_json_u64(record, "token", &session.token) != 0)
        return XVSA_ERR_CORRUPT;
    bool shared = strcmp(kind, "backup") == 0 || strcmp(kind, "part") == 0;
    if (shared && json_object_get(record, "work") != NULL &&
        xv_json_hex(record, "work", session.work.bytes, XV_HANDLE_BYTES) != 0)
        return XVSA_ERR_CORRUPT;
    if (session.token <= xv_state_token(state, key) ||
        xv_state_session(state, session.id.bytes) != NULL)
        return 0;
    session.kind = strdup(kind);
    session.key = strdup(key);
    session.owner = strdup(owner);
    int rc = session.kind == NULL || session.key == NULL || session.owner == NULL
                 ? XVSA_ERR_MEMORY
                 : read_pins(state, record, &session);
    if (rc == 0 && strcmp(kind, "backup") == 0)
        rc = xv_state_open_work(state, &session);
    if (rc == 0)
        rc = add_session(state, &session);
    if (rc != 1)
        free_session(&session);
    return rc;
}

static int apply_index_add(struct xv_state *state, const json_t *record)
{
    uint8_t sid[XV_HANDLE_BYTES];
    if (xv_json_hex(record, "session", sid, sizeof sid) != 0)
        return XVSA_ERR_CORRUPT;
    if (xv_state_session(state, sid) == NULL)
        return 0;
    const json_t *segments = json_object_get(record, "segments");
    size_t i;
    const json_t *segment;
    json_array_foreach((json_t *)segments, i, segment)
    {
        struct xv_segment_fact fact;
        uint64_t head, entries;
        if (xv_json_hex(segment, "id", fact.id.bytes, XV_HANDLE_BYTES) != 0 ||
            xv_json_u64(segment, "length", &fact.length) != 0 ||
            xv_json_u64(segment, "head", &head) != 0 ||
            xv_json_u64(segment, "entries", &entries) != 0 || head > fact.length ||
            head > UINT32_MAX || entries > UINT32_MAX)
            return XVSA_ERR_CORRUPT;
        fact.head = (uint32_t)head;
        fact.entries = (uint32_t)entries;
        struct xv_segment_fact *grown = grow(state->segments, state->segment_count, sizeof *grown);
        if (grown == NULL)
            return XVSA_ERR_MEMORY;
        state->segments = grown;
        grown[state->segment_count++] = fact;
    }
    return 1;
}

static int apply_commit(struct xv_state *state, json_t *record, int64_t written_ms)
{
    static const char *const texts[] = {"vm_uuid", "vm_name", "pool_uuid"};
    static const char *const numbers[] = {"taken", "size", "stored", "disks"};
    struct xv_point_summary point = {.committed_ms = written_ms};
    uint8_t sid[XV_HANDLE_BYTES];
    uint64_t ignored;
    if (xv_json_hex(record, "session", sid, sizeof sid) != 0 ||
        xv_json_hex(record, "point", point.id.bytes, XV_HANDLE_BYTES) != 0 ||
        xv_json_hex(record, "digest", point.digest, sizeof point.digest) != 0)
        return XVSA_ERR_CORRUPT;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (!json_is_string(json_object_get(record, texts[i])))
            return XVSA_ERR_CORRUPT;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (xv_json_u64(record, numbers[i], &ignored) != 0)
            return XVSA_ERR_CORRUPT;
    }
    const struct xv_active_session *session = xv_state_session(state, sid);
    bool deleted = false;
    deleted_place(state, point.id.bytes, &deleted);
    if (session == NULL || deleted || xv_state_point(state, point.id.bytes) != NULL)
        return 0;
    struct xv_point_summary *grown = grow(state->points, state->point_count, sizeof *grown);
    if (grown == NULL)
        return XVSA_ERR_MEMORY;
    xv_state_close_work(state, session);
    state->points = grown;
    point.record = json_incref(record);
    grown[state->point_count++] = point;
    return 1;
}

static int apply_end(struct xv_state *state, const json_t *record)
{
    uint8_t sid[XV_HANDLE_BYTES];
    if (xv_json_hex(record, "session", sid, sizeof sid) != 0)
        return XVSA_ERR_CORRUPT;
    size_t i = find_session(state, sid);
    if (i == state->session_count)
        return 0;
    const char *outcome = json_string_value(json_object_get(record, "outcome"));
    if (outcome == NULL || strcmp(outcome, "parked") != 0)
        xv_state_close_work(state, &state->sessions[i]);
    end_session(state, i);
    return 1;
}

static int apply_delete(struct xv_state *state, const json_t *record)
{
    uint8_t id[XV_HANDLE_BYTES];
    if (xv_json_hex(record, "point", id, sizeof id) != 0)
        return XVSA_ERR_CORRUPT;
    size_t i = find_point(state, id);
    if (i == state->point_count || is_pinned(state, id))
        return 0;
    struct xv_handle *grown = grow(state->deleted, state->deleted_count, sizeof *grown);
    if (grown == NULL)
        return XVSA_ERR_MEMORY;
    state->deleted = grown;
    bool there;
    size_t place = deleted_place(state, id, &there);
    memmove(&grown[place + 1], &grown[place], (state->deleted_count - place) * sizeof *grown);
    memcpy(grown[place].bytes, id, sizeof id);
    state->deleted_count++;
    json_decref(state->points[i].record);
    state->point_count--;
    memmove(&state->points[i], &state->points[i + 1],
            (state->point_count - i) * sizeof state->points[0]);
    return 1;
}

static int apply_unknown(struct xv_state *state, uint64_t flags)
{
    if ((flags & XV_RECORD_STOPS_READERS) != 0)
        state->read_blocked = state->write_blocked = true;
    if ((flags & XV_RECORD_STOPS_WRITERS) != 0)
        state->write_blocked = true;
    return 1;
}

static int apply_record(struct xv_state *state, json_t *record, int64_t written_ms)
{
    uint64_t type, flags;
    if (xv_json_u64(record, "type", &type) != 0 || xv_json_u64(record, "flags", &flags) != 0)
        return XVSA_ERR_CORRUPT;
    switch (type) {
    case XV_RECORD_SESSION_BEGIN:
        return apply_begin(state, record);
    case XV_RECORD_INDEX_ADD:
        return apply_index_add(state, record);
    case XV_RECORD_RP_COMMIT:
        return apply_commit(state, record, written_ms);
    case XV_RECORD_SESSION_END:
        return apply_end(state, record);
    case XV_RECORD_RP_DELETE:
        return apply_delete(state, record);
    case XV_RECORD_PROGRESS:
        return xv_state_apply_progress(state, record);
    default:
        return apply_unknown(state, flags);
    }
}

int xv_state_apply(struct xv_state *state, const json_t *entry, const char *object,
                   uint64_t *ret_accepted, xvsa_error **error)
{
    uint64_t seq, written;
    const json_t *records = json_object_get(entry, "records");
    if (xv_json_u64(entry, "seq", &seq) != 0 || xv_json_u64(entry, "written", &written) != 0 ||
        !json_is_array(records) || seq != state->tail + 1)
        return xv_fault(error, object, "it is not the journal entry that should be there");
    state->tail = seq;
    *ret_accepted = 0;
    for (size_t i = 0; i < json_array_size(records); i++) {
        int rc = apply_record(state, json_array_get(records, i), (int64_t)written);
        if (rc == XVSA_ERR_MEMORY)
            return xv_fail_memory(error);
        if (rc < 0)
            return xv_fault(error, object, "its record %zu cannot be understood", i);
        if (rc == 1 && i < 64)
            *ret_accepted |= 1ull << i;
    }
    return 0;
}
