/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A job's tasks in this pool: planned with all living members as proxies, and written down, refused VMs with their
 * reasons included, before any of them is assigned.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/lead.h"
#include "agent/subject.h"
#include "job/selection.h"

/* A transaction is sent when it holds this many tasks or bytes. */
#define BATCH_TASKS 45
#define BATCH_BYTES (256u << 10)

/* Tasks being written. */
struct writing {
    struct xv_look *look;
    const char *job_id;
    struct xv_txn txn;
    size_t tasks, bytes, total;
    bool open, held;
};

static int flush(struct writing *writing, xvsa_error **error)
{
    if (!writing->open)
        return 0;
    bool done = false;
    int rc = xv_lead_commit(writing->look, &writing->txn, &done, NULL, error);
    writing->held = writing->held && done;
    writing->open = false;
    return rc;
}

static size_t size_of(const json_t *json)
{
    return json_dumpb(json, NULL, 0, JSON_COMPACT);
}

static int write_task(struct writing *writing, const char *subject, const json_t *task,
                      const json_t *report, xvsa_error **error)
{
    const char *pool = writing->look->agent->pool_uuid;
    size_t bytes = size_of(task) + size_of(report);
    int rc = 0;
    if (writing->open && (writing->tasks == BATCH_TASKS || writing->bytes + bytes > BATCH_BYTES))
        rc = flush(writing, error);
    if (rc != 0)
        return rc;
    if (!writing->open) {
        xv_lead_begin(writing->look, &writing->txn);
        writing->open = true;
        writing->tasks = 0;
        writing->bytes = 0;
    }
    xv_txn_put(&writing->txn, 0, task, "v/%s/%s/%s", writing->job_id, pool, subject);
    xv_txn_put(&writing->txn, 0, report, "vr/%s/%s/%s", writing->job_id, pool, subject);
    writing->tasks++;
    writing->total++;
    writing->bytes += bytes;
    return 0;
}

/* ---- tasks ---- */

static json_t *disks_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct xv_plan_disk *disk = &vm->disks[i];
        if (disk->skipped)
            continue;
        uint64_t used = disk->vdi == NULL ? 0 : disk->vdi->physical_used;
        uint64_t bytes = plan->spec->type == XV_JOB_RESTORE ? disk->data_bytes
                         : used > 0 && used < disk->size    ? used
                                                            : disk->size;
        json_array_append_new(disks,
                              json_pack("{s:o, s:s, s:o}", "vdi", xv_json_text(disk->vdi_uuid),
                                        "sr", disk->sr == NULL ? "" : disk->sr->uuid, "bytes",
                                        xv_json_count(bytes)));
    }
    return disks;
}

static json_t *task_to_json(const struct xv_plan *plan, const struct xv_plan_vm *vm, size_t order,
                            const char *work)
{
    const struct xv_host *host = vm->vm == NULL ? NULL : vm->vm->resident_on;
    enum xv_task_state state = vm->refusal == NULL ? XV_TASK_PENDING : XV_TASK_REFUSED;
    json_t *task = json_pack("{s:s, s:o, s:i, s:s, s:s, s:I, s:s, s:o}", "state",
                             xv_task_state_name(state), "name", xv_json_text(vm->name), "attempt",
                             0, "owner", "", "work", work, "order", (json_int_t)order, "host",
                             host == NULL ? "" : host->uuid, "disks", disks_to_json(plan, vm));
    if (task != NULL && vm->refusal != NULL)
        json_object_set_new(task, "error", xv_json_error(vm->refusal));
    return task;
}

static int write_vm(struct writing *writing, const struct xv_plan *plan, size_t index,
                    const json_t *report, json_t *seen, xvsa_error **error)
{
    const struct xv_plan_vm *vm = &plan->vms[index];
    const char *subject = vm->point != NULL ? xv_point_id(vm->point) : vm->uuid;
    char work[XV_SITE_ID_LENGTH + 1];
    if (!xv_is_word(subject))
        return xv_fail(error, XVSA_ERR_PROTOCOL, "agent",
                       "the pool tells a VM with the uuid \"%s\"", subject);
    if (json_object_get(seen, subject) != NULL)
        return 0;
    json_object_set_new(seen, subject, json_true());
    int rc = xv_make_id(work, error);
    if (rc != 0)
        return rc;
    json_t *task = task_to_json(plan, vm, index, work);
    if (task == NULL)
        return xv_fail_memory(error);
    rc = write_task(writing, subject, task, report, error);
    json_decref(task);
    return rc;
}

