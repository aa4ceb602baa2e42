/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the files of the directory target share.
 */
#ifndef XV_TARGET_DIRECTORY_H
#define XV_TARGET_DIRECTORY_H

#include <pthread.h>

#include "target/internal.h"

/* A set of folder names relative to the root; "" is the root. */
struct xv_folder_set {
    char **names;
    size_t count;
    size_t capacity;
};

struct xv_directory {
    int root;
    char *path;
    bool no_tmpfile;       /* the file system lacks O_TMPFILE; set once, read without the lock */
    atomic_bool no_direct; /* it lacks O_DIRECT */
    pthread_mutex_t lock;  /* guards known and dirty */
    struct xv_folder_set
        known; /* folders that were used: they exist and their parents are marked */
    struct xv_folder_set dirty; /* folders with entries that no barrier has made durable */
    pthread_mutex_t
        barrier; /* held for a whole barrier, so that none returns before an earlier one */
    bool failed; /* a folder could not be synchronised: what it holds is not known; guarded
                                by barrier */
};

/* Adds name unless it is there; fails without memory. */
bool xv_folder_set_add(struct xv_folder_set *set, const char *name, size_t length);
bool xv_folder_set_has(const struct xv_folder_set *set, const char *name, size_t length);
void xv_folder_set_free(struct xv_folder_set *set);

int32_t xv_directory_put(void *instance, const xvsa_target_call *call, const char *name,
                         const xvsa_buffer *pieces, uint32_t count, uint32_t flags,
                         xvsa_error **error);
int32_t xv_directory_barrier(void *instance, const xvsa_target_call *call, xvsa_error **error);
int32_t xv_directory_list(void *instance, const xvsa_target_call *call, const char *prefix,
                          const char *after, xvsa_list_fn fn, void *sink, xvsa_error **error);
/* Removes temporary files that no living writer holds. Failing to is no error. */
void xv_directory_clean(const struct xv_directory *directory);

/* Temporary files begin with it: no object's name can. */
#define XV_TEMP_PREFIX ".xvsa-tmp-"

#endif
