/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/mirror.h"

#include <stdlib.h>
#include <string.h>

#define FEW_REPORTS 8

struct entry {
    struct entry *next;
    char *key;
    json_t *value;
};

struct xv_mirror {
    struct xv_epoch epoch; /* that the entries are of */
    struct entry *entries;
    json_t *reports; /* by key: "vr/..." of tasks, read once for each state of a task */
};

static void forget(struct xv_mirror *mirror)
{
    while (mirror->entries != NULL) {
        struct entry *entry = mirror->entries;
        mirror->entries = entry->next;
        json_decref(entry->value);
        free(entry->key);
        free(entry);
    }
}

void xv_mirror_free(struct xv_mirror *mirror)
{
    if (mirror == NULL)
        return;
    forget(mirror);
    json_decref(mirror->reports);
    free(mirror);
}

/* Memory that is lacking costs what a lost store would want to know, nothing else. */
static void remember(struct xv_mirror *mirror, json_t *value, const char *format, ...)
    XV_PRINTF(3, 4);

static void remember(struct xv_mirror *mirror, json_t *value, const char *format, ...)
{
    char key[XV_KEY_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(key, sizeof key, format, args);
    va_end(args);
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return;
    entry->key = strdup(key);
    entry->value = json_incref(value);
    entry->next = mirror->entries;
    mirror->entries = entry;
    if (entry->key == NULL) {
        mirror->entries = entry->next;
        json_decref(value);
        free(entry);
    }
}

/* Entries that are there stay as they are: somebody else told them, or they are newer. */
static int tell(struct xv_agent *agent, const struct xv_epoch *epoch, const char *key,
                const json_t *value, const struct xv_call *call, bool *ret_told, xvsa_error **error)
{
    struct xv_txn txn;
    const struct xv_kv_compare guard = xv_epoch_guard(epoch);
    xv_txn_init(&txn);
    xv_txn_expect_as(&txn, &guard);
    xv_txn_expect(&txn, XV_KV_CREATE_REVISION, 0, "%s", key);
    xv_txn_put(&txn, 0, value, "%s", key);
    return xv_txn_run(&txn, agent->kv, call, ret_told, NULL, error);
}

static int tell_all(struct xv_agent *agent, const struct xv_epoch *epoch,
                    const struct xv_call *call, size_t *ret_count, xvsa_error **error)
{
    struct xv_mirror *mirror = agent->mirror;
    const char *key;
    json_t *value;
    bool told = false;
    int rc = 0;
    /* Jobs come last, so that nobody sees one without what belongs to it. */
    for (struct entry *entry = mirror->entries; rc == 0 && entry != NULL; entry = entry->next) {
        if (entry->key[0] != 'q')
            rc = tell(agent, epoch, entry->key, entry->value, call, &told, error);
        *ret_count += told;
        told = false;
    }
    json_object_foreach(mirror->reports, key, value)
    {
        if (rc == 0)
            rc = tell(agent, epoch, key, json_object_get(value, "report"), call, &told, error);
        *ret_count += told;
        told = false;
    }
    for (struct entry *entry = mirror->entries; rc == 0 && entry != NULL; entry = entry->next) {
        if (entry->key[0] == 'q')
            rc = tell(agent, epoch, entry->key, entry->value, call, &told, error);
        *ret_count += told;
        told = false;
    }
    return rc;
}

static int make(struct xv_agent *agent, xvsa_error **error)
{
    struct xv_mirror *mirror = calloc(1, sizeof *mirror);
    if (mirror == NULL)
        return xv_fail_memory(error);
    mirror->reports = json_object();
    agent->mirror = mirror;
    return 0;
}

int xv_mirror_keep(struct xv_agent *agent, const struct xv_call *call, xvsa_error **error)
{
    struct xv_epoch epoch;
    int rc = agent->mirror == NULL ? make(agent, error) : 0;
    if (rc == 0)
        rc = xv_epoch_read(agent->kv, call, &epoch, error);
    if (rc != 0)
        return rc;
    struct xv_mirror *mirror = agent->mirror;
    if (epoch.gen == 0)
        return xv_fail(error, XVSA_ERR_BUSY, "agent",
                       "the coordination store is empty: it was lost, members join it anew");
    if (mirror->epoch.gen != 0 && strcmp(mirror->epoch.value, epoch.value) != 0) {
        size_t count = 0;
        rc = tell_all(agent, &epoch, call, &count, error);
        if (rc == 0)
            xv_log(agent->env, XVSA_LOG_WARNING, "agent",
                   "%s: the coordination store was lost and is in generation %lld now: told it %zu"
                   " entries",
                   agent->name, (long long)epoch.gen, count);
    }
    if (rc == 0)
        mirror->epoch = epoch;
    return rc;
}

static void add_report(json_t *reports, const struct xv_kv_pair *pair,
                       const struct xv_task_record *task)
{
    json_t *report = xv_pair_json(pair);
    if (report != NULL)
        json_object_set_new(
            reports, pair->key,
            json_pack("{s:I, s:o}", "state", (json_int_t)task->state, "report", report));
}

/* A report is what was planned until its task ends. */
static bool is_current(const json_t *known, const struct xv_task_record *task)
{
    return known != NULL && (xv_member_number(known, "state") == (int64_t)task->state ||
                             !xv_task_has_ended(task->state));
}

/* Reports that are not known as they are now: a few are read one by one, many together. */
static void learn_reports(struct xv_agent *agent, json_t *reports, const struct xv_view_job *job)
{
    struct xv_call call = xv_agent_call(agent);
    struct xv_kv_list all = {0};
    size_t unknown = 0;
    char key[XV_KEY_MAX];
    for (size_t i = 0; i < job->task_count; i++) {
        snprintf(key, sizeof key, "vr/%s", job->tasks[i].key + strlen("v/"));
        unknown += !is_current(json_object_get(agent->mirror->reports, key), &job->tasks[i]);
    }
    if (unknown > FEW_REPORTS &&
        xv_kv_read(agent->kv, &call, &all, NULL, "vr/%s/%s/", job->job.id, agent->pool_uuid) != 0)
        return;
    for (size_t i = 0; i < job->task_count; i++) {
        const struct xv_task_record *task = &job->tasks[i];
        snprintf(key, sizeof key, "vr/%s", task->key + strlen("v/"));
        json_t *known = json_object_get(agent->mirror->reports, key);
        struct xv_kv_list one = {0};
        const struct xv_kv_pair *pair = xv_list_find(&all, "%s", key);
        if (is_current(known, task))
            json_object_set(reports, key, known);
        else if (pair != NULL)
            add_report(reports, pair, task);
        else if (unknown <= FEW_REPORTS && xv_kv_get(agent->kv, key, &call, &one, NULL) == 0 &&
                 one.count > 0)
            add_report(reports, &one.pairs[0], task);
        xv_kv_list_free(&one);
    }
    xv_kv_list_free(&all);
}

void xv_mirror_learn(struct xv_agent *agent, const struct xv_view *view)
{
    struct xv_mirror *mirror = agent->mirror;
    json_t *reports = json_object();
    forget(mirror);
    for (size_t i = 0; i < view->job_count; i++) {
        const struct xv_view_job *job = &view->jobs[i];
        remember(mirror, job->job.json, "q/%s", job->job.id);
        for (size_t j = 0; j < job->part_count; j++)
            remember(mirror, job->parts[j].json, "jp/%s/%s", job->job.id, job->parts[j].pool);
        for (size_t j = 0; j < job->task_count; j++)
            remember(mirror, job->tasks[j].json, "%s", job->tasks[j].key);
        learn_reports(agent, reports, job);
    }
    json_decref(mirror->reports);
    mirror->reports = reports;
}
