/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A process that uses a coordination store, for tests that disturb the store or the process.
 */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

const char *drive_text(const json_t *command, const char *name)
{
    return json_string_value(json_object_get(command, name));
}

void drive_set(json_t *answer, const char *name, json_t *value)
{
    if (json_object_set_new(answer, name, value) != 0)
        abort();
}

static int do_open(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)answer;
    struct xv_kv_options options = {
        .url = drive_text(command, "url"),
        .prefix = drive_text(command, "prefix"),
        .username = drive_text(command, "user"),
        .password = drive_text(command, "password"),
        .ca_file = drive_text(command, "ca"),
        .certificate_file = drive_text(command, "certificate"),
        .key_file = drive_text(command, "key"),
        .allow_plain = true,
    };
    return xv_kv_open(&options, &drive->call, &drive->kv, error);
}

static int do_range(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    struct xv_kv_list list;
    int rc = xv_kv_range(drive->kv, drive_text(command, "key"), &drive->call, &list, error);
    if (rc != 0)
        return rc;
    json_t *pairs = json_object();
    for (size_t i = 0; i < list.count; i++)
        drive_set(pairs, list.pairs[i].key, json_string(list.pairs[i].value));
    drive_set(answer, "pairs", pairs);
    drive_set(answer, "revision", json_integer(list.revision));
    xv_kv_list_free(&list);
    return 0;
}

static int do_put(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    struct xv_kv_op op = {.verb = XV_KV_PUT,
                          .key = drive_text(command, "key"),
                          .value = drive_text(command, "value")};
    bool succeeded = false;
    int64_t revision = 0;
    int rc = xv_kv_txn(drive->kv, NULL, 0, &op, 1, &drive->call, &succeeded, &revision, error);
    drive_set(answer, "revision", json_integer(revision));
    return rc;
}

/* Writes size bytes again and again under one key, to fill the store. */
static int do_fill(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    size_t size = (size_t)json_integer_value(json_object_get(command, "size"));
    json_int_t count = json_integer_value(json_object_get(command, "count"));
    char *value = malloc(size + 1);
    if (value == NULL)
        abort();
    memset(value, 'x', size);
    value[size] = '\0';
    struct xv_kv_op op = {.verb = XV_KV_PUT, .key = drive_text(command, "key"), .value = value};
    int rc = 0;
    json_int_t done = 0;
    for (; rc == 0 && done < count; done++) {
        bool succeeded = false;
        rc = xv_kv_txn(drive->kv, NULL, 0, &op, 1, &drive->call, &succeeded, NULL, error);
    }
    drive_set(answer, "done", json_integer(done));
    free(value);
    return rc;
}

/* One round of do_work: two keys at once without any condition, then one that must not be there. */
static int work_once(struct drive *drive, const char *name, int round, json_t *unknown,
                     json_t *refused, xvsa_error **error)
{
    char keys[3][64];
    for (int i = 0; i < 3; i++)
        snprintf(keys[i], sizeof keys[i], "%c/%s/%05d", "abc"[i], name, round);
    struct xv_kv_op both[] = {{XV_KV_PUT, keys[0], "1", 0}, {XV_KV_PUT, keys[1], "1", 0}};
    struct xv_kv_op once = {XV_KV_PUT, keys[2], "1", 0};
    struct xv_kv_compare absent = {keys[2], XV_KV_CREATE_REVISION, 0, NULL};
    for (int i = 0; i < 2; i++) {
        bool succeeded = false;
        int rc =
            i == 0
                ? xv_kv_txn(drive->kv, NULL, 0, both, 2, &drive->call, &succeeded, NULL, error)
                : xv_kv_txn(drive->kv, &absent, 1, &once, 1, &drive->call, &succeeded, NULL, error);
        if (rc == XVSA_ERR_UNKNOWN_OUTCOME) {
            xv_error_clear(error);
            json_array_append_new(unknown, json_string(keys[i * 2]));
        } else if (rc != 0) {
            return rc;
        } else if (!succeeded) {
            json_array_append_new(refused, json_string(keys[i * 2]));
        }
    }
    return 0;
}

/* Transactions whose traces show whether each was done once and whole: nobody else writes the keys. */
static int do_work(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    json_t *unknown = json_array();
    json_t *refused = json_array();
    json_int_t count = json_integer_value(json_object_get(command, "count"));
    int rc = 0;
    json_int_t done = 0;
    for (; rc == 0 && done < count; done++) {
        int64_t timeout_ms = json_integer_value(json_object_get(command, "each_ms"));
        if (timeout_ms > 0)
            drive->call = xv_call_within(NULL, timeout_ms);
        rc = work_once(drive, drive_text(command, "name"), (int)done, unknown, refused, error);
    }
    drive_set(answer, "done", json_integer(done));
    drive_set(answer, "unknown", unknown);
    drive_set(answer, "refused", refused);
    return rc;
}

