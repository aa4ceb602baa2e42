/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Drives the VMs of a job: several threads take them in the plan's order.
 */
#include "job/run.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/thread.h"
#include "job/task.h"

#define VM_THREADS_MAX 16u
#define CLEANUP_MS     (5 * 60 * 1000)
#define STEP_MS        (15 * 60 * 1000)
#define TICK_MS        500

static const char *const state_names[] = {"waiting",   "running", "succeeded", "failed",
                                          "cancelled", "refused", "skipped",   "parked"};

const char *xv_run_state_name(enum xv_run_state state)
{
    return state_names[state];
}

/* What our objects in the pool carry: job, VM and attempt, the owner who knows whether the job lives, and for
 * owners without a file the job's name, by which a later run recognises them. */
static void make_tag(struct xv_vm_run *run)
{
    const struct xv_job *job = run->job;
    if (job->task != NULL) {
        snprintf(run->tag, sizeof run->tag, "%s", job->task->given.tag);
        return;
    }
    const char *owner = xv_coord_owner(xv_engine_coord(job->engine));
    const char *name = job->plan->spec->name;
    int length = snprintf(run->tag, sizeof run->tag, "xvsa:%s.%zu.%u:%s", job->id, run->index,
                          run->attempts, owner);
    if (owner[0] == 'm' && name[0] != '\0')
        snprintf(run->tag + length, sizeof run->tag - (size_t)length, ":%016llx",
                 (unsigned long long)XXH64(name, strlen(name), 0));
}

static int make_run(struct xv_job *job, size_t index, xvsa_error **error)
{
    struct xv_vm_run *run = &job->vms[index];
    const struct xv_plan_vm *plan = &job->plan->vms[index];
    run->job = job;
    run->plan = plan;
    run->index = index;
    make_tag(run);
    xv_reasons_copy(&run->reasons, &plan->reasons);
    if (plan->refusal != NULL) {
        run->state = XV_RUN_REFUSED;
        run->error = xvsa_error_ref(plan->refusal);
    }
    run->disks = calloc(plan->disk_count + 1, sizeof *run->disks);
    if (run->disks == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < plan->disk_count; i++) {
        struct xv_disk_run *disk = &run->disks[i];
        disk->vm = run;
        disk->plan = &plan->disks[i];
        disk->mode = disk->plan->mode;
        disk->state = disk->plan->skipped     ? XV_RUN_SKIPPED
                      : plan->refusal != NULL ? XV_RUN_REFUSED
                                              : XV_RUN_WAITING;
        xv_reasons_copy(&disk->reasons, &disk->plan->reasons);
        run->disk_count = i + 1;
        if (disk->state == XV_RUN_WAITING)
            atomic_fetch_add(&job->bytes_total, job->plan->spec->type == XV_JOB_RESTORE
                                                    ? disk->plan->data_bytes
                                                    : disk->plan->size);
    }
    return xvsa_cancel_new(&run->cancel, error);
}

int xv_runs_make(struct xv_job *job, xvsa_error **error)
{
    job->vms = calloc(job->plan->vm_count + 1, sizeof *job->vms);
    if (job->vms == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < job->plan->vm_count; i++) {
        job->vm_count = i + 1;
        rc = make_run(job, i, error);
    }
    job->vms_total = (uint32_t)job->vm_count;
    return rc;
}

void xv_runs_free(struct xv_job *job)
{
    for (size_t i = 0; i < job->vm_count; i++) {
        struct xv_vm_run *run = &job->vms[i];
        for (size_t j = 0; j < run->disk_count; j++) {
            xv_reasons_free(&run->disks[j].reasons);
            xvsa_error_unref(run->disks[j].error);
            json_decref(run->disks[j].movers);
        }
        free(run->disks);
        free(run->new_uuid);
        xv_reasons_free(&run->reasons);
        xvsa_error_unref(run->error);
        xvsa_cancel_unref(run->cancel);
    }
    free(job->vms);
    job->vms = NULL;
    job->vm_count = 0;
}

/* Bytes of packs that the VM's session holds at most. */
static uint64_t packs_needed(const struct xv_vm_run *run)
{
    const struct xv_job *job = run->job;
    if (job->plan->spec->type != XV_JOB_BACKUP)
        return 0;
    uint64_t most = xv_session_memory(job->plan->repo);
    uint64_t bytes = 0;
    for (size_t i = 0; i < run->disk_count && bytes < most; i++)
        bytes += run->disks[i].plan->skipped ? 0 : run->disks[i].plan->size;
    return bytes < most ? bytes : most;
}

