/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * task-drive own|help|job CONFIG
 *
 * One process of several that work on one task, for the tests: its owner, or a helper. Or one with a job of its own, which SIGUSR1
 * suspends and SIGUSR2 resumes; its events go to the standard error. CONFIG is a JSON file. The report of an
 * owner goes to the standard output. SIGUSR1 parks, SIGTERM cancels; a helper ends when the folder of the board has a file "over".
 */
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/handles.h"
#include "board.h"
#include "job/assist.h"

static volatile sig_atomic_t wanted;

static void take_signal(int number)
{
    wanted = number;
}

static void print_line(void *user, int32_t level, const char *component, const char *message)
{
    (void)user;
    fprintf(stderr, "%d %s: %s\n", level, component, message);
}

/* error is read after the call that may set it. */
static void check(int rc, const char *what, xvsa_error **error)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, xvsa_code_name(rc),
            error == NULL ? "" : xvsa_error_message(*error));
    _exit(100);
}

static const char *text_at(const json_t *config, const char *name)
{
    return json_string_value(json_object_get(config, name));
}

static uint64_t number_at(const json_t *config, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(config, name));
}

struct process {
    json_t *config;
    xvsa_context *context;
    xvsa_pool *pool;
    xvsa_target *target;
    xvsa_repo *repo;
    struct board board;
    struct xv_call call;
};

static void open_pool(struct process *process)
{
    xvsa_error *error = NULL;
    const char *url = text_at(process->config, "url");
    const char *print = text_at(process->config, "fingerprint");
    xvsa_pool_options options = XVSA_POOL_OPTIONS_INIT;
    options.urls = &url;
    options.url_count = 1;
    options.fingerprints = &print;
    options.fingerprint_count = 1;
    options.username = "root";
    options.password = "password";
    options.originator = "xvsa";
    options.flags = XVSA_POOL_NO_RECOVERY;
    check(xvsa_pool_open(process->context, &options, NULL, &process->pool, &error), "pool", &error);
    const json_t *proxies = json_object_get(process->config, "proxies");
    for (size_t i = 0; i < json_array_size(proxies); i++) {
        const json_t *row = json_array_get(proxies, i);
        struct xv_proxy *proxy = NULL;
        check(xv_pool_add_proxy(pool_of(process->pool), text_at(row, "name"), text_at(row, "vm"), 4,
                                &process->call, &proxy, &error),
              "proxy", &error);
        xv_proxy_unref(proxy);
    }
}

static void open_all(struct process *process)
{
    xvsa_error *error = NULL;
    xvsa_context_options context = XVSA_CONTEXT_OPTIONS_INIT;
    context.state_path = text_at(process->config, "state");
    context.log = print_line;
    context.log_level = XVSA_LOG_INFO;
    check(xvsa_context_new(&context, &process->context, &error), "context", &error);
    open_pool(process);
    check(xvsa_target_open(process->context, text_at(process->config, "repo"), 0, NULL,
                           &process->target, &error),
          "target", &error);
    xvsa_repo_options options = XVSA_REPO_OPTIONS_INIT;
    options.passphrase = text_at(process->config, "passphrase");
    options.passphrase_size = strlen(options.passphrase);
    check(xvsa_repo_open(process->target, &options, NULL, &process->repo, &error), "repo", &error);
    process->board =
        (struct board){text_at(process->config, "board"), text_at(process->config, "proxy"), 0};
}

static struct xv_job *start(struct process *process, char *facts)
{
    const json_t *config = process->config;
    char token[32];
    xvsa_error *error = NULL;
    struct xv_plan *plan = NULL;
    struct xv_job *job = NULL;
    process->board.token = number_at(config, "token");
    snprintf(token, sizeof token, "%llu", (unsigned long long)process->board.token);
    check(board_write(&process->board, "owner", token, &error), "owner", &error);
    check(xv_plan_new(engine_of(process->context), text_at(config, "spec"), pool_of(process->pool),
                      process->repo->repo, &process->call, &plan, &error),
          "plan", &error);
    const struct xv_task task = {
        .job_id = text_at(config, "job"),
        .tag = text_at(config, "tag"),
        .work_id = text_at(config, "work"),
        .facts = facts,
        .earlier = text_at(config, "earlier"),
        .attempt = (uint32_t)number_at(config, "attempt"),
        .token = process->board.token,
        .unit_bytes = number_at(config, "unit_bytes"),
        .checkpoint_ms = (int64_t)number_at(config, "checkpoint_ms"),
        .proxy = text_at(config, "proxy"),
        .ops = &board_ops,
        .user = &process->board,
    };
    check(xv_job_start_task(plan, &task, &job, &error), "task", &error);
    xv_plan_unref(plan);
    return job;
}

static int own(struct process *process)
{
    char *facts = board_read(&process->board, "facts");
    struct xv_job *job = start(process, facts);
    char *report = NULL;
    xvsa_error *error = NULL;
    int rc = XVSA_ERR_TIMEOUT;
    free(facts);
    while (rc == XVSA_ERR_TIMEOUT) {
        xv_error_clear(&error);
        rc = xv_job_wait(job, 20, &error);
        if (wanted == SIGUSR1)
            xv_job_park(job);
        if (wanted == SIGTERM)
            xv_job_cancel(job, XVSA_CANCEL_NOW);
    }
    check(xv_job_report(job, &report, NULL), "report", NULL);
    puts(report);
    if (rc != 0)
        fprintf(stderr, "ended: %s: %s\n", xvsa_code_name(rc), xvsa_error_message(error));
    xvsa_error_unref(error);
    free(report);
    xv_job_unref(job);
    return rc == 0 ? 0 : rc == XVSA_ERR_FENCED ? 3 : rc == XVSA_ERR_CANCELLED ? 5 : 1;
}

