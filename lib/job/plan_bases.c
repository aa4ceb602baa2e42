/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The last restore point of each VM, which its backup is compared with. The journal is read once; the
 * points, one object each, are read by several threads, for a target may be far away.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/thread.h"
#include "job/plan.h"
#include "repo/fault.h"

#define READERS_MAX    8
#define VMS_PER_READER 16 /* fewer are not worth a thread */

struct gang {
    struct xv_plan *plan;
    const struct xv_vm **vms;
    size_t count;
    const struct xv_latest *latest;
    const struct xv_call *call;
    atomic_size_t next;
    atomic_bool failed;
};

struct reader {
    struct gang *gang;
    pthread_t thread;
    bool has_thread;
    int rc;
    xvsa_error *error;
};

static void read_points(struct reader *reader)
{
    struct gang *gang = reader->gang;
    while (!atomic_load(&gang->failed)) {
        size_t i = atomic_fetch_add(&gang->next, 1);
        if (i >= gang->count)
            return;
        reader->rc =
            xv_latest_point(gang->latest, i, gang->call, &gang->plan->vms[i].base, &reader->error);
        if (reader->rc == 0)
            continue;
        /* One point that is damaged keeps no VM from being backed up, least of all the others. */
        if (xv_fault_is_damage(reader->rc)) {
            xv_reasons_add(&gang->plan->vms[i].reasons, XV_REASON_BASE_POINT_DAMAGED, "%s",
                           xvsa_error_message(reader->error));
            xv_error_clear(&reader->error);
            reader->rc = 0;
            continue;
        }
        reader->rc = xv_error_wrap(&reader->error, reader->rc, "job",
                                   "VM \"%s\" (%s): cannot read its last restore point",
                                   gang->vms[i]->name, gang->vms[i]->uuid);
        atomic_store(&gang->failed, true);
        return;
    }
}

static void *reader_body(void *argument)
{
    read_points(argument);
    return NULL;
}

static int run_gang(struct gang *gang, xvsa_error **error)
{
    struct reader readers[READERS_MAX] = {0};
    size_t threads = gang->count / VMS_PER_READER + 1;
    int rc = 0;
    threads = threads > READERS_MAX ? READERS_MAX : threads;
    for (size_t i = 0; i < threads; i++)
        readers[i].gang = gang;
    /* The caller is the first; without the others it does their part. */
    for (size_t i = 1; i < threads; i++)
        readers[i].has_thread = xv_thread_start("xvsa-plan", false, reader_body, &readers[i],
                                                &readers[i].thread, NULL) == 0;
    read_points(&readers[0]);
    for (size_t i = 0; i < threads; i++) {
        if (readers[i].has_thread)
            pthread_join(readers[i].thread, NULL);
        if (rc == 0 && readers[i].rc != 0) {
            rc = readers[i].rc;
            if (error != NULL)
                *error = xvsa_error_ref(readers[i].error);
        }
        xvsa_error_unref(readers[i].error);
    }
    return rc;
}

int xv_plan_bases(struct xv_plan *plan, const struct xv_vm **vms, const struct xv_call *call,
                  xvsa_error **error)
{
    struct xv_latest *latest = NULL;
    const char **uuids = calloc(plan->vm_count + 1, sizeof *uuids);
    if (uuids == NULL)
        return xv_fail_memory(error);
    for (size_t i = 0; i < plan->vm_count; i++)
        uuids[i] = vms[i]->uuid;
    int rc = xv_repo_latest(plan->repo, uuids, plan->vm_count, call, &latest, error);
    struct gang gang = {
        .plan = plan, .vms = vms, .count = plan->vm_count, .latest = latest, .call = call};
    atomic_init(&gang.next, 0);
    atomic_init(&gang.failed, false);
    if (rc == 0)
        rc = run_gang(&gang, error);
    xv_latest_free(latest);
    free(uuids);
    return rc;
}
