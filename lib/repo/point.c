/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Restore points: reading their objects, finding and deleting them.
 */
#include <stdlib.h>

#include "repo/session.h"

#define DISKS_MAX 4096u
#define ENDED_MAX 32u /* records of which a bit tells whether they were accepted */

static const char *text_member(const json_t *object, const char *member)
{
    return json_string_value(json_object_get(object, member));
}

static int decode_root(const json_t *root, struct xv_root *ret)
{
    uint64_t kind, level, offset, length;
    if (xv_json_u64(root, "kind", &kind) != 0 || xv_json_u64(root, "level", &level) != 0 ||
        kind > XV_KIND_DATA || level >= XV_LEVELS)
        return -1;
    ret->kind = (uint8_t)kind;
    ret->level = (uint8_t)level;
    if (kind != XV_KIND_DATA)
        return 0;
    if (xv_json_hex(root, "id", ret->ref.id, XV_ID_BYTES) != 0 ||
        xv_json_hex(root, "pack", ret->ref.at.pack, XV_HANDLE_BYTES) != 0 ||
        xv_json_u64(root, "offset", &offset) != 0 || xv_json_u64(root, "length", &length) != 0 ||
        offset > UINT32_MAX || length > UINT32_MAX)
        return -1;
    ret->ref.at.offset = (uint32_t)offset;
    ret->ref.at.length = (uint32_t)length;
    return 0;
}

static void decode_stats(const json_t *stats, struct xv_store_stats *ret)
{
    /* For display only: what is missing counts as 0. */
    (void)xv_json_u64(stats, "read", &ret->bytes_read);
    (void)xv_json_u64(stats, "kept", &ret->bytes_kept);
    (void)xv_json_u64(stats, "zero", &ret->bytes_zero);
    (void)xv_json_u64(stats, "same", &ret->bytes_same);
    (void)xv_json_u64(stats, "known", &ret->bytes_known);
    (void)xv_json_u64(stats, "new", &ret->bytes_new);
    (void)xv_json_u64(stats, "stored", &ret->bytes_stored);
    (void)xv_json_u64(stats, "adopted", &ret->bytes_adopted);
}

json_t *xv_stats_json(const struct xv_store_stats *stats)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "read",
                     (json_int_t)stats->bytes_read, "kept", (json_int_t)stats->bytes_kept, "zero",
                     (json_int_t)stats->bytes_zero, "same", (json_int_t)stats->bytes_same, "known",
                     (json_int_t)stats->bytes_known, "new", (json_int_t)stats->bytes_new, "stored",
                     (json_int_t)stats->bytes_stored, "adopted", (json_int_t)stats->bytes_adopted);
}

static int decode_disk(const json_t *row, struct xv_stored_disk *disk)
{
    disk->facts.key = text_member(row, "key");
    disk->facts.device = text_member(row, "device");
    disk->facts.metadata = text_member(row, "metadata");
    if (disk->facts.key == NULL || disk->facts.device == NULL || disk->facts.metadata == NULL ||
        xv_json_u64(row, "size", &disk->facts.size) != 0 ||
        decode_root(json_object_get(row, "root"), &disk->root) != 0)
        return -1;
    decode_stats(json_object_get(row, "stats"), &disk->stats);
    return 0;
}

int xv_point_decode(const char *object, const uint8_t *body, size_t length, struct xv_point *ret,
                    xvsa_error **error)
{
    static const char *const texts[] = {"vm_uuid", "vm_name", "pool_uuid", "job_id", "metadata"};
    uint64_t taken;
    json_error_t why;
    ret->body = json_loadb((const char *)body, length, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(ret->body) || xv_json_u64(ret->body, "taken", &taken) != 0 ||
        xv_json_hex(ret->body, "point", ret->id_bytes, XV_HANDLE_BYTES) != 0)
        return xv_fault(error, object, "its content is not a restore point");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (text_member(ret->body, texts[i]) == NULL)
            return xv_fault(error, object, "its member '%s' is missing", texts[i]);
    }
    const json_t *disks = json_object_get(ret->body, "disks");
    size_t count = json_array_size(disks);
    if (!json_is_array(disks) || count > DISKS_MAX)
        return xv_fault(error, object, "its list of disks is not one");
    ret->disks = calloc(count + 1, sizeof *ret->disks);
    if (ret->disks == NULL)
        return xv_fail_memory(error);
    ret->disk_count = count;
    for (size_t i = 0; i < count; i++) {
        if (decode_disk(json_array_get(disks, i), &ret->disks[i]) != 0)
            return xv_fault(error, object, "its disk %zu cannot be understood", i);
    }
    xv_hex_encode(ret->id_bytes, XV_HANDLE_BYTES, ret->id);
    return 0;
}