static int write_plan(struct writing *writing, const struct xv_plan *plan, xvsa_error **error)
{
    json_t *document = xv_plan_to_json(plan);
    json_t *seen = json_object();
    int rc = document == NULL || seen == NULL ? xv_fail_memory(error) : 0;
    for (size_t i = 0; rc == 0 && i < plan->vm_count; i++)
        rc = write_vm(writing, plan, i, json_array_get(json_object_get(document, "vms"), i), seen,
                      error);
    json_decref(document);
    json_decref(seen);
    return rc;
}

/* A verification is one task, of whichever member has a place. */
static int write_verification(struct writing *writing, const char *repository, xvsa_error **error)
{
    char work[XV_SITE_ID_LENGTH + 1];
    int rc = xv_make_id(work, error);
    if (rc != 0)
        return rc;
    json_t *task = json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:s, s:[]}", "state",
                             xv_task_state_name(XV_TASK_PENDING), "name", repository, "attempt", 0,
                             "owner", "", "work", work, "order", 0, "host", "", "disks");
    json_t *report = json_pack("{s:s, s:s, s:[], s:[]}", "uuid", XV_SUBJECT_REPOSITORY, "name",
                               repository, "disks", "reasons");
    rc = task == NULL || report == NULL
             ? xv_fail_memory(error)
             : write_task(writing, XV_SUBJECT_REPOSITORY, task, report, error);
    json_decref(task);
    json_decref(report);
    return rc;
}

/* ---- the job's spec for one pool of several ---- */

static bool names_one(const json_t *matcher)
{
    return json_object_get(matcher, "uuid") != NULL || json_object_get(matcher, "name") != NULL;
}

static bool has_vm(const json_t *matcher, const struct xv_inventory *inventory)
{
    struct xv_selection *selection = NULL;
    const struct xv_vm **vms = NULL;
    size_t count = 0;
    json_t *json = json_pack("{s:[O]}", "vms", matcher);
    int rc = xv_selection_read(json, "job.selection", &selection, NULL);
    if (rc == 0)
        rc = xv_selection_vms(selection, inventory, &vms, &count, NULL);
    free(vms);
    xv_selection_free(selection);
    json_decref(json);
    return rc == 0 && count > 0;
}

/* A VM that is named is in one of the pools; the others do without the matcher, and tell that it is not theirs.
 * missing receives the matchers left out. */
static int narrow(struct xv_look *look, const struct xv_view_job *job, json_t **ret,
                  json_t *missing, xvsa_error **error)
{
    struct xv_inventory *inventory = NULL;
    json_t *spec = json_deep_copy(job->job.spec);
    json_t *matchers = json_object_get(json_object_get(spec, "selection"), "vms");
    int rc = xv_pool_inventory(look->agent->pool, &look->call, &inventory, error);
    for (size_t i = json_array_size(matchers); rc == 0 && i > 0; i--) {
        json_t *matcher = json_array_get(matchers, i - 1);
        if (names_one(matcher) && !has_vm(matcher, inventory)) {
            json_array_append(missing, matcher);
            json_array_remove(matchers, i - 1);
        }
    }
    xv_inventory_free(inventory);
    if (rc != 0)
        json_decref(spec);
    else
        *ret = spec;
    return rc;
}

static int make_plan(struct xv_look *look, struct xv_view_job *job, json_t *missing,
                     struct xv_plan **ret, xvsa_error **error)
{
    struct xv_agent *agent = look->agent;
    struct xv_repo *repo = xv_agent_repo(agent, job->job.repository);
    if (repo == NULL)
        return xv_fail(error, XVSA_ERR_NOT_FOUND, "agent",
                       "the pool's coordinator %s has no repository named \"%s\"", agent->name,
                       job->job.repository);
    json_t *spec = NULL;
    bool several = json_array_size(job->job.pools) > 1;
    int rc = 0;
    if (several)
        rc = narrow(look, job, &spec, missing, error);
    else
        spec = json_incref((json_t *)(uintptr_t)job->job.spec);
    if (rc != 0)
        return rc;
    bool empty =
        several && json_array_size(json_object_get(json_object_get(spec, "selection"), "vms")) == 0;
    char *text = json_dumps(spec, JSON_COMPACT);
    json_decref(spec);
    if (text == NULL)
        return xv_fail_memory(error);
    if (!empty)
        rc = xv_plan_new(xv_site_engine(agent->site), text, agent->pool, repo, &look->call, ret,
                         error);
    free(text);
    return rc;
}

