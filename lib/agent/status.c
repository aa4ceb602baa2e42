/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The JSON document "agent", and metrics.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/own.h"
#include "base/buffer.h"

#define METRICS_MAX (1u << 20)

static const char *state_name(struct xv_agent *agent)
{
    if (agent->left)
        return "left";
    if (atomic_load(&agent->draining))
        return "draining";
    switch (xv_member_state(agent->member)) {
    case XV_MEMBER_JOINED:
        return "joined";
    case XV_MEMBER_SUSPECT:
        return "suspect";
    default:
        return "lost";
    }
}

static json_t *task_to_json(struct xv_own_task *task)
{
    xvsa_progress now = {0};
    pthread_mutex_lock(&task->lock);
    struct xv_job *job = task->job == NULL ? NULL : xv_job_ref(task->job);
    pthread_mutex_unlock(&task->lock);
    if (job != NULL)
        xv_job_progress(job, &now);
    xv_job_unref(job);
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:b, s:I, s:I}", "job", task->job_id, "subject",
                     task->subject, "name", xv_json_text(task->name), "attempt",
                     (json_int_t)task->attempt, "token", (json_int_t)task->token, "lost",
                     (int)atomic_load(&task->lost), "bytes_done", (json_int_t)now.bytes_done,
                     "bytes_total", (json_int_t)now.bytes_total);
}

int xv_agent_status(struct xv_agent *agent, char **ret, xvsa_error **error)
{
    json_t *tasks = json_array();
    struct xv_epoch epoch = {0};
    pthread_mutex_lock(&agent->lock);
    const char *state = state_name(agent);
    uint32_t generation = 0;
    if (agent->member != NULL) {
        generation = xv_member_generation(agent->member);
        xv_member_epoch(agent->member, &epoch);
    }
    size_t units = xv_help_count(agent);
    for (struct xv_own_task *task = agent->tasks; task != NULL; task = task->next) {
        if (!task->ended)
            json_array_append_new(tasks, task_to_json(task));
    }
    pthread_mutex_unlock(&agent->lock);
    return xv_json_print(
        json_pack("{s:s, s:s, s:{s:s, s:o}, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:o, s:o}", "member",
                  agent->name, "state", state, "pool", "uuid", agent->pool_uuid, "name",
                  xv_json_text(agent->pool_name), "version", xvsa_version_string(), "store",
                  (int)atomic_load(&agent->store_answers), "reaches_pool",
                  (int)atomic_load(&agent->reaches_pool), "term",
                  (json_int_t)atomic_load(&agent->term), "joined", (json_int_t)generation,
                  "generation", (json_int_t)epoch.gen, "max_disks", (json_int_t)agent->max_disks,
                  "units", xv_json_count(units), "tasks", tasks),
        ret, error);
}

/* ---- metrics ---- */

struct metric {
    const char *name, *kind, *help;
    uint64_t value;
};

static int add_metric(struct xv_buffer *text, const struct metric *metric, const char *labels,
                      xvsa_error **error)
{
    return xv_buffer_format(text, error, "# HELP %s %s\n# TYPE %s %s\n%s{%s} %" PRIu64 "\n",
                            metric->name, metric->help, metric->name, metric->kind, metric->name,
                            labels, metric->value);
}

static int add_tasks(struct xv_buffer *text, struct xv_agent *agent, const char *labels,
                     xvsa_error **error)
{
    int rc = xv_buffer_format(text, error,
                              "# HELP xvsa_tasks_total Tasks that this member ended, by how.\n"
                              "# TYPE xvsa_tasks_total counter\n");
    for (int state = XV_TASK_PARKED; rc == 0 && state <= XV_TASK_CANCELLED; state++)
        rc = xv_buffer_format(text, error, "xvsa_tasks_total{%s,state=\"%s\"} %" PRIu64 "\n",
                              labels, xv_task_state_name((enum xv_task_state)state),
                              (uint64_t)atomic_load(&agent->figures.tasks[state]));
    return rc;
}

/* A label's value with what the format gives a meaning escaped. */
static void escape(const char *text, char *ret, size_t size)
{
    size_t length = 0;
    for (const char *c = text; *c != '\0' && length + 3 < size; c++) {
        if (*c == '\\' || *c == '"')
            ret[length++] = '\\';
        ret[length++] = (char)(*c == '\n' ? ' ' : *c);
    }
    ret[length] = '\0';
}