void xv_point_clear(struct xv_point *point)
{
    free(point->disks);
    json_decref(point->body);
    point->disks = NULL;
    point->body = NULL;
}

static int read_body(struct xv_repo *repo, const char *name, const uint8_t *digest,
                     struct xv_point *point, const struct xv_call *call, xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    uint8_t *body = NULL;
    size_t body_length = 0;
    uint8_t found[32];
    int rc = xv_target_get_all(repo->target, name, XV_POINT_MAX, &data, &length, call, error);
    if (rc == XVSA_ERR_NOT_FOUND) {
        xv_fault_drop(error);
        return xv_fault(error, name, "it is missing");
    }
    if (rc != 0)
        return rc;
    rc = xv_object_unseal(repo->crypt, XV_TYPE_POINT, name, data, (size_t)length, &body,
                          &body_length, error);
    if (rc == 0)
        rc = xv_sha256(data, (size_t)length, found, error);
    if (rc == 0 && memcmp(found, digest, sizeof found) != 0)
        rc = xv_fault(error, name, "it is not the one that the journal names");
    if (rc == 0)
        rc = xv_point_decode(name, body, body_length, point, error);
    free(data);
    free(body);
    return rc;
}

int xv_point_read(struct xv_repo *repo, const uint8_t *id, const uint8_t *digest,
                  int64_t committed_ms, struct xv_point **ret, const struct xv_call *call,
                  xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    struct xv_point *point = calloc(1, sizeof *point);
    if (point == NULL)
        return xv_fail_memory(error);
    atomic_init(&point->references, 1);
    point->repo = xv_repo_ref(repo);
    point->committed_ms = committed_ms;
    xv_handle_name("rp", id, name);
    int rc = read_body(repo, name, digest, point, call, error);
    if (rc == 0 && memcmp(point->id_bytes, id, XV_HANDLE_BYTES) != 0)
        rc = xv_fault(error, name, "it describes another point");
    if (rc != 0) {
        char hex[2 * XV_HANDLE_BYTES + 1];
        xv_hex_encode(id, XV_HANDLE_BYTES, hex);
        xv_point_unref(point);
        /* Which disks there are is what cannot be read. */
        return xv_fault_disk(error, rc, hex, xv_fault_is_damage(rc) ? "*" : NULL);
    }
    *ret = point;
    return 0;
}

struct xv_point *xv_point_ref(struct xv_point *point)
{
    if (point != NULL)
        atomic_fetch_add_explicit(&point->references, 1, memory_order_relaxed);
    return point;
}

void xv_point_unref(struct xv_point *point)
{
    if (point != NULL &&
        atomic_fetch_sub_explicit(&point->references, 1, memory_order_acq_rel) == 1) {
        xv_point_clear(point);
        xv_repo_unref(point->repo);
        free(point);
    }
}

const char *xv_point_id(const struct xv_point *point)
{
    return point->id;
}

const char *xv_point_vm_uuid(const struct xv_point *point)
{
    return text_member(point->body, "vm_uuid");
}

const char *xv_point_vm_name(const struct xv_point *point)
{
    return text_member(point->body, "vm_name");
}

const char *xv_point_pool_uuid(const struct xv_point *point)
{
    return text_member(point->body, "pool_uuid");
}

int64_t xv_point_taken_ms(const struct xv_point *point)
{
    return json_integer_value(json_object_get(point->body, "taken"));
}

const char *xv_point_metadata(const struct xv_point *point)
{
    return text_member(point->body, "metadata");
}

size_t xv_point_disk_count(const struct xv_point *point)
{
    return point->disk_count;
}

const struct xv_point_disk *xv_point_disk(const struct xv_point *point, size_t index)
{
    return index < point->disk_count ? &point->disks[index].facts : NULL;
}