/* ---- the part ---- */

static json_t *part_to_json(struct xv_look *look, const char *state)
{
    return json_pack("{s:s, s:{s:s, s:s}, s:s, s:I, s:I}", "state", state, "pool", "uuid",
                     look->agent->pool_uuid, "name", look->agent->pool_name, "planned_by",
                     look->agent->name, "term", (json_int_t)look->lead->term, "planned_ms",
                     (json_int_t)xv_wall_ms());
}

/* From here on the part is being planned; what an earlier coordinator wrote of it is void. */
static int begin(struct xv_look *look, struct xv_view_job *job, bool *ret_done, int64_t *ret_mod,
                 xvsa_error **error)
{
    const char *pool = look->agent->pool_uuid;
    struct xv_txn txn;
    json_t *part = part_to_json(look, "planning");
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->part == NULL ? 0 : job->part->mod, "jp/%s/%s",
                  job->job.id, pool);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, job->job.mod, "q/%s", job->job.id);
    xv_txn_put(&txn, 0, part, "jp/%s/%s", job->job.id, pool);
    xv_txn_delete_prefix(&txn, "v/%s/%s/", job->job.id, pool);
    xv_txn_delete_prefix(&txn, "vr/%s/%s/", job->job.id, pool);
    if (job->job.started_ms == 0) {
        xv_set_number(job->job.json, "started_ms", xv_wall_ms());
        xv_txn_put(&txn, 0, job->job.json, "q/%s", job->job.id);
    }
    json_decref(part);
    return xv_lead_commit(look, &txn, ret_done, ret_mod, error);
}

static int finish(struct xv_look *look, struct xv_view_job *job, int64_t mod,
                  const struct xv_plan *plan, json_t *missing, size_t tasks, xvsa_error **error)
{
    struct xv_txn txn;
    json_t *part = part_to_json(look, "working");
    json_object_set_new(part, "vms", xv_json_count(tasks));
    json_object_set(part, "missing", missing);
    json_object_set_new(part, "omissions",
                        plan == NULL ? json_array() : xv_omissions_to_json(plan->inventory));
    xv_lead_begin(look, &txn);
    xv_txn_expect(&txn, XV_KV_MOD_REVISION, mod, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    xv_txn_put(&txn, 0, part, "jp/%s/%s", job->job.id, look->agent->pool_uuid);
    json_decref(part);
    return xv_lead_commit(look, &txn, NULL, NULL, error);
}

static int write_tasks(struct writing *writing, const struct xv_view_job *job,
                       const struct xv_plan *plan, xvsa_error **error)
{
    int rc = 0;
    if (strcmp(job->job.type, "verify") == 0)
        rc = write_verification(writing, job->job.repository, error);
    else if (plan != NULL)
        rc = write_plan(writing, plan, error);
    if (rc == 0)
        rc = flush(writing, error);
    if (writing->open)
        xv_txn_free(&writing->txn);
    return rc;
}

int xv_lead_plan(struct xv_look *look, struct xv_view_job *job, xvsa_error **error)
{
    bool begun = false;
    int64_t mod = 0;
    struct xv_plan *plan = NULL;
    json_t *missing = json_array();
    struct writing *writing = calloc(1, sizeof *writing);
    int rc = writing == NULL ? xv_fail_memory(error) : begin(look, job, &begun, &mod, error);
    if (rc == 0 && begun && strcmp(job->job.type, "verify") != 0)
        rc = make_plan(look, job, missing, &plan, error);
    if (rc == 0 && begun) {
        writing->look = look;
        writing->job_id = job->job.id;
        writing->held = true;
        rc = write_tasks(writing, job, plan, error);
        if (rc == 0 && writing->held)
            rc = finish(look, job, mod, plan, missing, writing->total, error);
        atomic_fetch_add(&look->agent->figures.plans, 1);
        xv_log(look->agent->env, XVSA_LOG_INFO, "agent",
               "%s: job %s has %zu tasks in pool %s, planned in term %lld", look->agent->name,
               job->job.id, writing->total, look->agent->pool_uuid, (long long)look->lead->term);
    }
    xv_plan_unref(plan);
    free(writing);
    json_decref(missing);
    return rc;
}