/* Waits until the memory for a VM's packs is free, or no other VM holds any. With the job's lock. */
static void await_memory(struct xv_job *job, struct xv_vm_run *run)
{
    uint64_t needed = packs_needed(run);
    while (needed > job->packs_left && job->packs_held > 0 && atomic_load(&job->cancel_level) == 0)
        xv_condition_wait(&job->changed, &job->lock, TICK_MS);
    run->packs = needed < job->packs_left ? needed : job->packs_left;
    job->packs_left -= run->packs;
    job->packs_held += run->packs;
}

/* The next VM that was not begun, else one whose time for another attempt has come; *ret_wait when there will be one
 * later. The caller holds the lock. */
static struct xv_vm_run *choose_vm(struct xv_job *job, bool *ret_wait)
{
    *ret_wait = false;
    while (job->next_vm < job->vm_count) {
        struct xv_vm_run *candidate = &job->vms[job->next_vm++];
        if (candidate->state == XV_RUN_WAITING)
            return candidate;
    }
    for (size_t i = 0; i < job->vm_count; i++) {
        struct xv_vm_run *candidate = &job->vms[i];
        if (candidate->state != XV_RUN_WAITING)
            continue;
        if (candidate->retry_ms <= xv_clock_ms())
            return candidate;
        *ret_wait = true;
    }
    return NULL;
}

/* The next VM to be done; NULL when there is none or the job is being cancelled. */
static struct xv_vm_run *take_vm(struct xv_job *job)
{
    struct xv_vm_run *run = NULL;
    bool wait = true;
    pthread_mutex_lock(&job->lock);
    while (run == NULL && wait && atomic_load(&job->cancel_level) == 0 &&
           !atomic_load(&job->parking)) {
        if (!job->suspended)
            run = choose_vm(job, &wait);
        if (run == NULL && wait)
            xv_condition_wait(&job->changed, &job->lock, TICK_MS);
    }
    if (run != NULL) {
        run->state = XV_RUN_RUNNING;
        run->attempts++;
        run->started_ms = xv_wall_ms();
        make_tag(run);
        await_memory(job, run);
    }
    pthread_mutex_unlock(&job->lock);
    return run;
}

static json_t *name_vm(const struct xv_vm_run *run)
{
    return json_pack("{s:s, s:o}", "job", run->job->id, "vm",
                     xv_json_named(run->plan->uuid, run->plan->name));
}

static enum xv_run_state state_of(const struct xv_job *job, int rc)
{
    struct xv_job *j = (struct xv_job *)(uintptr_t)job;
    if (rc == XVSA_ERR_CANCELLED && atomic_load(&j->parking))
        return XV_RUN_PARKED;
    return rc == 0 ? XV_RUN_SUCCEEDED : rc == XVSA_ERR_CANCELLED ? XV_RUN_CANCELLED : XV_RUN_FAILED;
}