static const struct xv_point_summary *choose(const struct xv_state *state, const char *id,
                                             bool *ret_ambiguous)
{
    static const char latest[] = "latest:";
    const struct xv_point_summary *found = NULL;
    size_t length = strlen(id);
    bool by_vm = strncmp(id, latest, sizeof latest - 1) == 0;
    *ret_ambiguous = false;
    for (size_t i = 0; i < state->point_count; i++) {
        const struct xv_point_summary *point = &state->points[i];
        char hex[2 * XV_HANDLE_BYTES + 1];
        xv_hex_encode(point->id.bytes, XV_HANDLE_BYTES, hex);
        if (by_vm) {
            const char *vm = id + sizeof latest - 1;
            if (strcmp(vm, text_member(point->record, "vm_uuid")) != 0 &&
                strcmp(vm, text_member(point->record, "vm_name")) != 0)
                continue;
            /* Two VMs may have had one name. */
            if (found != NULL && strcmp(text_member(found->record, "vm_uuid"),
                                        text_member(point->record, "vm_uuid")) != 0)
                *ret_ambiguous = true;
            if (found == NULL || json_integer_value(json_object_get(point->record, "taken")) >=
                                     json_integer_value(json_object_get(found->record, "taken")))
                found = point;
        } else if (length >= 6 && length <= sizeof hex - 1 && strncmp(hex, id, length) == 0) {
            *ret_ambiguous = *ret_ambiguous || found != NULL;
            found = point;
        }
    }
    return found;
}

int xv_point_choose(const struct xv_state *state, const char *id,
                    const struct xv_point_summary **ret, xvsa_error **error)
{
    bool ambiguous = false;
    const struct xv_point_summary *found = choose(state, id, &ambiguous);
    if (ambiguous)
        return xv_fail(error, XVSA_ERR_CONFLICT, "repo", "'%s' stands for several restore points",
                       id);
    if (found == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "there is no restore point '%s'", id);
    *ret = found;
    return 0;
}

int xv_repo_find_point(struct xv_repo *repo, const char *id, const struct xv_call *call,
                       struct xv_point **ret, xvsa_error **error)
{
    struct xv_handle handle = {{0}};
    uint8_t digest[32] = {0};
    int64_t committed_ms = 0;
    const struct xv_point_summary *found = NULL;
    int rc = xv_baton_take(&repo->journal, call, error);
    if (rc != 0)
        return rc;
    rc = xv_journal_refresh(repo, call, error);
    if (rc == 0)
        rc = xv_journal_usable(repo, id, error);
    if (rc == 0)
        rc = xv_point_choose(&repo->state, id, &found, error);
    if (rc == 0) {
        handle = found->id;
        memcpy(digest, found->digest, sizeof digest);
        committed_ms = found->committed_ms;
    }
    xv_baton_give(&repo->journal);
    if (rc != 0)
        return rc;
    return xv_point_read(repo, handle.bytes, digest, committed_ms, ret, call, error);
}

struct deleting {
    struct xv_point *point;
    unsigned ended; /* records that end dead sessions which pin it come first */
};

/* Sessions of processes that are certainly gone do not keep a point from being deleted. */
static int end_dead(struct deleting *deleting, const struct xv_state *state, json_t *records,
                    xvsa_error **error)
{
    const struct xv_point *point = deleting->point;
    deleting->ended = 0;
    for (size_t i = 0; i < state->session_count; i++) {
        const struct xv_active_session *session = &state->sessions[i];
        if (!xv_state_pins(session, point->id_bytes))
            continue;
        if (!xv_session_owner_dead(session->owner) || deleting->ended == ENDED_MAX)
            return xv_fail(error, XVSA_ERR_BUSY, "repo",
                           "restore point %s is in use by a %s of '%s'", point->id, session->kind,
                           session->key);
        json_t *end = xv_session_end_record(session->id.bytes, "aborted");
        if (end == NULL || json_array_append_new(records, end) != 0)
            return xv_fail_memory(error);
        deleting->ended++;
    }
    return 0;
}

static int make_delete(void *user, const struct xv_state *state, json_t *records,
                       xvsa_error **error)
{
    struct deleting *deleting = user;
    const struct xv_point *point = deleting->point;
    if (xv_state_point(state, point->id_bytes) == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "repo", "restore point %s is deleted already",
                       point->id);
    int rc = end_dead(deleting, state, records, error);
    if (rc != 0)
        return rc;
    json_t *record = json_pack("{s:i, s:i, s:o}", "type", XV_RECORD_RP_DELETE, "flags",
                               XV_RECORD_STOPS_WRITERS, "point", xv_json_handle(point->id_bytes));
    if (record == NULL || json_array_append_new(records, record) != 0)
        return xv_fail_memory(error);
    return 0;
}

int xv_point_delete(struct xv_point *point, const struct xv_call *call, xvsa_error **error)
{
    struct deleting deleting = {.point = point};
    uint64_t accepted = 0;
    int rc = xv_journal_append(point->repo, make_delete, &deleting, call, &accepted, error);
    if (rc == 0)
        xv_baton_give(&point->repo->journal);
    if (rc == 0 && (accepted >> deleting.ended & 1) == 0)
        rc = xv_fail(error, XVSA_ERR_BUSY, "repo", "restore point %s is in use", point->id);
    return rc;
}
