/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON document "report". The caller holds the job's lock.
 */
#include <stdlib.h>

#include "job/task.h"

static json_t *shares_to_json(const struct xv_shares *shares)
{
    double whole = (double)shares->source + (double)shares->cpu + (double)shares->target +
                   (double)shares->waiting;
    if (whole <= 0)
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f}", "source", (double)shares->source / whole, "cpu",
                     (double)shares->cpu / whole, "target", (double)shares->target / whole,
                     "waiting", (double)shares->waiting / whole);
}

static json_t *stats_to_json(const struct xv_disk_run *disk)
{
    const struct xv_store_stats *stats = &disk->stats;
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "read",
        xv_json_count(stats->bytes_read), "kept", xv_json_count(stats->bytes_kept), "zero",
        xv_json_count(stats->bytes_zero), "same", xv_json_count(stats->bytes_same), "known",
        xv_json_count(stats->bytes_known), "new", xv_json_count(stats->bytes_new), "stored",
        xv_json_count(stats->bytes_stored), "audited", xv_json_count(disk->bytes_audited),
        "adopted", xv_json_count(stats->bytes_adopted), "twice", xv_json_count(disk->bytes_twice));
}

/* Without helpers, the disk's proxy did it all. */
static json_t *movers_to_json(const struct xv_disk_run *disk)
{
    const struct xv_plan *plan = disk->vm->job->plan;
    if (disk->movers != NULL)
        return json_incref(disk->movers);
    json_t *array = json_array();
    uint64_t bytes =
        plan->spec->type == XV_JOB_BACKUP ? disk->stats.bytes_read : disk->bytes_written;
    if (bytes > 0 && disk->plan->proxy < plan->proxy_count)
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:i}", "proxy",
                             xv_json_text(xv_proxy_name(plan->proxies[disk->plan->proxy])), "bytes",
                             xv_json_count(bytes), "units", 1));
    return array;
}

static json_t *disk_to_json(const struct xv_job *job, const struct xv_disk_run *disk)
{
    json_t *object = xv_plan_disk_to_json(job->plan, disk->plan);
    int64_t end = disk->ended_ms != 0 ? disk->ended_ms : xv_clock_ms();
    json_object_set_new(object, "state", json_string(xv_run_state_name(disk->state)));
    json_object_set_new(object, "reasons", xv_reasons_to_json(&disk->reasons));
    if (disk->plan->skipped)
        return object;
    json_object_set_new(object, "transport", xv_json_text(disk->transport));
    json_object_set_new(object, "elapsed_ms",
                        json_integer(disk->started_ms == 0 ? 0 : end - disk->started_ms));
    if (job->plan->spec->type == XV_JOB_BACKUP) {
        json_object_set_new(object, "mode", json_string(xv_mode_name(disk->mode)));
        json_object_set_new(object, "bytes", stats_to_json(disk));
    } else {
        json_object_set_new(object, "bytes",
                            json_pack("{s:o}", "written", xv_json_count(disk->bytes_written)));
    }
    json_object_set_new(object, "shares", shares_to_json(&disk->shares));
    json_object_set_new(object, "movers", movers_to_json(disk));
    return object;
}

static json_int_t attempts_of(const struct xv_vm_run *run)
{
    const struct xv_job_task *task = run->job->task;
    return task != NULL ? (json_int_t)task->given.attempt : (json_int_t)run->attempts;
}

static json_t *vm_to_json(const struct xv_job *job, const struct xv_vm_run *run)
{
    json_t *object = xv_plan_vm_to_json(job->plan, run->plan);
    json_object_set_new(object, "state", json_string(xv_run_state_name(run->state)));
    json_object_set_new(object, "error", xv_json_error(run->error));
    json_object_set_new(object, "attempts", json_integer(attempts_of(run)));
    json_object_set_new(object, "started_ms", json_integer(run->started_ms));
    json_object_set_new(object, "ended_ms", json_integer(run->ended_ms));
    if (job->plan->spec->type == XV_JOB_BACKUP)
        json_object_set_new(object, "point",
                            run->point_id[0] == '\0' ? json_null() : json_string(run->point_id));
    else
        json_object_set_new(object, "new_uuid", xv_json_text(run->new_uuid));
    json_t *disks = json_array();
    for (size_t i = 0; i < run->disk_count; i++)
        json_array_append_new(disks, disk_to_json(job, &run->disks[i]));
    json_object_set_new(object, "disks", disks);
    json_object_set_new(object, "reasons", xv_reasons_to_json(&run->reasons));
    return object;
}

static json_t *summary_to_json(const struct xv_job *job)
{
    json_int_t states[XV_RUN_STATES] = {0};
    struct xv_shares shares = {0};
    for (size_t i = 0; i < job->vm_count; i++)
        states[job->vms[i].state]++;
    if (job->pipeline != NULL)
        xv_pipeline_shares(job->pipeline, &shares);
    else
        shares = job->shares;
    struct xv_job *counters = (struct xv_job *)(uintptr_t)job;
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "vms", (json_int_t)job->vm_count,
        "succeeded", states[XV_RUN_SUCCEEDED], "failed", states[XV_RUN_FAILED], "refused",
        states[XV_RUN_REFUSED], "cancelled", states[XV_RUN_CANCELLED] + states[XV_RUN_WAITING],
        "parked", states[XV_RUN_PARKED], "bytes_total",
        xv_json_count(atomic_load(&counters->bytes_total)), "bytes_read",
        xv_json_count(atomic_load(&counters->bytes_read)), "bytes_stored",
        xv_json_count(atomic_load(&counters->bytes_stored)), "shares", shares_to_json(&shares));
}

json_t *xv_report_to_json(struct xv_job *job, int32_t state)
{
    const struct xv_plan *plan = job->plan;
    json_t *pool = json_null();
    if (plan->pool != NULL)
        pool = xv_json_named(xv_client_pool_uuid(xv_pool_client(plan->pool)),
                             xv_client_pool_name(xv_pool_client(plan->pool)));
    json_t *object =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:{s:s}, s:o}", "job", job->id, "type",
                  xv_job_type_name(plan->spec->type), "name", plan->spec->name, "state",
                  xv_job_state_name(state), "started_ms", (json_int_t)job->started_ms, "ended_ms",
                  (json_int_t)job->ended_ms, "pool", pool, "repo", "id", xv_repo_id(plan->repo),
                  "error", xv_json_error(job->error));
    if (plan->spec->type == XV_JOB_VERIFY) {
        json_object_set(object, "verified", job->verified);
        json_object_set(object, "faults", job->faults);
        return object;
    }
    json_t *vms = json_array();
    for (size_t i = 0; i < job->vm_count; i++)
        json_array_append_new(vms, vm_to_json(job, &job->vms[i]));
    json_object_set_new(object, "vms", vms);
    json_object_set_new(object, "summary", summary_to_json(job));
    json_object_set_new(object, "omissions", xv_omissions_to_json(plan->inventory));
    return object;
}
