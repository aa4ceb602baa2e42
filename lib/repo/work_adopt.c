/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Adopting: places of chunks that anybody stored go into the tree of the session that will commit.
 */
#include "repo/work.h"

#include <stdlib.h>

#include "diff/extents.h"
#include "repo/session.h"
#include "repo/work_facts.h"
#define BATCH 128u

/* Places the chunks of an object, those in packs that the index does not have left out. */
static int adopt_chunks(struct xv_disk_writer *writer, const struct xv_progress *progress,
                        const bool *known, const struct xv_call *call, xvsa_error **error)
{
    struct xv_placement batch[BATCH];
    struct xv_store_stats more = {0};
    struct xv_progress_run run;
    uint32_t count = 0;
    int rc = 0;
    xv_progress_begin(&run, progress);
    while (rc == 0 && xv_progress_next(&run)) {
        for (uint64_t i = 0; rc == 0 && run.kind != XV_PROGRESS_GAP && i < run.count; i++) {
            struct xv_placement *placement = &batch[count];
            uint64_t bytes = 0;
            *placement = (struct xv_placement){.chunk = run.first + i, .kind = run.kind};
            if (run.kind == XV_KIND_DATA) {
                xv_progress_ref(&run, i, &placement->ref);
                if (!known[xv_progress_pack(&run, i)])
                    continue;
            }
            if (++count < BATCH)
                continue;
            rc = xv_disk_writer_adopt(writer, batch, count, &bytes, call, error);
            more.bytes_adopted += bytes;
            count = 0;
        }
    }
    if (rc == 0) {
        uint64_t bytes = 0;
        rc = xv_disk_writer_adopt(writer, batch, count, &bytes, call, error);
        more.bytes_adopted += bytes;
    }
    xv_disk_writer_count(writer, &more);
    return rc;
}

static int adopt_object(struct xv_disk_writer *writer, const struct xv_work_fact *fact,
                        const struct xv_call *call, xvsa_error **error)
{
    struct xv_repo *repo = writer->session->repo;
    struct xv_told told;
    int rc = xv_told_read(repo, fact, &told, call, error);
    if (rc != 0 || told.body == NULL)
        return rc;
    const struct xv_progress *progress = &told.progress;
    bool *known = calloc((size_t)progress->pack_count + 1, sizeof *known);
    if (known == NULL)
        rc = xv_fail_memory(error);
    uint32_t missing = 0;
    for (uint32_t i = 0; rc == 0 && i < progress->pack_count; i++) {
        known[i] = xv_index_has_pack(repo->index, progress->packs + (size_t)i * XV_HANDLE_BYTES);
        missing += !known[i];
    }
    if (missing > 0)
        xv_log(repo->env, XVSA_LOG_WARNING, "repo",
               "%u packs with chunks of disk %s are not in the index: those are moved again",
               missing, writer->key);
    /* A disk of another size is another disk, whatever its key says. */
    if (rc == 0 && progress->size == writer->size)
        rc = adopt_chunks(writer, progress, known, call, error);
    free(known);
    free(told.body);
    return rc;
}

/* What the journal tells beyond what this writer has dealt with. */
static int new_facts(struct xv_disk_writer *writer, struct xv_facts *ret,
                     const struct xv_call *call, xvsa_error **error)
{
    struct xv_session *session = writer->session;
    int rc = xv_journal_enter(session->repo, call, error);
    if (rc != 0)
        return rc;
    const struct xv_work *work = xv_state_work(&session->repo->state, session->work);
    rc = xv_session_check(session, &session->repo->state, error);
    if (rc == 0)
        rc = xv_facts_copy(work, writer->key, XV_WORK_DONE, writer->adopted, ret, error);
    xv_baton_give(&session->repo->journal);
    return rc;
}

static int adopt(struct xv_disk_writer *writer, const struct xv_call *call, xvsa_error **error)
{
    struct xv_session *session = writer->session;
    struct xv_facts facts = {0};
    int rc = new_facts(writer, &facts, call, error);
    /* Packs that progress names are indexed by the same entry. */
    if (rc == 0 && facts.count > 0)
        rc = xv_index_sync(session->repo->index, call, error);
    for (size_t i = 0; rc == 0 && i < facts.count; i++) {
        /* What this session did itself is in the tree. */
        if (memcmp(facts.list[i].session.bytes, session->id, XV_HANDLE_BYTES) != 0)
            rc = adopt_object(writer, &facts.list[i], call, error);
    }
    if (rc == 0)
        writer->adopted = facts.seen;
    free(facts.list);
    return rc;
}

int xv_work_adopt(struct xv_disk_writer *writer, const struct xv_call *call, struct xv_extents *ret,
                  xvsa_error **error)
{
    if (writer->have == NULL || writer->session->kind != XV_SESSION_BACKUP)
        return xv_fail(error, XVSA_ERR_INVALID, "repo",
                       "disk %s: only a backup session with a work adopts progress", writer->key);
    int rc = xv_baton_take(&writer->adopting, call, error);
    if (rc != 0)
        return rc;
    if (writer->finished)
        rc = xv_fail(error, XVSA_ERR_STATE, "repo", "disk %s is finished already", writer->key);
    if (rc == 0)
        rc = adopt(writer, call, error);
    xv_baton_give(&writer->adopting);
    return rc == 0 ? xv_disk_writer_have(writer, ret, call, error) : rc;
}
