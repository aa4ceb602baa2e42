/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The driver's commands about members, their coordinator and the epoch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drive.h"

static const char *const states[] = {"joined", "suspect", "lost", "left"};

static int do_join(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)answer;
    struct xv_member_options options = {
        .name = drive_text(command, "name"),
        .pool = drive_text(command, "pool"),
        .ttl_ms = json_integer_value(json_object_get(command, "ttl_ms")),
    };
    return xv_member_join(drive->kv, &options, &drive->call, &drive->member, error);
}

static int do_leave(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)command, (void)answer, (void)error;
    xv_member_leave(drive->member);
    drive->member = NULL;
    return 0;
}

static int do_state(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)command, (void)error;
    struct xv_epoch epoch;
    xv_member_epoch(drive->member, &epoch);
    drive_set(answer, "state", json_string(states[xv_member_state(drive->member)]));
    drive_set(answer, "generation", json_integer(xv_member_generation(drive->member)));
    drive_set(answer, "gen", json_integer(epoch.gen));
    return 0;
}

static int do_elect(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)command;
    int64_t term = 0;
    int rc = xv_member_elect(drive->member, &drive->call, &term, error);
    drive_set(answer, "term", json_integer(term));
    return rc;
}

static int do_resign(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    (void)command, (void)answer;
    return xv_member_resign(drive->member, &drive->call, error);
}

/* A decision of a term: puts key to value. */
static int do_decide(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    char key[XV_COORDINATOR_KEY_MAX];
    int64_t term = json_integer_value(json_object_get(command, "term"));
    struct xv_kv_compare guard = xv_member_guard(drive->member, term, key);
    struct xv_kv_op op = {.verb = XV_KV_PUT,
                          .key = drive_text(command, "key"),
                          .value = drive_text(command, "value")};
    bool succeeded = false;
    int rc = xv_kv_txn(drive->kv, &guard, 1, &op, 1, &drive->call, &succeeded, NULL, error);
    drive_set(answer, "succeeded", json_boolean(succeeded));
    return rc;
}

static int do_epoch(struct drive *drive, const json_t *command, json_t *answer, xvsa_error **error)
{
    struct xv_epoch epoch;
    int64_t at_least = json_integer_value(json_object_get(command, "gen"));
    int rc = at_least == 0
                 ? xv_epoch_read(drive->kv, &drive->call, &epoch, error)
                 : xv_epoch_ensure(drive->kv, at_least, NULL, &drive->call, &epoch, error);
    if (rc == 0) {
        drive_set(answer, "gen", json_integer(epoch.gen));
        drive_set(answer, "site", json_string(epoch.site_uuid));
    }
    return rc;
}

drive_fn drive_member_command(const char *name)
{
    static const struct {
        const char *name;
        drive_fn fn;
    } commands[] = {
        {"join", do_join},     {"leave", do_leave},   {"state", do_state}, {"elect", do_elect},
        {"resign", do_resign}, {"decide", do_decide}, {"epoch", do_epoch},
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].fn;
    }
    return NULL;
}
