/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who owns what next: members with free places get the waiting task that the scheduler says they would pull, one
 * a round, job by job in the order of priority.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/lead.h"
#include "sched/assignment.h"
#include "sched/pull.h"

/* While nobody that lives can own a task it waits this many times to live for a member to come. */
#define GRACE_TTL 4

/* A job's waiting tasks in the scheduler's numbers. */
struct queue {
    struct xv_look *look;
    struct xv_reach *reach;
    struct xv_view_job *job;
    uint32_t *used;                /* by proxy: disks of the tasks it owns */
    struct xv_task_record **tasks; /* those that wait */
    struct xv_sched_vm *vms;       /* in parallel */
    struct xv_sched_disk *disks;
    struct xv_waiting *waiting; /* not assigned yet; indices move */
    size_t *index;              /* of waiting: into tasks */
    size_t count, left;
};

static uint32_t weight(const struct xv_task_record *task)
{
    size_t disks = json_array_size(task->disks);
    return disks == 0 ? 1 : (uint32_t)disks;
}

static bool is_waiting(const struct xv_view_job *job, const struct xv_task_record *task)
{
    bool waits = task->state == XV_TASK_PENDING || task->state == XV_TASK_PARKED;
    return waits && job->job.control == XV_CONTROL_RUN && xv_view_hold(job)[0] == '\0' &&
           xv_member_number(task->json, "not_before_ms") <= xv_wall_ms();
}

/* Two jobs that back a VM up to the same repository at once would take its session, and what they had done, from each
 * other again and again: the later one waits. */
static bool is_in_hand(const struct xv_view *view, const struct xv_view_job *job,
                       const struct xv_task_record *task)
{
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *other = &view->jobs[i];
        if (other == job || strcmp(job->job.type, "backup") != 0 ||
            strcmp(other->job.type, "backup") != 0 ||
            strcmp(other->job.repository, job->job.repository) != 0)
            continue;
        for (size_t j = 0; j < other->task_count; j++) {
            enum xv_task_state state = other->tasks[j].state;
            if ((state == XV_TASK_ASSIGNED || state == XV_TASK_RUNNING) &&
                strcmp(other->tasks[j].subject, task->subject) == 0)
                return true;
        }
    }
    return false;
}

static void count_used(struct xv_look *look, const struct xv_reach *reach, uint32_t *used)
{
    for (size_t i = 0; i < look->view->job_count; i++) {
        const struct xv_view_job *job = &look->view->jobs[i];
        for (size_t j = 0; j < job->task_count; j++) {
            const struct xv_task_record *task = &job->tasks[j];
            size_t proxy = xv_reach_proxy(reach, task->owner);
            if (proxy == XV_SCHED_NONE ||
                (task->state != XV_TASK_ASSIGNED && task->state != XV_TASK_RUNNING))
                continue;
            used[proxy] += weight(task);
        }
    }
}

static size_t total_disks(const struct xv_view_job *job)
{
    size_t disks = 0;
    for (size_t i = 0; i < job->task_count; i++)
        disks += json_array_size(job->tasks[i].disks);
    return disks;
}

static void free_queue(struct queue *queue)
{
    free(queue->tasks);
    free(queue->vms);
    free(queue->disks);
    free(queue->waiting);
    free(queue->index);
}

static int make_queue(struct queue *queue, xvsa_error **error)
{
    size_t count = queue->job->task_count;
    queue->tasks = calloc(count + 1, sizeof(struct xv_task_record *));
    queue->vms = calloc(count + 1, sizeof *queue->vms);
    queue->disks = calloc(total_disks(queue->job) + 1, sizeof *queue->disks);
    queue->waiting = calloc(count + 1, sizeof *queue->waiting);
    queue->index = calloc(count + 1, sizeof *queue->index);
    if (queue->tasks == NULL || queue->vms == NULL || queue->disks == NULL ||
        queue->waiting == NULL || queue->index == NULL)
        return xv_fail_memory(error);
    struct xv_sched_disk *next = queue->disks;
    for (size_t i = 0; i < count; i++) {
        struct xv_task_record *task = &queue->job->tasks[i];
        size_t j;
        json_t *disk;
        if (!is_waiting(queue->job, task) || is_in_hand(queue->look->view, queue->job, task))
            continue;
        struct xv_sched_vm *vm = &queue->vms[queue->count];
        *vm = (struct xv_sched_vm){
            .host = xv_reach_host(queue->reach, xv_member_text(task->json, "host")),
            .disks = next,
            .disk_count = json_array_size(task->disks),
            .key = task->subject,
            .owner = XV_SCHED_NONE,
        };
        json_array_foreach(task->disks, j, disk) *next++ = (struct xv_sched_disk){
            .sr = xv_reach_sr(queue->reach, xv_member_text(disk, "sr")),
            .bytes = (uint64_t)xv_member_number(disk, "bytes"),
            .proxy = XV_SCHED_NONE,
        };
        queue->tasks[queue->count++] = task;
    }
    return 0;
}