static int64_t running_bytes(struct xv_agent *agent, uint32_t *ret_tasks)
{
    int64_t bytes = 0;
    *ret_tasks = 0;
    for (struct xv_own_task *task = agent->tasks; task != NULL; task = task->next) {
        xvsa_progress now = {0};
        pthread_mutex_lock(&task->lock);
        if (task->job != NULL && !task->ended)
            xv_job_progress(task->job, &now);
        pthread_mutex_unlock(&task->lock);
        *ret_tasks += !task->ended;
        bytes += (int64_t)now.bytes_done;
    }
    return bytes;
}

static int add_metrics(struct xv_buffer *text, const struct metric *metrics, size_t count,
                       const char *labels, xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = add_metric(text, &metrics[i], labels, error);
    return rc;
}

static int add_gauges(struct xv_buffer *text, struct xv_agent *agent, const char *labels,
                      xvsa_error **error)
{
    uint32_t tasks = 0;
    pthread_mutex_lock(&agent->lock);
    bool up = strcmp(state_name(agent), "joined") == 0;
    size_t units = xv_help_count(agent);
    int64_t bytes = running_bytes(agent, &tasks);
    pthread_mutex_unlock(&agent->lock);
    const struct metric metrics[] = {
        {"xvsa_up", "gauge", "1 while the member is in the site.", up},
        {"xvsa_store_up", "gauge", "1 while the coordination store answers.",
         atomic_load(&agent->store_answers)},
        {"xvsa_pool_up", "gauge", "1 while its pool answers.", atomic_load(&agent->reaches_pool)},
        {"xvsa_term", "gauge", "Term in which it coordinates its pool, 0: it does not.",
         (uint64_t)atomic_load(&agent->term)},
        {"xvsa_tasks", "gauge", "Tasks that it owns now.", tasks},
        {"xvsa_units", "gauge", "Units of others' tasks that it moves now.", units},
        {"xvsa_task_bytes", "gauge", "Bytes dealt with of the tasks that it owns now.",
         (uint64_t)bytes},
        {"xvsa_max_disks", "gauge", "Disks that it moves at once.", agent->max_disks},
    };
    return add_metrics(text, metrics, sizeof metrics / sizeof metrics[0], labels, error);
}

static int add_counters(struct xv_buffer *text, struct xv_agent *agent, const char *labels,
                        xvsa_error **error)
{
    struct xv_figures *figures = &agent->figures;
    const struct metric metrics[] = {
        {"xvsa_tasks_lost_total", "counter", "Tasks that another member took over.",
         atomic_load(&figures->tasks_lost)},
        {"xvsa_units_total", "counter", "Units of others' tasks that it moved.",
         atomic_load(&figures->units)},
        {"xvsa_units_failed_total", "counter", "Units of others' tasks that it gave back.",
         atomic_load(&figures->units_failed)},
        {"xvsa_helped_bytes_total", "counter", "Bytes that it moved for others' tasks.",
         atomic_load(&figures->bytes_helped)},
        {"xvsa_terms_total", "counter", "Times that it became coordinator.",
         atomic_load(&figures->terms)},
        {"xvsa_plans_total", "counter", "Plans that it made as coordinator.",
         atomic_load(&figures->plans)},
        {"xvsa_assignments_total", "counter", "Tasks that it assigned as coordinator.",
         atomic_load(&figures->assignments)},
        {"xvsa_take_overs_total", "counter", "Tasks of dead owners that it gave to others.",
         atomic_load(&figures->take_overs)},
        {"xvsa_store_failures_total", "counter", "Failed questions to the coordination store.",
         atomic_load(&figures->store_failures)},
    };
    return add_metrics(text, metrics, sizeof metrics / sizeof metrics[0], labels, error);
}

int xv_agent_metrics(struct xv_agent *agent, char **ret, xvsa_error **error)
{
    char name[160];
    char labels[320];
    struct xv_buffer text;
    escape(agent->name, name, sizeof name);
    snprintf(labels, sizeof labels, "member=\"%s\",pool=\"%s\"", name, agent->pool_uuid);
    xv_buffer_init(&text, METRICS_MAX);
    int rc = add_gauges(&text, agent, labels, error);
    if (rc == 0)
        rc = add_counters(&text, agent, labels, error);
    if (rc == 0)
        rc = add_tasks(&text, agent, labels, error);
    if (rc != 0) {
        xv_buffer_free(&text);
        return rc;
    }
    *ret = xv_buffer_steal(&text);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}
