/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the driver share. A command is a JSON object in one line of the input with "do";
 * its answer is one line of the output: {"rc": name of the code, "error": message, ...}.
 */
#ifndef XV_TESTS_COORD_DRIVE_H
#define XV_TESTS_COORD_DRIVE_H

#include <jansson.h>

#include "coord/member.h"

struct drive {
    struct xv_kv *kv;
    struct xv_kv_watch *watch;
    struct xv_member *member;
    struct xv_call call; /* of the command */
};

/* A command's work: fills answer beside "rc" and "error". */
typedef int (*drive_fn)(struct drive *drive, const json_t *command, json_t *answer,
                        xvsa_error **error);

/* A text of the command; NULL when it has none. */
const char *drive_text(const json_t *command, const char *name);
void drive_set(json_t *answer, const char *name, json_t *value);
/* The work of a command about members; NULL when there is none of that name. */
drive_fn drive_member_command(const char *name);

#endif