/* Members that may own tasks of this job: living, not draining, with its repository. */
static void choose_members(struct queue *queue)
{
    const struct xv_view *view = queue->look->view;
    for (size_t i = 0; i < queue->reach->count; i++) {
        const struct xv_site_member *member =
            xv_view_member(view, xv_proxy_name(queue->reach->proxies[i]));
        queue->reach->site.proxies[i].lost =
            member == NULL || member->draining ||
            json_object_get(member->repositories, queue->job->job.repository) == NULL;
        queue->reach->site.proxies[i].running = queue->used[i];
        queue->reach->site.proxies[i].bytes = 0;
    }
}

/* ---- tasks that nobody can own ---- */

static int fail_unreached(struct xv_look *look, const struct xv_view_job *job,
                          struct xv_task_record *task, xvsa_error **error)
{
    xvsa_error *problem = NULL;
    xv_fail(&problem, XVSA_ERR_REFUSED, "agent",
            "VM \"%s\" (%s): NO_PROXY_REACHES_SR: no living member that has repository \"%s\""
            " reaches all its storage any more",
            task->name, task->subject, job->job.repository);
    struct xv_reasons reasons = {0};
    xv_reasons_add(&reasons, XV_REASON_NO_PROXY_REACHES_SR, "after %s was lost",
                   xv_member_text(task->json, "earlier"));
    json_object_set_new(task->json, "reasons", xv_reasons_to_json(&reasons));
    xv_reasons_free(&reasons);
    int rc = xv_lead_end_task(look, task, XV_TASK_FAILED, xv_json_error(problem), error);
    xvsa_error_unref(problem);
    return rc;
}

static int look_at_unreached(struct queue *queue, struct xv_task_record *task, xvsa_error **error)
{
    json_t *unreached = queue->look->lead->unreached;
    json_t *since = json_object_get(unreached, task->key);
    if (since == NULL) {
        xv_set_number(unreached, task->key, xv_clock_ms());
        return 0;
    }
    if (xv_clock_ms() - json_integer_value(since) < GRACE_TTL * queue->look->agent->ttl_ms)
        return 0;
    json_object_del(unreached, task->key);
    return fail_unreached(queue->look, queue->job, task, error);
}

static bool is_reached(const struct queue *queue, const struct xv_sched_vm *vm)
{
    for (size_t i = 0; i < queue->reach->count && vm->disk_count == 0; i++) {
        if (!queue->reach->site.proxies[i].lost)
            return true;
    }
    return vm->disk_count > 0 && xv_sched_eligible_count(&queue->reach->site, vm) > 0;
}

static int sort_out(struct queue *queue, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < queue->count; i++) {
        if (!is_reached(queue, &queue->vms[i])) {
            rc = look_at_unreached(queue, queue->tasks[i], error);
            continue;
        }
        json_object_del(queue->look->lead->unreached, queue->tasks[i]->key);
        queue->waiting[queue->left] = (struct xv_waiting){
            .vm = &queue->vms[i],
            .rank = i,
            .priority = (int32_t)queue->job->job.priority,
            .submitted = (uint64_t)queue->job->job.submitted_ms,
        };
        queue->index[queue->left++] = i;
    }
    return rc;
}

/* Who does not reach the pool now is given nothing of what needs it, though it may do so again any time: what
 * nobody else reaches waits. */
static void leave_out_unreaching(struct queue *queue)
{
    if (strcmp(queue->job->job.type, "verify") == 0)
        return;
    for (size_t i = 0; i < queue->reach->count; i++) {
        const struct xv_site_member *member =
            xv_view_member(queue->look->view, xv_proxy_name(queue->reach->proxies[i]));
        struct xv_sched_proxy *proxy = &queue->reach->site.proxies[i];
        proxy->lost = proxy->lost || !member->reaches_pool;
    }
}

/* ---- giving ---- */

/* What units of the task are cut by, in all its attempts alike. */
static void note_size_of_site(struct queue *queue, struct xv_task_record *task)
{
    uint32_t proxies = 0;
    uint64_t bytes = 0;
    if (json_object_get(task->json, "proxies") != NULL)
        return;
    for (size_t i = 0; i < queue->reach->count; i++)
        proxies += !queue->reach->site.proxies[i].lost;
    for (size_t i = 0; i < queue->job->task_count; i++) {
        size_t j;
        json_t *disk;
        if (xv_task_has_ended(queue->job->tasks[i].state))
            continue;
        json_array_foreach(queue->job->tasks[i].disks, j, disk) bytes +=
            (uint64_t)xv_member_number(disk, "bytes");
    }
    xv_set_number(task->json, "proxies", proxies);
    xv_set_number(task->json, "outstanding", (int64_t)bytes);
}