static void note_outcome(struct xv_vm_run *run, int rc)
{
    struct xv_job *job = run->job;
    if (job->plan->spec->type != XV_JOB_BACKUP || rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_FENCED)
        return;
    xvsa_error *error = NULL;
    if (xv_coord_outcome_set(xv_engine_coord(job->engine), job->plan->inventory->pool_uuid,
                             run->plan->uuid, rc == 0, xv_wall_ms(), &error) != 0)
        xv_log(xv_engine_env(job->engine), XVSA_LOG_WARNING, "job", "%s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
}

/* Takes error. */
static void finish_vm(struct xv_vm_run *run, int rc, xvsa_error *error)
{
    struct xv_job *job = run->job;
    if (xv_run_retry(run, rc, error)) {
        xvsa_error_unref(error);
        return;
    }
    if (rc != 0) {
        xv_error_wrap(&error, rc, "job", "%s of VM \"%s\" (%s) failed",
                      xv_job_type_name(job->plan->spec->type), run->plan->name, run->plan->uuid);
        xv_error_set_detail(error, "vm", run->plan->uuid);
    }
    note_outcome(run, rc);
    pthread_mutex_lock(&job->lock);
    run->state = state_of(job, rc);
    run->error = error;
    run->ended_ms = xv_wall_ms();
    job->packs_left += run->packs;
    job->packs_held -= run->packs;
    pthread_cond_broadcast(&job->changed);
    for (size_t i = 0; i < run->disk_count; i++) {
        struct xv_disk_run *disk = &run->disks[i];
        if (disk->state == XV_RUN_WAITING || disk->state == XV_RUN_RUNNING)
            disk->state = state_of(job, rc);
    }
    pthread_mutex_unlock(&job->lock);
    atomic_fetch_add(&job->vms_done, 1);
    json_t *body = name_vm(run);
    json_object_set_new(body, "state", json_string(xv_run_state_name(state_of(job, rc))));
    json_object_set_new(body, "error", xv_json_error(error));
    json_object_set_new(body, "point",
                        run->point_id[0] == '\0' ? json_null() : json_string(run->point_id));
    json_object_set_new(body, "new_uuid", xv_json_text(run->new_uuid));
    xv_events_add(job->events, "vm_finished", body);
}

static void *drive(void *argument)
{
    struct xv_job *job = argument;
    bool restore = job->plan->spec->type == XV_JOB_RESTORE;
    struct xv_vm_run *run;
    while ((run = take_vm(job)) != NULL) {
        xv_events_add(job->events, "vm_started", name_vm(run));
        xvsa_error *error = NULL;
        int rc = restore ? xv_restore_vm(run, &error) : xv_backup_vm(run, &error);
        finish_vm(run, rc, error);
    }
    pthread_mutex_lock(&job->lock);
    job->running--;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

static uint32_t thread_count(const struct xv_job *job)
{
    uint32_t count = 0;
    if (job->plan->spec->parallel_vms > 0)
        return (uint32_t)job->plan->spec->parallel_vms;
    for (size_t i = 0; i < job->plan->proxy_count; i++)
        count += xv_proxy_max_disks(job->plan->proxies[i]);
    count = count < job->vms_total ? count : job->vms_total;
    return count == 0 ? 1 : count > VM_THREADS_MAX ? VM_THREADS_MAX : count;
}

void xv_job_tell_progress(struct xv_job *job)
{
    xvsa_progress progress;
    xv_job_progress(job, &progress);
    xv_events_add_progress(
        job->events,
        json_pack(
            "{s:s, s:i, s:i, s:o, s:o, s:o, s:o, s:I, s:I}", "job", job->id, "vms_done",
            (int)progress.vms_done, "vms_total", (int)progress.vms_total, "bytes_done",
            xv_json_count(progress.bytes_done), "bytes_total", xv_json_count(progress.bytes_total),
            "bytes_read", xv_json_count(progress.bytes_read), "bytes_stored",
            xv_json_count(progress.bytes_stored), "elapsed_ms", (json_int_t)progress.elapsed_ms,
            "remaining_ms", (json_int_t)progress.remaining_ms));
}

/* Waits for the threads, telling progress. */
static void watch(struct xv_job *job)
{
    pthread_mutex_lock(&job->lock);
    while (job->running > 0) {
        xv_condition_wait(&job->changed, &job->lock, TICK_MS);
        pthread_mutex_unlock(&job->lock);
        xv_job_tell_progress(job);
        xv_job_check_time(job);
        pthread_mutex_lock(&job->lock);
    }
    pthread_mutex_unlock(&job->lock);
}

int xv_runs_drive(struct xv_job *job, xvsa_error **error)
{
    uint32_t count = thread_count(job);
    pthread_t *threads = calloc(count, sizeof *threads);
    if (threads == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    uint32_t started = 0;
    for (; rc == 0 && started < count; started += rc == 0) {
        pthread_mutex_lock(&job->lock);
        job->running++;
        pthread_mutex_unlock(&job->lock);
        rc = xv_thread_start("xvsa-vm", false, drive, job, &threads[started], error);
        if (rc != 0) {
            pthread_mutex_lock(&job->lock);
            job->running--;
            pthread_mutex_unlock(&job->lock);
        }
    }
    if (rc != 0)
        xv_job_cancel(job, XVSA_CANCEL_NOW);
    watch(job);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    return rc;
}

static void add_reason(struct xv_vm_run *run, struct xv_disk_run *disk, enum xv_reason_code code,
                       const char *detail)
{
    struct xv_job *job = run->job;
    struct xv_reasons *list = disk == NULL ? &run->reasons : &disk->reasons;
    pthread_mutex_lock(&job->lock);
    bool known = xv_reasons_have(list, code);
    xv_reasons_add(list, code, detail == NULL ? NULL : "%s", detail);
    pthread_mutex_unlock(&job->lock);
    if (known)
        return;
    struct xv_reasons one = {0};
    xv_reasons_add(&one, code, detail == NULL ? NULL : "%s", detail);
    json_t *body = name_vm(run);
    json_t *array = xv_reasons_to_json(&one);
    json_object_set_new(body, "disk",
                        disk == NULL ? json_null() : xv_json_text(disk->plan->device));
    json_object_set(body, "reason", json_array_get(array, 0));
    json_decref(array);
    xv_reasons_free(&one);
    xv_events_add(job->events, "reason", body);
}

static int check_policy(struct xv_vm_run *run, struct xv_disk_run *disk, enum xv_reason_code code,
                        const char *detail, xvsa_error **error)
{
    struct xv_reasons one = {0};
    char what[256];
    xv_reasons_add(&one, code, detail == NULL ? NULL : "%s", detail);
    if (disk == NULL)
        snprintf(what, sizeof what, "VM %s", run->plan->uuid);
    else
        snprintf(what, sizeof what, "disk %s (VDI %s)", disk->plan->device, disk->plan->vdi_uuid);
    int rc = xv_reasons_check(&one, &run->job->plan->spec->refusals, what, error);
    xv_reasons_free(&one);
    return rc;
}

int xv_run_reason(struct xv_vm_run *run, struct xv_disk_run *disk, xvsa_error **error,
                  enum xv_reason_code code, const char *format, ...)
{
    char *detail = NULL;
    if (format != NULL) {
        va_list args;
        va_start(args, format);
        if (vasprintf(&detail, format, args) < 0)
            detail = NULL;
        va_end(args);
    }
    add_reason(run, disk, code, detail);
    int rc = check_policy(run, disk, code, detail, error);
    free(detail);
    return rc;
}

void xv_run_note(struct xv_vm_run *run, struct xv_disk_run *disk, enum xv_reason_code code,
                 const char *format, ...)
{
    char *detail = NULL;
    if (format != NULL) {
        va_list args;
        va_start(args, format);
        if (vasprintf(&detail, format, args) < 0)
            detail = NULL;
        va_end(args);
    }
    add_reason(run, disk, code, detail);
    free(detail);
}

int xv_run_intend(struct xv_vm_run *run, const char *kind, xvsa_error **error)
{
    const struct xv_intent intent = {
        .job_id = run->job->id,
        .pool_uuid = run->job->plan->inventory->pool_uuid,
        .kind = kind,
        .tag = run->tag,
        .vm_uuid = run->plan->uuid,
    };
    return xv_coord_intent_add(xv_engine_coord(run->job->engine), &intent, &run->intent, error);
}

void xv_run_settle(struct xv_vm_run *run, bool clean)
{
    if (run->intent == 0)
        return;
    struct xv_coord *coord = xv_engine_coord(run->job->engine);
    xvsa_error *error = NULL;
    int rc = clean ? xv_coord_intent_clear(coord, run->intent, &error)
                   : xv_coord_intent_abandon(coord, run->intent, &error);
    /* An intent that stays is only looked at again, after this process has ended. */
    if (rc != 0)
        xv_log(xv_engine_env(run->job->engine), XVSA_LOG_WARNING, "job", "%s",
               xvsa_error_message(error));
    xvsa_error_unref(error);
    run->intent = 0;
}

struct xv_call xv_run_call(const struct xv_vm_run *run)
{
    return (struct xv_call){.cancel = run->cancel};
}

struct xv_call xv_run_step_call(const struct xv_vm_run *run)
{
    return (struct xv_call){.deadline_ms = xv_clock_ms() + STEP_MS, .cancel = run->cancel};
}

struct xv_call xv_run_cleanup_call(void)
{
    return (struct xv_call){.deadline_ms = xv_clock_ms() + CLEANUP_MS};
}

void xv_run_waited(struct xv_disk_run *disk, int64_t ms)
{
    pthread_mutex_lock(&disk->vm->job->lock);
    disk->shares.waiting += (uint64_t)ms * 1000000u;
    pthread_mutex_unlock(&disk->vm->job->lock);
}

const struct xv_host *xv_run_own_host(const struct xv_job *job)
{
    const struct xv_plan *plan = job->plan;
    for (size_t i = 0; job->task != NULL && i < plan->proxy_count; i++) {
        size_t host = plan->site.proxies[i].host;
        if (strcmp(xv_proxy_name(plan->proxies[i]), job->task->given.proxy) == 0 &&
            host < plan->inventory->host_count)
            return &plan->inventory->hosts[host];
    }
    return NULL;
}

const struct xv_host *xv_run_host(const struct xv_disk_run *disk)
{
    const struct xv_plan *plan = disk->vm->job->plan;
    const struct xv_host *own = xv_run_own_host(disk->vm->job);
    if (own != NULL && disk->plan->sr != NULL &&
        xv_inventory_reaches(plan->inventory, own, disk->plan->sr))
        return own;
    size_t host = plan->site.proxies[disk->plan->proxy].host;
    return host < plan->inventory->host_count ? &plan->inventory->hosts[host] : NULL;
}
