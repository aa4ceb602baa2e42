/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The fewest additions to hosts that satisfy a set of needs: minimum set cover with demands.
 * Internal to lib/sched.
 */
#ifndef XV_SCHED_COVER_H
#define XV_SCHED_COVER_H

#include "base/error.h"

#include <stddef.h>

/* After so many steps the search takes the best it has, and says that it is not known to be the
 * fewest. */
#define XV_COVER_STEPS 200000u

struct xv_cover_need {
    const bool *hosts; /* [host]: where an addition counts */
    uint32_t demand;   /* additions */
    bool distinct;     /* each on another host */
};

struct xv_cover {
    uint32_t *additions; /* [host]; the caller's */
    uint32_t sum, at_least;
    bool exact;
};

/* Every need must have enough hosts. ranks[host] breaks ties. */
int xv_cover_solve(size_t hosts, const size_t *ranks, const struct xv_cover_need *needs,
                   size_t count, struct xv_cover *ret, xvsa_error **error) XV_MUST_CHECK;

#endif
