/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The kinds of coordination stores, made for one test each: memory, a file.
 */
#ifndef XV_TESTS_STORES_H
#define XV_TESTS_STORES_H

#include <stdlib.h>

#include "coord/kv.h"
#include "unit.h"

enum store_kind { STORE_MEMORY, STORE_FILE, STORE_KINDS };

struct stores {
    char folder[64];
};

static inline void stores_start(struct stores *stores)
{
    snprintf(stores->folder, sizeof stores->folder, "/tmp/xvsa-kv-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(stores->folder));
}

static inline void stores_stop(struct stores *stores)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", stores->folder);
    ck_assert_int_eq(system(command), 0);
}

static inline bool stores_open_at(struct stores *stores, enum store_kind kind, const char *prefix,
                                  struct xv_kv **ret)
{
    char url[128] = "sqlite:";
    xvsa_error *error = NULL;
    if (kind == STORE_FILE)
        snprintf(url, sizeof url, "sqlite:%s/state.db", stores->folder);
    struct xv_kv_options options = {.url = url, .prefix = prefix};
    ck_ok(xv_kv_open(&options, NULL, ret, &error), error);
    return true;
}

static inline bool stores_open(struct stores *stores, enum store_kind kind, struct xv_kv **ret)
{
    return stores_open_at(stores, kind, "/xvsa/1/test/", ret);
}

#endif