static int give(struct queue *queue, struct xv_task_record *task, const char *member,
                bool *ret_done, xvsa_error **error)
{
    struct xv_look *look = queue->look;
    struct xv_txn txn;
    int64_t revision = 0;
    if (task->owner[0] != '\0')
        json_object_set(task->json, "earlier", json_object_get(task->json, "owner"));
    xv_set_text(task->json, "state", xv_task_state_name(XV_TASK_ASSIGNED));
    xv_set_text(task->json, "owner", member);
    task->owner = xv_member_text(task->json, "owner"); /* what it pointed to is gone */
    xv_set_number(task->json, "attempt", (int64_t)task->attempt + 1);
    note_size_of_site(queue, task);
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, task->mod, "%s", task->key);
    xv_txn_put(&txn, 0, task->json, "%s", task->key);
    int rc = xv_lead_commit(look, &txn, ret_done, &revision, error);
    if (rc != 0 || !*ret_done)
        return rc;
    task->state = XV_TASK_ASSIGNED;
    atomic_fetch_add(&look->agent->figures.assignments, 1);
    xv_log(look->agent->env, XVSA_LOG_INFO, "agent",
           "%s: %s (\"%s\") goes to %s, attempt %u (term %lld)", look->agent->name, task->key,
           task->name, member, task->attempt + 1, (long long)look->lead->term);
    return 0;
}

static void drop(struct queue *queue, size_t at)
{
    queue->left--;
    for (size_t i = at; i < queue->left; i++) {
        queue->waiting[i] = queue->waiting[i + 1];
        queue->index[i] = queue->index[i + 1];
    }
}

/* The next task for a proxy, when it has place for it. */
static int pull(struct queue *queue, size_t proxy, bool *ret_gave, xvsa_error **error)
{
    const struct xv_sched_site *site = &queue->reach->site;
    uint32_t capacity = site->proxies[proxy].capacity;
    *ret_gave = false;
    if (site->proxies[proxy].lost || queue->used[proxy] >= capacity || queue->left == 0)
        return 0;
    size_t at = xv_sched_next_task(site, proxy, queue->waiting, queue->left);
    if (at == XV_SCHED_NONE)
        return 0;
    struct xv_task_record *task = queue->tasks[queue->index[at]];
    uint32_t need = weight(task);
    if (!xv_sched_may_own(capacity, queue->used[proxy], need))
        return 0;
    drop(queue, at);
    bool done = false;
    int rc = give(queue, task, xv_proxy_name(queue->reach->proxies[proxy]), &done, error);
    if (rc == 0 && done)
        queue->used[proxy] += need;
    *ret_gave = rc == 0 && done;
    return rc;
}

static uint32_t running_tasks(const struct xv_view_job *job)
{
    uint32_t count = 0;
    for (size_t i = 0; i < job->task_count; i++)
        count += job->tasks[i].state == XV_TASK_ASSIGNED || job->tasks[i].state == XV_TASK_RUNNING;
    return count;
}

static int give_round(struct queue *queue, int64_t *places, bool *ret_any, xvsa_error **error)
{
    int rc = 0;
    *ret_any = false;
    for (size_t i = 0; rc == 0 && i<queue->reach->count && * places> 0; i++) {
        bool gave = false;
        rc = pull(queue, i, &gave, error);
        *places -= gave;
        *ret_any = *ret_any || gave;
    }
    return rc;
}

static int assign_job(struct queue *queue, xvsa_error **error)
{
    struct xv_assignment *assignment = NULL;
    int64_t limit = xv_lead_vms_limit(queue->job);
    int64_t places = limit == 0 ? INT64_MAX : limit - (int64_t)running_tasks(queue->job);
    int rc = make_queue(queue, error);
    if (rc == 0)
        choose_members(queue);
    if (rc == 0)
        rc = sort_out(queue, error);
    if (rc == 0)
        leave_out_unreaching(queue);
    if (rc == 0 && queue->left > 0)
        rc = xv_assignment_new(&queue->reach->site, queue->vms, queue->count, &assignment, error);
    bool any = rc == 0 && queue->left > 0;
    while (rc == 0 && any)
        rc = give_round(queue, &places, &any, error);
    xv_assignment_free(assignment);
    return rc;
}

static bool has_waiting(const struct xv_view_job *job)
{
    bool has = false;
    for (size_t i = 0; i < job->task_count && !has; i++)
        has = is_waiting(job, &job->tasks[i]);
    return has && job->part != NULL && job->part->state == XV_PART_WORKING && xv_lead_is_open(job);
}

int xv_lead_assign(struct xv_look *look, xvsa_error **error)
{
    struct xv_reach reach = {0};
    bool any = false;
    for (size_t i = 0; i < look->view->job_count && !any; i++)
        any = has_waiting(&look->view->jobs[i]);
    if (!any || !xv_agent_is_joined(look->agent))
        return 0;
    int rc = xv_reach_read(look->agent, &look->call, &reach, error);
    if (rc != 0)
        return rc;
    uint32_t *used = calloc(reach.count + 1, sizeof *used);
    if (used == NULL)
        rc = xv_fail_memory(error);
    else
        count_used(look, &reach, used);
    for (size_t i = 0; rc == 0 && i < look->view->job_count; i++) {
        struct xv_view_job *job = &look->view->jobs[i];
        if (!has_waiting(job))
            continue;
        struct queue queue = {.look = look, .reach = &reach, .job = job, .used = used};
        rc = assign_job(&queue, error);
        free_queue(&queue);
    }
    free(used);
    xv_reach_free(&reach);
    return rc;
}
