/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The last points of many VMs, found in one reading of the journal.
 */
#include <stdlib.h>
#include <string.h>

#include "repo/internal.h"

/* A VM's last point. */
struct entry {
    const char *vm_uuid;
    int64_t taken;
    bool found;
    struct xv_handle id;
    uint8_t digest[32];
    int64_t committed_ms;
};

struct xv_latest {
    struct xv_repo *repo;
    struct entry *entries; /* in the order asked for */
    size_t count;
};

static int compare(const void *left, const void *right)
{
    const struct entry *const *a = left;
    const struct entry *const *b = right;
    return strcmp((*a)->vm_uuid, (*b)->vm_uuid);
}

static void take(struct entry *entry, const struct xv_point_summary *point)
{
    int64_t taken = json_integer_value(json_object_get(point->record, "taken"));
    if (entry->found && taken < entry->taken)
        return;
    entry->found = true;
    entry->taken = taken;
    entry->id = point->id;
    memcpy(entry->digest, point->digest, sizeof entry->digest);
    entry->committed_ms = point->committed_ms;
}

/* sorted: the entries by VM. */
static void search(const struct xv_state *state, struct entry **sorted, size_t count)
{
    for (size_t i = 0; i < state->point_count; i++) {
        const json_t *uuid = json_object_get(state->points[i].record, "vm_uuid");
        struct entry key = {.vm_uuid = json_string_value(uuid)};
        const struct entry *wanted = &key;
        struct entry **found =
            key.vm_uuid == NULL ? NULL : bsearch(&wanted, sorted, count, sizeof *sorted, compare);
        if (found != NULL)
            take(*found, &state->points[i]);
    }
}

static int fill(struct xv_latest *latest, const char *const *vms, const struct xv_call *call,
                xvsa_error **error)
{
    struct entry **sorted = calloc(latest->count + 1, sizeof *sorted);
    if (sorted == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < latest->count; i++) {
        latest->entries[i].vm_uuid = vms[i];
        sorted[i] = &latest->entries[i];
    }
    qsort(sorted, latest->count, sizeof *sorted, compare);
    int rc = xv_journal_enter(latest->repo, call, error);
    if (rc == 0) {
        search(&latest->repo->state, sorted, latest->count);
        xv_baton_give(&latest->repo->journal);
    }
    free(sorted);
    return rc;
}

int xv_repo_latest(struct xv_repo *repo, const char *const *vms, size_t count,
                   const struct xv_call *call, struct xv_latest **ret, xvsa_error **error)
{
    struct xv_latest *latest = calloc(1, sizeof *latest);
    if (latest == NULL)
        return xv_fail_memory(error);
    latest->repo = xv_repo_ref(repo);
    latest->count = count;
    latest->entries = calloc(count + 1, sizeof *latest->entries);
    int rc = latest->entries == NULL ? xv_fail_memory(error) : fill(latest, vms, call, error);
    if (rc != 0) {
        xv_latest_free(latest);
        return rc;
    }
    *ret = latest;
    return 0;
}

void xv_latest_free(struct xv_latest *latest)
{
    if (latest == NULL)
        return;
    xv_repo_unref(latest->repo);
    free(latest->entries);
    free(latest);
}

int xv_latest_point(const struct xv_latest *latest, size_t index, const struct xv_call *call,
                    struct xv_point **ret, xvsa_error **error)
{
    const struct entry *entry = &latest->entries[index];
    *ret = NULL;
    return !entry->found ? 0
                         : xv_point_read(latest->repo, entry->id.bytes, entry->digest,
                                         entry->committed_ms, ret, call, error);
}
