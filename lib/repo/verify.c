/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Verifying a repository or a point: config, key slots, journal, index and points here, packs and trees
 * in files of their own. Faults are told and counted; only what keeps from going on is an error.
 */
#include "repo/verify.h"

#include <stdlib.h>

#include "repo/key.h"

void xv_verify_tell(struct xv_verify *verify, const char *object, const char *point,
                    const char *disk, const char *message)
{
    struct xv_verify_fault fault = {object, point, disk, message};
    verify->result.faults++;
    if (verify->options->fault != NULL)
        verify->options->fault(verify->options->user, &fault);
}

int xv_verify_note(struct xv_verify *verify, int rc, xvsa_error *e, const char *object,
                   const char *point, const char *disk, xvsa_error **error)
{
    if (rc != 0 && xv_fault_is_damage(rc)) {
        const char *named = xvsa_error_detail(e, "object");
        xv_verify_tell(verify, named == NULL ? object : named, point, disk, xvsa_error_message(e));
        xvsa_error_unref(e);
        return 0;
    }
    if (rc != 0 && error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

static int read_object(struct xv_verify *verify, const char *name, uint64_t limit, uint8_t **data,
                       uint64_t *length, xvsa_error **error)
{
    int rc =
        xv_target_get_all(verify->repo->target, name, limit, data, length, verify->call, error);
    if (rc == 0) {
        verify->result.objects++;
        verify->result.bytes += *length;
    }
    return rc;
}

static int check_config(struct xv_verify *verify, xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    struct xv_config config;
    xvsa_error *e = NULL;
    int rc = read_object(verify, XV_CONFIG_NAME, XV_CONFIG_BYTES, &data, &length, &e);
    if (rc == 0)
        rc = xv_config_decode(data, (size_t)length, &config, &e);
    if (rc == 0)
        rc = xv_config_authenticate(data, verify->repo->crypt, &e);
    free(data);
    return xv_verify_note(verify, rc, e, XV_CONFIG_NAME, NULL, NULL, error);
}

static int32_t collect_name(void *sink, const char *name, const xvsa_object_info *info)
{
    (void)info;
    json_t *text = json_string(name);
    return text == NULL || json_array_append_new(sink, text) != 0 ? XVSA_ERR_MEMORY : 0;
}

static int list_names(struct xv_verify *verify, const char *prefix, json_t **ret,
                      xvsa_error **error)
{
    json_t *names = json_array();
    if (names == NULL)
        return xv_fail_memory(error);
    int rc = xv_target_list(verify->repo->target, prefix, collect_name, names, verify->call, error);
    if (rc == XVSA_ERR_MEMORY && error != NULL && *error == NULL)
        xv_fail_memory(error);
    if (rc != 0) {
        json_decref(names);
        return rc;
    }
    *ret = names;
    return 0;
}

static int check_key_slot(struct xv_verify *verify, const char *name, xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    struct xv_key_slot slot;
    xvsa_error *e = NULL;
    int rc = read_object(verify, name, XV_KEY_SLOT_BYTES, &data, &length, &e);
    if (rc == 0)
        rc = xv_key_slot_decode(data, (size_t)length, name, &slot, &e);
    xv_wipe(&slot, sizeof slot);
    free(data);
    return xv_verify_note(verify, rc, e, name, NULL, NULL, error);
}

static int check_key_slots(struct xv_verify *verify, xvsa_error **error)
{
    json_t *names = NULL;
    int rc = list_names(verify, "key/", &names, error);
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name)
    {
        if (rc == 0)
            rc = check_key_slot(verify, json_string_value(name), error);
    }
    json_decref(names);
    return rc;
}

/* Replays the journal anew. */
static int check_journal(struct xv_verify *verify, xvsa_error **error)
{
    struct xv_repo fresh = {.target = verify->repo->target,
                            .env = verify->repo->env,
                            .crypt = verify->repo->crypt,
                            .flags = XVSA_REPO_READ_ONLY,
                            .lock_fd = -1};
    xv_state_init(&fresh.state);
    int rc = xv_journal_refresh(&fresh, verify->call, error);
    verify->state = fresh.state;
    verify->result.objects += fresh.state.tail;
    if (rc != 0)
        return rc;
    char name[XV_NAME_BYTES];
    char beyond[XV_NAME_BYTES];
    xv_journal_name(fresh.state.tail + 1, name);
    xv_journal_name(fresh.state.tail + 2, beyond);
    if (fresh.damage != NULL) {
        const char *object = xvsa_error_detail(fresh.damage, "object");
        xv_verify_tell(verify, object == NULL ? name : object, NULL, NULL,
                       xvsa_error_message(fresh.damage));
        xvsa_error_unref(fresh.damage);
        return 0;
    }
    /* Whatever is listed behind the end was cut off from it, unless it was just appended. */
    json_t *names = NULL;
    rc = list_names(verify, "j/", &names, error);
    const char *last = rc == 0 && json_array_size(names) > 0
                           ? json_string_value(json_array_get(names, json_array_size(names) - 1))
                           : "";
    uint64_t length;
    xvsa_error *e = NULL;
    if (rc == 0 && strcmp(last, beyond) >= 0 &&
        xv_target_stat(verify->repo->target, name, &length, verify->call, &e) == XVSA_ERR_NOT_FOUND)
        xv_verify_tell(verify, name, NULL, NULL,
                       "a journal entry is missing: later ones are there");
    xvsa_error_unref(e);
    json_decref(names);
    return rc;
}

static int add_pack(struct xv_verify *verify, const uint8_t *pack, bool nodes, xvsa_error **error)
{
    if ((verify->pack_count & (verify->pack_count - 1)) == 0) {
        size_t capacity = verify->pack_count == 0 ? 1 : verify->pack_count * 2;
        struct xv_pack_task *packs = realloc(verify->packs, capacity * sizeof *packs);
        if (packs == NULL)
            return xv_fail_memory(error);
        verify->packs = packs;
    }
    struct xv_pack_task *task = &verify->packs[verify->pack_count++];
    memcpy(task->pack, pack, XV_HANDLE_BYTES);
    task->nodes = nodes;
    return 0;
}

/* Opens every block and checks that the ids ascend. */
static int check_blocks(struct xv_verify *verify, const struct xv_segment *segment,
                        const uint8_t *data, xvsa_error **error)
{
    uint8_t block[XV_SEGMENT_BLOCK];
    uint8_t last[XV_ID_BYTES] = {0};
    struct xv_crypt_tool *tool = NULL;
    int rc = xv_crypt_tool_new(verify->repo->crypt, &tool, error);
    for (uint32_t b = 0; rc == 0 && b < segment->blocks; b++) {
        rc = xv_segment_open_block(
            tool, segment, b, data + segment->head + (size_t)b * XV_SEGMENT_BLOCK, block, error);
        for (uint32_t i = 0; rc == 0 && i < xv_segment_block_entries(segment, b); i++) {
            struct xv_segment_entry entry;
            rc = xv_segment_entry_at(segment, block, i, &entry, error);
            if (rc == 0 && memcmp(last, entry.ref.id, XV_ID_BYTES) > 0)
                rc = xv_fault(error, segment->name, "its entries are out of order");
            if (rc == 0)
                memcpy(last, entry.ref.id, XV_ID_BYTES);
        }
    }
    xv_crypt_tool_free(tool);
    return rc;
}

/* Reads a whole segment. */
static int read_segment(struct xv_verify *verify, const struct xv_segment_fact *fact,
                        const char *name, struct xv_segment *ret, xvsa_error **error)
{
    uint8_t *data = NULL;
    uint64_t length = 0;
    struct xv_header header;
    const uint8_t *body;
    int rc = read_object(verify, name, XV_OBJECT_MAX, &data, &length, error);
    if (rc == 0)
        rc = xv_object_check(data, (size_t)length, XV_TYPE_SEGMENT, name, &header, &body, error);
    if (rc == 0 && length != fact->length)
        rc = xv_fault(error, name, "its size is not the one that the journal names");
    if (rc == 0)
        rc = xv_segment_decode(verify->repo->crypt, fact->id.bytes, data, (size_t)length, ret,
                               error);
    if (rc == 0) {
        rc = check_blocks(verify, ret, data, error);
        if (rc != 0)
            xv_segment_free(ret);
    }
    free(data);
    return rc;
}

static int check_segment(struct xv_verify *verify, const struct xv_segment_fact *fact,
                         xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    struct xv_segment segment;
    xvsa_error *e = NULL;
    xv_handle_name("ix", fact->id.bytes, name);
    int rc;
    if (verify->options->quick) {
        uint64_t length = 0;
        rc = xv_target_stat(verify->repo->target, name, &length, verify->call, &e);
        if (rc == 0 && length != fact->length)
            rc = xv_fault(&e, name, "its size is not the one that the journal names");
        if (rc == 0)
            rc = xv_index_load(verify->repo, fact, &segment, verify->call, &e);
        verify->result.objects += rc == 0;
    } else {
        rc = read_segment(verify, fact, name, &segment, &e);
    }
    if (rc != 0)
        return xv_verify_note(verify, rc, e, name, NULL, NULL, error);
    for (uint32_t i = 0; rc == 0 && i < segment.packs; i++)
        rc = add_pack(verify, segment.pack_table[i].id, segment.pack_table[i].nodes, error);
    xv_segment_free(&segment);
    return rc;
}

/* Goes through the disks of a point. */
static int check_point(struct xv_verify *verify, const struct xv_point_summary *summary,
                       bool collect, xvsa_error **error)
{
    struct xv_point *point = NULL;
    xvsa_error *e = NULL;
    char id[2 * XV_HANDLE_BYTES + 1];
    xv_hex_encode(summary->id.bytes, XV_HANDLE_BYTES, id);
    int rc = xv_point_read(verify->repo, summary->id.bytes, summary->digest, summary->committed_ms,
                           &point, verify->call, &e);
    if (rc != 0 && collect && xv_fault_is_damage(rc)) {
        xvsa_error_unref(e);
        return 0;
    }
    if (rc != 0)
        return xv_verify_note(verify, rc, e, "rp/*", id, "*", error);
    for (size_t i = 0; rc == 0 && i < point->disk_count; i++)
        rc = xv_verify_disk(verify, point, &point->disks[i], collect, error);
    if (!collect) {
        verify->result.points++;
        verify->result.objects++;
    }
    xv_point_unref(point);
    return rc;
}

/* Finds what options->point stands for. A damaged journal may hide it: that is a fault already. */
static int choose_point(struct xv_verify *verify, xvsa_error **error)
{
    xvsa_error *e = NULL;
    int rc = xv_point_choose(&verify->state, verify->options->point, &verify->chosen, &e);
    if (rc == XVSA_ERR_NOT_FOUND && verify->result.faults > 0)
        rc = 0;
    if (rc != 0 && error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

static int check_points(struct xv_verify *verify, bool collect, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < verify->state.point_count; i++) {
        const struct xv_point_summary *summary = &verify->state.points[i];
        if (verify->options->point == NULL || summary == verify->chosen)
            rc = check_point(verify, summary, collect, error);
    }
    return rc;
}

static int compare_wanted(const void *a, const void *b)
{
    const struct xv_wanted *x = a;
    const struct xv_wanted *y = b;
    int order = memcmp(x->pack, y->pack, XV_HANDLE_BYTES);
    if (order != 0)
        return order;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* For one point: the packs of its chunks. Its nodes are read when its trees are gone through. */
static int choose_packs(struct xv_verify *verify, xvsa_error **error)
{
    int rc = check_points(verify, true, error);
    verify->pack_count = 0;
    if (rc != 0 || verify->wanted_count == 0)
        return rc;
    qsort(verify->wanted, verify->wanted_count, sizeof *verify->wanted, compare_wanted);
    for (size_t i = 0; rc == 0 && i < verify->wanted_count; i++) {
        if (i == 0 ||
            memcmp(verify->wanted[i].pack, verify->wanted[i - 1].pack, XV_HANDLE_BYTES) != 0)
            rc = add_pack(verify, verify->wanted[i].pack, false, error);
    }
    return rc;
}

static int compare_packs(const void *a, const void *b)
{
    return memcmp(((const struct xv_pack_task *)a)->pack, ((const struct xv_pack_task *)b)->pack,
                  XV_HANDLE_BYTES);
}

/* Checkpoints may have put one pack into two segments. */
static void drop_doubles(struct xv_verify *verify)
{
    size_t kept = 0;
    if (verify->pack_count > 1)
        qsort(verify->packs, verify->pack_count, sizeof *verify->packs, compare_packs);
    for (size_t i = 0; i < verify->pack_count; i++) {
        if (kept == 0 || compare_packs(&verify->packs[kept - 1], &verify->packs[i]) != 0)
            verify->packs[kept++] = verify->packs[i];
    }
    verify->pack_count = kept;
}

static int run(struct xv_verify *verify, xvsa_error **error)
{
    int rc = check_config(verify, error);
    if (rc == 0)
        rc = check_key_slots(verify, error);
    if (rc == 0)
        rc = check_journal(verify, error);
    for (size_t i = 0; rc == 0 && i < verify->state.segment_count; i++)
        rc = check_segment(verify, &verify->state.segments[i], error);
    if (rc == 0 && verify->options->point != NULL)
        rc = choose_point(verify, error);
    if (rc == 0 && verify->options->point != NULL)
        rc = choose_packs(verify, error);
    drop_doubles(verify);
    if (rc == 0)
        rc = xv_verify_packs(verify, error);
    if (rc == 0)
        rc = check_points(verify, false, error);
    if (rc == 0)
        xv_verify_tell_rest(verify);
    return rc;
}

int xv_repo_verify(struct xv_repo *repo, const struct xv_verify_options *options,
                   const struct xv_call *call, struct xv_verify_result *ret, xvsa_error **error)
{
    struct xv_verify *verify = calloc(1, sizeof *verify);
    if (verify == NULL)
        return xv_fail_memory(error);
    verify->repo = repo;
    verify->options = options;
    verify->call = call;
    pthread_mutex_init(&verify->lock, NULL);
    int rc = xv_frame_opener_new(repo->crypt, &verify->opener, error);
    if (rc == 0)
        rc = run(verify, error);
    *ret = verify->result;
    for (size_t i = 0; i < verify->bad_count; i++)
        free(verify->bad[i].message);
    free(verify->bad);
    free(verify->packs);
    free(verify->wanted);
    xvsa_error_unref(verify->failure);
    xv_verify_tree_free(verify);
    xv_frame_opener_free(verify->opener);
    xv_state_free(&verify->state);
    pthread_mutex_destroy(&verify->lock);
    free(verify);
    return rc;
}
