/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Takes the members that nobody wants out of the records of get_all_records before anything parses them:
 * of a pool's tens of megabytes an inventory needs a tenth. What is taken out is not checked; what
 * remains is parsed as ever, so an answer whose tags do not match ends as malformed.
 */
#ifndef XV_XENAPI_XMLRPC_PRUNE_H
#define XV_XENAPI_XMLRPC_PRUNE_H

#include <stddef.h>

#define XV_PRUNE_PIECE 65536
#define XV_PRUNE_HELD  1024

enum xv_prune_state {
    XV_PRUNE_PASS,
    XV_PRUNE_PASS_NAME, /* between <name> and </name>, where '<' may stand for itself */
    XV_PRUNE_SKIP,
    XV_PRUNE_SKIP_NAME,
};

struct xv_prune {
    const char *const *wanted; /* NULL at the end */
    enum xv_prune_state state;
    int depth;       /* structs that are open: the answer, its Value, a record, a map */
    unsigned nested; /* members that are open while skipping */
    size_t length;   /* of data: what was held back, then the new piece */
    char data[XV_PRUNE_HELD + XV_PRUNE_PIECE];
};

void xv_prune_init(struct xv_prune *prune, const char *const *wanted);
/* Where the next piece of at most XV_PRUNE_PIECE bytes goes. */
char *xv_prune_room(struct xv_prune *prune);
/* Takes a piece of length bytes from there, 0 at the end. Writes to output, which has room for sizeof
 * prune->data bytes; returns how many. */
size_t xv_prune_pass(struct xv_prune *prune, size_t length, char *output);

#endif