/* Claims a key that others claim and give back, too. Each claim leaves a trace of its own. */
static int do_claim(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    const char *name = drive_text(command, "name");
    json_int_t count = json_integer_value(json_object_get(command, "count"));
    json_t *outcomes = json_object();
    int rc = 0;
    for (json_int_t i = 0; rc == 0 && i < count; i++) {
        char trace[64];
        bool succeeded = false;
        bool given = false;
        snprintf(trace, sizeof trace, "d/%s/%05d", name, (int)i);
        struct xv_kv_compare free_compare = {"claim", XV_KV_CREATE_REVISION, 0, NULL};
        struct xv_kv_op ops[] = {{XV_KV_PUT, "claim", trace, 0}, {XV_KV_PUT, trace, "1", 0}};
        struct xv_kv_compare ours = {"claim", XV_KV_VALUE, 0, trace};
        struct xv_kv_op give = {.verb = XV_KV_DELETE, .key = "claim"};
        drive->call = xv_call_within(NULL, 30000);
        rc = xv_kv_txn(drive->kv, &free_compare, 1, ops, 2, &drive->call, &succeeded, NULL, error);
        if (rc == 0)
            drive_set(outcomes, trace, json_boolean(succeeded));
        if (rc == 0 && succeeded)
            rc = xv_kv_txn(drive->kv, &ours, 1, &give, 1, &drive->call, &given, NULL, error);
        if (rc == 0 && given != succeeded)
            rc = xv_fail(error, XVSA_ERR_STATE, "drive", "the claim %s was taken away", trace);
    }
    drive_set(answer, "outcomes", outcomes);
    return rc;
}

static int do_watch(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)answer;
    xv_kv_watch_close(drive->watch);
    drive->watch = NULL;
    return xv_kv_watch_open(drive->kv, drive_text(command, "key"), &drive->watch, error);
}

static int do_wait(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)command;
    bool changed = false;
    int64_t left = xv_call_left(&drive->call, 60000);
    int rc = xv_kv_watch_wait(drive->watch, left, NULL, &changed, error);
    drive_set(answer, "changed", json_boolean(changed));
    return rc;
}

static int do_lease(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    int64_t lease = 0;
    bool succeeded = false;
    int64_t ttl_ms = json_integer_value(json_object_get(command, "ttl_ms"));
    int rc = xv_kv_lease_grant(drive->kv, ttl_ms, &drive->call, &lease, error);
    struct xv_kv_op op = {XV_KV_PUT, drive_text(command, "key"), "1", lease};
    if (rc == 0)
        rc = xv_kv_txn(drive->kv, NULL, 0, &op, 1, &drive->call, &succeeded, NULL, error);
    drive_set(answer, "lease", json_integer(lease));
    return rc;
}

static int do_renew(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    int64_t left_ms = 0;
    int64_t lease = json_integer_value(json_object_get(command, "lease"));
    int rc = xv_kv_lease_renew(drive->kv, lease, &drive->call, &left_ms, error);
    drive_set(answer, "left_ms", json_integer(left_ms));
    return rc;
}

static drive_fn find(const char *name)
{
    static const struct {
        const char *name;
        drive_fn fn;
    } commands[] = {
        {"open", do_open},   {"range", do_range}, {"put", do_put},   {"fill", do_fill},
        {"work", do_work},   {"watch", do_watch}, {"wait", do_wait}, {"lease", do_lease},
        {"renew", do_renew}, {"claim", do_claim},
    };
    for (size_t i = 0; name != NULL && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].fn;
    }
    return name == NULL ? NULL : drive_member_command(name);
}

static json_t *run(struct drive *drive, const json_t *command)
{
    json_t *answer = json_object();
    xvsa_error *error = NULL;
    json_int_t timeout_ms = json_integer_value(json_object_get(command, "timeout_ms"));
    drive_fn fn = find(drive_text(command, "do"));
    drive->call = xv_call_within(NULL, timeout_ms > 0 ? timeout_ms : 30000);
    int rc = fn == NULL ? xv_fail(&error, XVSA_ERR_INVALID, "drive", "no such command")
                        : fn(drive, command, answer, &error);
    drive_set(answer, "rc", json_string(xvsa_code_name(rc)));
    struct xv_buffer text;
    xv_buffer_init(&text, 65536);
    for (const xvsa_error *cause = error; cause != NULL; cause = xvsa_error_cause(cause)) {
        if (xv_buffer_format(&text, NULL, "%s; ", xvsa_error_message(cause)) != 0)
            abort();
    }
    drive_set(answer, "error", json_string(text.data == NULL ? "" : text.data));
    xv_buffer_free(&text);
    xvsa_error_unref(error);
    return answer;
}

int main(void)
{
    struct drive drive = {0};
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        json_t *command = json_loads(line, 0, NULL);
        json_t *answer = run(&drive, command);
        char *text = json_dumps(answer, JSON_COMPACT);
        puts(text);
        fflush(stdout);
        free(text);
        json_decref(answer);
        json_decref(command);
    }
    free(line);
    xv_member_leave(drive.member);
    xv_kv_watch_close(drive.watch);
    xv_kv_close(drive.kv);
    return 0;
}
