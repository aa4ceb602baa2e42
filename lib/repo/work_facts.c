/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/work_facts.h"

#include <stdlib.h>

#include "diff/extents.h"

int xv_work_parse(const char *work_id, uint8_t *ret, xvsa_error **error)
{
    if (work_id == NULL || strlen(work_id) != 2 * XV_HANDLE_BYTES ||
        xv_hex_decode(work_id, ret, XV_HANDLE_BYTES) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "repo", "a work is named by 32 hex digits");
    return 0;
}

static int read_told(struct xv_repo *repo, const struct xv_work_fact *fact, struct xv_told *ret,
                     const struct xv_call *call, xvsa_error **error)
{
    char name[XV_NAME_BYTES];
    uint8_t *data = NULL;
    uint64_t length = 0;
    size_t body_length = 0;
    uint8_t digest[32];
    xv_handle_name("w", fact->id.bytes, name);
    int rc = xv_target_get_all(repo->target, name, XV_PROGRESS_MAX, &data, &length, call, error);
    if (rc != 0)
        return rc;
    rc = xv_sha256(data, (size_t)length, digest, error);
    if (rc == 0 && memcmp(digest, fact->digest, sizeof digest) != 0)
        rc = xv_fault(error, name, "it is not what the journal names");
    if (rc == 0)
        rc = xv_object_unseal(repo->crypt, XV_TYPE_PROGRESS, name, data, (size_t)length, &ret->body,
                              &body_length, error);
    free(data);
    if (rc == 0)
        rc = xv_progress_decode(name, ret->body, body_length, xv_repo_chunk_size(repo),
                                &ret->progress, error);
    if (rc == 0 && (ret->progress.content != (uint8_t)fact->content ||
                    ret->progress.key_length != strlen(fact->disk) ||
                    memcmp(ret->progress.key, fact->disk, ret->progress.key_length) != 0))
        rc = xv_fault(error, name, "it tells of something else than the journal says");
    return rc;
}

int xv_told_read(struct xv_repo *repo, const struct xv_work_fact *fact, struct xv_told *ret,
                 const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *e = NULL;
    *ret = (struct xv_told){0};
    int rc = read_told(repo, fact, ret, call, &e);
    if (rc == 0)
        return 0;
    free(ret->body);
    ret->body = NULL;
    if (rc == XVSA_ERR_NOT_FOUND || xv_fault_is_damage(rc)) {
        xv_log(repo->env, XVSA_LOG_WARNING, "repo", "progress on disk %s is left out: %s",
               fact->disk, xvsa_error_message(e));
        xvsa_error_unref(e);
        return 0;
    }
    if (error != NULL)
        *error = e;
    else
        xvsa_error_unref(e);
    return rc;
}

int xv_facts_copy(const struct xv_work *work, const char *key, enum xv_work_content content,
                  size_t from, struct xv_facts *ret, xvsa_error **error)
{
    *ret = (struct xv_facts){.seen = work->fact_count};
    if (from >= work->fact_count)
        return 0;
    ret->list = malloc((work->fact_count - from) * sizeof *ret->list);
    if (ret->list == NULL)
        return xv_fail_memory(error);
    for (size_t i = from; i < work->fact_count; i++) {
        const struct xv_work_fact *fact = &work->facts[i];
        if (fact->content != content || strcmp(fact->disk, key) != 0)
            continue;
        ret->list[ret->count] = *fact;
        ret->list[ret->count++].disk = (char *)key;
    }
    return 0;
}

int xv_told_add(struct xv_extents *set, const struct xv_progress *progress, uint32_t chunk_size,
                const struct xv_progress_run *run, xvsa_error **error)
{
    uint64_t offset = run->first * chunk_size;
    uint64_t left = progress->size - offset;
    uint64_t length = run->count * chunk_size;
    return xv_extents_add(set, offset, length < left ? length : left, error);
}