static void print_events(xvsa_job *job)
{
    char *event = NULL;
    while (xvsa_job_next_event(job, 0, &event, NULL) == 0) {
        fprintf(stderr, "event %s\n", event);
        xvsa_free(event);
    }
}

/* Does what signals ask for; tells the state as it shows then. */
static void obey(xvsa_job *job)
{
    xvsa_progress progress = XVSA_PROGRESS_INIT;
    xvsa_error *error = NULL;
    int number = wanted;
    int rc = 0;
    wanted = 0;
    if (number == SIGUSR1)
        rc = xvsa_job_suspend(job, &error);
    else if (number == SIGUSR2)
        rc = xvsa_job_resume(job, &error);
    else if (number == SIGTERM)
        rc = xvsa_job_cancel(job, XVSA_CANCEL_NOW, &error);
    check(rc, "signal", &error);
    check(xvsa_job_get_progress(job, &progress, &error), "progress", &error);
    if (number != 0)
        fprintf(stderr, "state %d\n", progress.state);
}

static int run_job(struct process *process)
{
    xvsa_plan *plan = NULL;
    xvsa_job *job = NULL;
    char *report = NULL;
    xvsa_error *error = NULL;
    check(xvsa_plan_new(process->context, text_at(process->config, "spec"), process->pool,
                        process->repo, NULL, &plan, &error),
          "plan", &error);
    check(xvsa_job_start(plan, &job, &error), "job", &error);
    xvsa_plan_unref(plan);
    int rc = XVSA_ERR_TIMEOUT;
    while (rc == XVSA_ERR_TIMEOUT) {
        print_events(job);
        obey(job);
        rc = xvsa_job_wait(job, 20, NULL);
    }
    print_events(job);
    check(xvsa_job_report(job, &report, NULL), "report", NULL);
    puts(report);
    xvsa_free(report);
    xvsa_job_unref(job);
    return rc == 0 ? 0 : rc == XVSA_ERR_CANCELLED ? 5 : 1;
}

/* Moves a unit of a disk, if one is free. */
static bool help_once(struct process *process, struct xv_assistant *assistant, const char *key)
{
    char name[128];
    uint32_t unit = XV_UNIT_NONE;
    uint32_t left = 0;
    uint64_t bytes = 0;
    xvsa_error *error = NULL;
    struct board *board = &process->board;
    snprintf(name, sizeof name, "%s.board", key);
    char *text = board_read(board, name);
    json_t *disk = text == NULL ? NULL : json_loads(text, 0, NULL);
    free(text);
    if (disk == NULL) /* not published yet */
        return false;
    int rc = board_ops.claim(board, key, &unit, &left, &process->call, &error);
    if (rc != 0 || unit == XV_UNIT_NONE) {
        xvsa_error_unref(error);
        json_decref(disk);
        return false;
    }
    const struct xv_assist_unit work = {
        .key = text_at(process->config, "key"),
        .work_id = text_at(disk, "work"),
        .member = text_at(process->config, "proxy"),
        .proxy_vm_uuid = text_at(process->config, "proxy_vm"),
        .spec = text_at(process->config, "spec"),
        .disk = {.work_id = text_at(disk, "work"),
                 .key = key,
                 .device = text_at(disk, "device"),
                 .sr_uuid = text_at(disk, "sr"),
                 .snapshot_uuid = text_at(disk, "snapshot"),
                 .size = number_at(disk, "size"),
                 .bytes = number_at(disk, "bytes"),
                 .unit_bytes = number_at(disk, "unit_bytes"),
                 .units = (uint32_t)number_at(disk, "units"),
                 .nbd = json_is_true(json_object_get(disk, "nbd"))},
        .unit = unit,
    };
    rc = xv_assist(assistant, &work, &process->call, &bytes, NULL, &error);
    if (rc == 0)
        rc = board_ops.done(board, key, unit, bytes, &process->call, &error);
    else
        board_ops.release(board, key, unit);
    if (rc != 0)
        fprintf(stderr, "unit %u: %s: %s\n", unit, xvsa_code_name(rc), xvsa_error_message(error));
    xvsa_error_unref(error);
    json_decref(disk);
    return rc == 0;
}

static int help(struct process *process)
{
    struct xv_assistant *assistant = NULL;
    xvsa_error *error = NULL;
    const json_t *keys = json_object_get(process->config, "keys");
    check(xv_assistant_new(engine_of(process->context), pool_of(process->pool), process->repo->repo,
                           &assistant, &error),
          "assistant", &error);
    while (!board_has(&process->board, "over") && wanted == 0) {
        bool moved = false;
        for (size_t i = 0; i < json_array_size(keys); i++)
            moved =
                help_once(process, assistant, json_string_value(json_array_get(keys, i))) || moved;
        if (!moved)
            usleep(20000);
    }
    xv_assistant_free(assistant);
    return 0;
}

int main(int count, char **arguments)
{
    struct process process = {0};
    struct sigaction action = {.sa_handler = take_signal};
    if (count != 3)
        return 64;
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    process.config = json_load_file(arguments[2], 0, NULL);
    if (process.config == NULL)
        return 65;
    open_all(&process);
    int code = strcmp(arguments[1], "own") == 0   ? own(&process)
               : strcmp(arguments[1], "job") == 0 ? run_job(&process)
                                                  : help(&process);
    xvsa_repo_unref(process.repo);
    xvsa_target_unref(process.target);
    xvsa_pool_unref(process.pool);
    xvsa_context_unref(process.context);
    json_decref(process.config);
    return code;
}
