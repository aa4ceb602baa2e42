/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tasks: calls that the server runs on its own time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/events.h"
#include "xenapi/operations_internal.h"

#define EVENT_SECONDS  30
#define POLL_MS        1000
#define LOST_PAUSE_MS  500
#define BUSY_PAUSE_MS  1000
#define BUSY_PAUSE_MAX 10000
#define BUSY_GRACE_MS  600000 /* for a call without deadline */

/* What a wait knows. */
struct watch {
    struct xv_client *client;
    const char *task;
    const char *what;
    const struct xv_call *call;
    char *token;
    uint64_t epoch;
    bool poll; /* the server has no event.from */
};

static int vanished(const struct watch *watch, xvsa_error **error)
{
    xv_error_clear(error);
    return xv_fail(error, XVSA_ERR_UNKNOWN_OUTCOME, XV_COMPONENT,
                   "%s: the pool forgot the task %s, so that it may or may not have happened",
                   watch->what, watch->task);
}

static int fetch(const struct watch *watch, struct xv_value **ret, xvsa_error **error)
{
    xvsa_error *failure = NULL;
    int rc = xv_ask(watch->client, "task.get_record", xv_params(watch->task, NULL), true,
                    watch->call, ret, &failure);
    if (rc != 0 && xv_errors_is_gone(failure))
        rc = vanished(watch, &failure);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

static bool is_pending(const struct xv_value *record)
{
    const char *status = xv_value_get_string(record, "status", "pending");
    return strcmp(status, "pending") == 0 || strcmp(status, "cancelling") == 0;
}

/* Looks through the events for the task's last state. *ret stays NULL when they have none. */
static int read_events(struct watch *watch, const struct xv_value *answer, struct xv_value **ret,
                       xvsa_error **error)
{
    const struct xv_value *events = xv_value_get(answer, "events");
    const char *token = xv_value_get_string(answer, "token", "");
    free(watch->token);
    watch->token = strdup(token);
    if (watch->token == NULL)
        return xv_fail_memory(error);
    for (size_t i = xv_value_count(events); i > 0; i--) {
        const struct xv_value *event = xv_value_at(events, i - 1);
        if (strcmp(xv_value_get_string(event, "ref", ""), watch->task) != 0)
            continue;
        if (strcmp(xv_value_get_string(event, "operation", ""), "del") == 0)
            return vanished(watch, error);
        const struct xv_value *snapshot = xv_value_get(event, "snapshot");
        if (snapshot == NULL)
            continue;
        *ret = xv_value_copy(snapshot);
        return *ret == NULL ? xv_fail_memory(error) : 0;
    }
    return 0;
}

/* Waits for something to happen to the task. */
static int wait_event(struct watch *watch, struct xv_value **ret, xvsa_error **error)
{
    char class_name[256];
    int64_t seconds = xv_call_left(watch->call, EVENT_SECONDS * 1000) / 1000;
    struct xv_value *answer = NULL;
    xvsa_error *failure = NULL;
    snprintf(class_name, sizeof class_name, "task/%s", watch->task);
    int rc = xv_events_from(watch->client, xv_params(class_name, NULL), watch->token,
                            seconds < 1 ? 1 : (double)seconds, watch->call, &answer, &failure);
    if (rc == 0) {
        rc = read_events(watch, answer, ret, &failure);
    } else if (xvsa_error_xenapi_code(failure) != NULL || rc == XVSA_ERR_PROTOCOL ||
               (rc == XVSA_ERR_TIMEOUT &&
                xv_call_check(watch->call, XV_COMPONENT, "waiting", NULL) == 0)) {
        xv_log(watch->client->env, XVSA_LOG_INFO, XV_COMPONENT, "polling the task instead: %s",
               xvsa_error_message(failure));
        watch->poll = true;
        rc = 0;
    }
    xv_value_free(answer);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

static int await_end(struct watch *watch, struct xv_value **ret, xvsa_error **error)
{
    struct xv_value *record = NULL;
    bool anew = true;
    int rc = 0;
    for (;;) {
        /* After a new login tokens are void and the task may be lost. */
        uint64_t epoch = xv_client_epoch(watch->client);
        if (epoch != watch->epoch) {
            watch->epoch = epoch;
            watch->token[0] = '\0';
            anew = true;
        }
        rc = anew || watch->poll ? fetch(watch, &record, error) : wait_event(watch, &record, error);
        anew = false;
        if (rc != 0 || (record != NULL && !is_pending(record)))
            break;
        xv_value_free(record);
        record = NULL;
        if (watch->poll)
            rc = xv_call_sleep(watch->call, POLL_MS, XV_COMPONENT, watch->what, error);
        else
            rc = xv_call_check(watch->call, XV_COMPONENT, watch->what, error);
        if (rc != 0)
            break;
    }
    *ret = record;
    return rc;
}

static int judge(const struct watch *watch, const struct xv_value *record, struct xv_value **ret,
                 xvsa_error **error)
{
    const char *status = xv_value_get_string(record, "status", "");
    const struct xv_value *description = xv_value_get(record, "error_info");
    if (strcmp(status, "success") == 0)
        return ret == NULL
                   ? 0
                   : xv_xmlrpc_decode_result(xv_value_get_string(record, "result", ""), ret, error);
    if (xv_value_count(description) > 0) {
        char *session = xv_client_session(watch->client);
        int rc = xv_errors_fail(watch->what, description, session, error);
        xv_free_secret(session);
        return rc;
    }
    if (strcmp(status, "cancelled") == 0)
        return xv_fail(error, XVSA_ERR_CANCELLED, XV_COMPONENT,
                       "%s: somebody cancelled its task in the pool", watch->what);
    return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s: its task ended as \"%.40s\"",
                   watch->what, status);
}

int xv_task_wait(struct xv_client *client, const char *task, const char *what,
                 const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    struct xv_value *record = NULL;
    struct watch watch = {.client = client, .task = task, .what = what, .call = call};
    watch.epoch = xv_client_epoch(client);
    watch.token = strdup("");
    if (watch.token == NULL)
        return xv_fail_memory(error);
    int rc = await_end(&watch, &record, error);
    if (rc == 0)
        rc = judge(&watch, record, ret, error);
    xv_value_free(record);
    free(watch.token);
    return rc;
}

static void try_task(struct xv_client *client, const char *method, struct xv_value *params)
{
    struct xv_call call = xv_call_within(NULL, XV_GRACE_MS);
    xvsa_error *error = NULL;
    if (xv_ask(client, method, params, true, &call, NULL, &error) != 0 && !xv_errors_is_gone(error))
        xv_log(client->env, XVSA_LOG_DEBUG, XV_COMPONENT, "%s", xvsa_error_message(error));
    xvsa_error_unref(error);
}

void xv_task_abandon(struct xv_client *client, const char *task)
{
    /* A pending task survives task.destroy unless its status says that it has ended. */
    try_task(client, "task.set_status", xv_params(task, "cancelled", NULL));
    try_task(client, "task.destroy", xv_params(task, NULL));
}

static void stop_task(struct xv_client *client, const char *task)
{
    try_task(client, "task.cancel", xv_params(task, NULL));
    xv_task_abandon(client, task);
}

/* Ends the tasks of a name for a disk; false when there is none. */
static bool abandon_named(struct xv_client *client, const char *name, const char *vdi_ref,
                          const struct xv_call *call)
{
    struct xv_value *refs = NULL;
    bool found = false;
    if (xv_ask(client, "task.get_by_name_label", xv_params(name, NULL), true, call, &refs, NULL) !=
        0)
        return false;
    for (size_t i = 0; i < xv_value_count(refs); i++) {
        const char *ref = xv_value_string(xv_value_at(refs, i), "");
        char *text = NULL;
        if (xv_ask_text(client, "task.get_name_description", xv_params(ref, NULL), call, &text,
                        NULL) == 0 &&
            strcmp(text, vdi_ref) == 0) {
            stop_task(client, ref);
            found = true;
        }
        free(text);
    }
    xv_value_free(refs);
    return found;
}

bool xv_task_abandon_all(struct xv_client *client, const char *label, const char *vdi_ref,
                         const struct xv_call *call)
{
    char name[128];
    snprintf(name, sizeof name, XV_TASK_PREFIX "%s", label);
    return abandon_named(client, name, vdi_ref, call);
}

/* The pool may have made a task, or be about to, whose answer nobody waited for. */
static void abandon_lost(struct xv_client *client, const char *name, const char *vdi_ref)
{
    struct xv_call call = xv_call_within(NULL, XV_GRACE_MS);
    if (!abandon_named(client, name, vdi_ref, &call) &&
        xv_call_sleep(&call, LOST_PAUSE_MS, XV_COMPONENT, name, NULL) == 0)
        abandon_named(client, name, vdi_ref, &call);
}

int xv_task_create(struct xv_client *client, const char *label, const char *vdi_ref,
                   const struct xv_call *call, char **ret, xvsa_error **error)
{
    char name[128];
    struct xv_value *value = NULL;
    snprintf(name, sizeof name, XV_TASK_PREFIX "%s", label);
    /* Twice the same task does no harm: the server collects forgotten ones. */
    int rc =
        xv_ask(client, "task.create", xv_params(name, vdi_ref, NULL), true, call, &value, error);
    if (rc == XVSA_ERR_CANCELLED || rc == XVSA_ERR_TIMEOUT)
        abandon_lost(client, name, vdi_ref);
    if (rc != 0)
        return rc;
    *ret = strdup(xv_value_string(value, ""));
    xv_value_free(value);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}

static int run_once(struct xv_client *client, const char *method, const struct xv_value *params,
                    const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    char async[128];
    struct xv_value *answer = NULL;
    snprintf(async, sizeof async, "Async.%s", method);
    int rc = xv_client_call(client, async, params, false, call, &answer, error);
    if (rc != 0)
        return rc;
    const char *task = xv_value_string(answer, "");
    if (strncmp(task, "OpaqueRef:", 10) != 0) {
        xv_value_free(answer);
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "%s answers with no task", async);
    }
    rc = xv_task_wait(client, task, method, call, ret, error);
    if (rc != 0 && xv_call_check(call, XV_COMPONENT, method, NULL) != 0)
        stop_task(client, task);
    else
        try_task(client, "task.destroy", xv_params(task, NULL));
    xv_value_free(answer);
    return rc;
}

int xv_client_run(struct xv_client *client, const char *method, const struct xv_value *params,
                  const struct xv_call *call, struct xv_value **ret, xvsa_error **error)
{
    struct xv_call limit =
        call != NULL && call->deadline_ms != 0 ? *call : xv_call_within(call, BUSY_GRACE_MS);
    int64_t pause = BUSY_PAUSE_MS;
    for (;;) {
        xvsa_error *failure = NULL;
        struct xv_value *value = NULL;
        int rc = run_once(client, method, params, call, &value, &failure);
        const char *code = xvsa_error_xenapi_code(failure);
        bool busy = rc != 0 && code != NULL && xv_errors_find(code).remedy == XV_REMEDY_BUSY;
        if (rc == 0) {
            if (ret != NULL)
                *ret = value;
            else
                xv_value_free(value);
            return 0;
        }
        if (!busy || xv_call_left(&limit, -1) <= pause) {
            if (error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
        rc = xv_call_sleep(call, pause, XV_COMPONENT, method, error);
        if (rc != 0)
            return rc;
        pause = pause * 2 > BUSY_PAUSE_MAX ? BUSY_PAUSE_MAX : pause * 2;
    }
}
