/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One disk of a backup.
 */
#include <stdlib.h>
#include <string.h>

#include "job/passage.h"
#include "job/task.h"
#include "job/transport.h"
#include "sched/admission.h"

void xv_passage_note_transport(struct xv_passage *passage)
{
    const char *transport = xv_source_transport(&passage->source);
    struct xv_job *job = passage->disk->vm->job;
    pthread_mutex_lock(&job->lock);
    if (transport != NULL)
        passage->disk->transport = transport;
    pthread_mutex_unlock(&job->lock);
}

void xv_passage_set_mode(struct xv_passage *passage, enum xv_mode mode)
{
    struct xv_job *job = passage->backup->run->job;
    pthread_mutex_lock(&job->lock);
    passage->disk->mode = mode;
    pthread_mutex_unlock(&job->lock);
}

static int tell(void *user, enum xv_reason_code code, const char *detail, xvsa_error **error)
{
    struct xv_passage *passage = user;
    if (detail == NULL)
        return xv_run_reason(passage->disk->vm, passage->disk, error, code, NULL);
    return xv_run_reason(passage->disk->vm, passage->disk, error, code, "%s", detail);
}

static void tell_left(void *user, const char *why)
{
    struct xv_passage *passage = user;
    atomic_store(&passage->backup->attached_left, true);
    xv_run_note(passage->disk->vm, passage->disk, XV_REASON_CLEANUP_PENDING, "%s", why);
}

static int begin_writer(struct xv_passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_session *session = passage->backup->session;
    struct xv_disk_writer *writer = NULL;
    if (xv_session_base(session) == NULL)
        passage->base_index = -1;
    int rc = xv_session_add_disk(session, disk->plan->vdi_uuid, disk->plan->device, passage->size,
                                 passage->base_index, &passage->call, &writer, error);
    pthread_mutex_lock(&disk->vm->job->lock);
    disk->writer = writer;
    pthread_mutex_unlock(&disk->vm->job->lock);
    return rc;
}

/* The map that the work has, else what is found out now, which then becomes its map. */
static int find_ranges(struct xv_passage *passage, xvsa_error **error)
{
    bool known = false;
    int rc = 0;
    if (passage->disk->vm->job->task != NULL)
        rc = xv_task_recall_map(passage, &known, error);
    if (rc == 0)
        rc = begin_writer(passage, error);
    if (rc == 0 && !known)
        rc = xv_ranges_choose(passage, error);
    if (rc == 0 && !known && passage->disk->vm->job->task != NULL)
        rc = xv_task_put_map(passage, error);
    return rc;
}

static int move(struct xv_passage *passage, xvsa_error **error)
{
    struct xv_disk_run *disk = passage->disk;
    struct xv_job *job = disk->vm->job;
    uint64_t to_read = xv_extents_bytes(&passage->read);
    int rc = 0;
    if (passage->keep.count > 0)
        rc = xv_disk_writer_keep(disk->writer, &passage->keep, &passage->call, error);
    atomic_fetch_add(&job->bytes_done, passage->size - to_read);
    if (rc == 0 && job->task != NULL)
        rc = xv_passage_share(passage, error);
    else if (rc == 0)
        rc = xv_source_open(&passage->source, &passage->call, error);
    xv_passage_note_transport(passage);
    if (rc == 0 && job->task == NULL && to_read > 0)
        rc = xv_source_move(&passage->source, passage->backup->intake, &passage->read, disk->writer,
                            &passage->call, error);
    xv_passage_note_transport(passage);
    return rc;
}

/* Counts how the time of the workers was spent meanwhile. */
static int move_and_measure(struct xv_passage *passage, xvsa_error **error)
{
    struct xv_job *job = passage->disk->vm->job;
    struct xv_shares before;
    struct xv_shares after;
    xv_pipeline_shares(job->pipeline, &before);
    int rc = move(passage, error);
    xv_pipeline_shares(job->pipeline, &after);
    pthread_mutex_lock(&job->lock);
    struct xv_shares *shares = &passage->disk->shares;
    shares->source += after.source - before.source;
    shares->cpu += after.cpu - before.cpu;
    shares->target += after.target > before.target ? after.target - before.target : 0;
    shares->waiting += after.waiting - before.waiting;
    pthread_mutex_unlock(&job->lock);
    return rc;
}

static void fill_source(struct xv_passage *passage)
{
    struct xv_backup *backup = passage->backup;
    const struct xv_plan *plan = backup->run->job->plan;
    passage->source = (struct xv_source){
        .env = xv_engine_env(backup->run->job->engine),
        .client = backup->client,
        .inventory = plan->inventory,
        .spec = plan->spec,
        .host = xv_run_host(passage->disk),
        .vdi_ref = passage->disk->snapshot->vdi_ref,
        .vdi_uuid = passage->disk->snapshot->vdi_uuid,
        .size = passage->size,
        .nbd = passage->disk->plan->nbd,
        .proxy = xv_transport_proxy(passage->disk),
        .tag = backup->run->tag,
        .cancel = backup->run->cancel,
        .tell = tell,
        .left = tell_left,
        .user = passage,
        .rate = xv_job_rate(backup->run->job),
        .connections = passage->connections,
    };
}

static int pass(struct xv_passage *passage, xvsa_error **error)
{
    fill_source(passage);
    int rc = find_ranges(passage, error);
    if (rc == 0)
        rc = move_and_measure(passage, error);
    xv_source_close(&passage->source);
    xv_extents_free(&passage->read);
    xv_extents_free(&passage->keep);
    return rc;
}

int xv_backup_disk(struct xv_disk_run *disk, xvsa_error **error)
{
    struct xv_job *job = disk->vm->job;
    struct xv_passage passage = {
        .backup = disk->vm->work,
        .disk = disk,
        .call = xv_run_call(disk->vm),
        .chunk = xv_repo_chunk_size(job->plan->repo),
        .size = disk->snapshot->size,
        .base_index = disk->plan->base_index,
    };
    xv_extents_init(&passage.read);
    xv_extents_init(&passage.keep);
    size_t host = job->plan->site.proxies[disk->plan->proxy].host;
    uint32_t connections = disk->plan->nbd ? XV_SCHED_DISK_CONNECTIONS : 0;
    int64_t begun = xv_clock_ms();
    int rc = xv_slots_take(job->slots, disk->plan->proxy, host, connections, &passage.call, error);
    if (rc == 0) {
        passage.connections = connections;
        rc = xv_task_connect(disk, &passage.connections, &passage.call, error);
        xv_run_waited(disk, xv_clock_ms() - begun);
        if (rc == 0) {
            rc = pass(&passage, error);
            xv_task_disconnect(disk, passage.connections);
        }
        xv_slots_give_back(job->slots, disk->plan->proxy, host, connections);
    }
    return rc;
}
