/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One thread for each disk of a VM while they move.
 */
#include <stdlib.h>

#include "job/run.h"
#include "base/thread.h"

#define TICK_MS 1000

struct mover {
    struct xv_disk_run *disk;
    xv_disk_body body;
    pthread_t thread;
};

static json_t *name_disk(const struct xv_disk_run *disk)
{
    const struct xv_plan_vm *vm = disk->vm->plan;
    return json_pack("{s:s, s:o, s:o, s:o}", "job", disk->vm->job->id, "vm",
                     xv_json_named(vm->uuid, vm->name), "disk", xv_json_text(disk->plan->device),
                     "vdi", xv_json_text(disk->plan->vdi_uuid));
}

static void begin_disk(struct xv_disk_run *disk)
{
    struct xv_job *job = disk->vm->job;
    pthread_mutex_lock(&job->lock);
    disk->state = XV_RUN_RUNNING;
    disk->started_ms = xv_clock_ms();
    pthread_mutex_unlock(&job->lock);
    xv_events_add(job->events, "disk_started", name_disk(disk));
}

static void end_disk(struct xv_disk_run *disk, int rc, xvsa_error *error)
{
    struct xv_job *job = disk->vm->job;
    if (rc != 0) {
        xv_error_wrap(&error, rc, "job", "disk %s (VDI %s) of VM \"%s\" (%s)", disk->plan->device,
                      disk->plan->vdi_uuid, disk->vm->plan->name, disk->vm->plan->uuid);
        xv_error_set_detail(error, "vdi", disk->plan->vdi_uuid);
        pthread_mutex_lock(&job->lock);
        /* Before the others are stopped, so that what stopping does to them never counts as the cause. */
        if (disk->vm->failed == NULL && rc != XVSA_ERR_CANCELLED &&
            xvsa_cancel_is_fired(disk->vm->cancel) == 0)
            disk->vm->failed = disk;
        pthread_mutex_unlock(&job->lock);
        xvsa_cancel_fire(disk->vm->cancel);
    }
    enum xv_run_state state = rc == 0                    ? XV_RUN_SUCCEEDED
                              : rc == XVSA_ERR_CANCELLED ? XV_RUN_CANCELLED
                                                         : XV_RUN_FAILED;
    json_t *body = name_disk(disk);
    json_object_set_new(body, "state", json_string(xv_run_state_name(state)));
    xv_events_add(job->events, "disk_finished", body);
    pthread_mutex_lock(&job->lock);
    disk->rc = rc;
    disk->error = error;
    disk->state = state;
    disk->ended_ms = xv_clock_ms();
    disk->ended = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static void *move(void *argument)
{
    struct mover *mover = argument;
    xvsa_error *error = NULL;
    begin_disk(mover->disk);
    int rc = mover->body(mover->disk, &error);
    end_disk(mover->disk, rc, error);
    return NULL;
}

static void wait_for(struct mover *movers, size_t count, void (*tick)(void *user), void *user)
{
    if (count == 0)
        return;
    struct xv_job *job = movers[0].disk->vm->job;
    int64_t next = xv_clock_ms() + TICK_MS;
    pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < count;) {
        if (movers[i].disk->ended) {
            i++;
            continue;
        }
        xv_condition_wait(&job->changed, &job->lock, TICK_MS);
        if (tick == NULL || xv_clock_ms() < next)
            continue;
        pthread_mutex_unlock(&job->lock);
        tick(user);
        next = xv_clock_ms() + TICK_MS;
        pthread_mutex_lock(&job->lock);
    }
    pthread_mutex_unlock(&job->lock);
    for (size_t i = 0; i < count; i++)
        pthread_join(movers[i].thread, NULL);
}

/* The failure that came first in cause: others were only stopped by it. */
static int first_failure(struct mover *movers, size_t count, xvsa_error **error)
{
    struct xv_disk_run *worst = count == 0 ? NULL : movers[0].disk->vm->failed;
    for (size_t i = 0; i < count && (worst == NULL || worst->rc == XVSA_ERR_CANCELLED); i++) {
        if (movers[i].disk->rc != 0)
            worst = movers[i].disk;
    }
    if (worst == NULL)
        return 0;
    if (error != NULL)
        *error = xvsa_error_ref(worst->error);
    return worst->rc;
}

int xv_disks_run(struct xv_vm_run *run, xv_disk_body body, void (*tick)(void *user), void *user,
                 xvsa_error **error)
{
    struct mover *movers = calloc(run->disk_count + 1, sizeof *movers);
    if (movers == NULL)
        return xv_fail_memory(error);
    size_t count = 0;
    int rc = 0;
    xvsa_error *failure = NULL;
    for (size_t i = 0; rc == 0 && i < run->disk_count; i++) {
        if (run->disks[i].plan->skipped)
            continue;
        movers[count] = (struct mover){.disk = &run->disks[i], .body = body};
        rc = xv_thread_start("xvsa-disk", false, move, &movers[count], &movers[count].thread,
                             &failure);
        count += rc == 0;
    }
    if (rc != 0)
        xvsa_cancel_fire(run->cancel);
    wait_for(movers, count, tick, user);
    if (rc == 0)
        rc = first_failure(movers, count, &failure);
    free(movers);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}
