/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef XV_TESTS_SCHED_SCENARIO_H
#define XV_TESTS_SCHED_SCENARIO_H

#include <jansson.h>

#include "sim.h"

/* Fills sim from a scenario file (docs/scheduling.md); ends the program with a message when it is
 * not one. */
void scenario_read(const char *path, struct sim *sim);
/* The outcome of a run. */
json_t *scenario_outcome(const struct sim *sim, const char *name);

/* Plans 100 000 disks over 1 000 proxies, loses proxies; prints the measurements. */
int scale_run(void);

#endif
