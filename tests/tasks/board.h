/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The operations of a task over a folder that several processes share. A claim belongs to a process as long as that
 * lives. The file "down" puts the folder out of reach, "hands-off" forbids to touch the pool.
 */
#ifndef XV_TESTS_BOARD_H
#define XV_TESTS_BOARD_H

#include "job/share.h"

struct board {
    const char *folder;
    const char *member;
    uint64_t token; /* of the owner; 0: of a helper */
};

extern const struct xv_share_ops board_ops;

bool board_has(const struct board *board, const char *name);
/* Replaces a file of the folder. */
int board_write(const struct board *board, const char *name, const char *text, xvsa_error **error);
/* NULL when there is none; the caller frees it. */
char *board_read(const struct board *board, const char *name);

#endif
