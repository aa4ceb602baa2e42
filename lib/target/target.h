/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Storage targets: the registry of URL schemes, and one instance with retries, limits and deadlines
 * around the embedder's or a built-in vtable. Nothing above knows which one it has. All functions on a
 * xv_target are thread-safe.
 */
#ifndef XV_TARGET_TARGET_H
#define XV_TARGET_TARGET_H

#include "base/call.h"
#include "base/env.h"

/* The longest object that is read whole; a pack is half of it at most. */
#define XV_OBJECT_MAX (64u << 20)

struct xv_target_registry;

int xv_target_registry_new(struct xv_target_registry **ret, xvsa_error **error) XV_MUST_CHECK;
/* Calls every destroy member. */
void xv_target_registry_free(struct xv_target_registry *registry);
int xv_target_registry_add(struct xv_target_registry *registry, const char *scheme,
                           const xvsa_target_ops *ops, void *user,
                           xvsa_error **error) XV_MUST_CHECK;

struct xv_target;

int xv_target_open(struct xv_target_registry *registry, const struct xv_env *env, const char *url,
                   uint32_t flags, const char *options, struct xv_target **ret,
                   xvsa_error **error) XV_MUST_CHECK;
struct xv_target *xv_target_ref(struct xv_target *target);
void xv_target_unref(struct xv_target *target);
/* URL without secrets, for messages and documents. */
const char *xv_target_url(const struct xv_target *target);

int xv_target_put(struct xv_target *target, const char *name, const xvsa_buffer *pieces,
                  uint32_t count, uint32_t flags, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Exactly length bytes; CORRUPT when the object is shorter. */
int xv_target_get(struct xv_target *target, const char *name, uint64_t offset, void *data,
                  uint64_t length, const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
/* The whole object, at most limit bytes (LIMIT beyond), in memory that the caller frees. */
int xv_target_get_all(struct xv_target *target, const char *name, uint64_t limit, uint8_t **ret,
                      uint64_t *ret_length, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_target_stat(struct xv_target *target, const char *name, uint64_t *ret_length,
                   const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_target_list(struct xv_target *target, const char *prefix, xvsa_list_fn fn, void *sink,
                   const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_target_remove(struct xv_target *target, const char *name, const struct xv_call *call,
                     xvsa_error **error) XV_MUST_CHECK;
int xv_target_barrier(struct xv_target *target, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;
/* UNSUPPORTED when the target cannot tell. */
int xv_target_space(struct xv_target *target, uint64_t *ret_total, uint64_t *ret_free,
                    const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* Races writers for the same names to find out whether XVSA_PUT_IF_ABSENT holds. */
int xv_target_probe(struct xv_target *target, bool *ret_if_absent, const struct xv_call *call,
                    xvsa_error **error) XV_MUST_CHECK;
/* The conformance kit behind xvsa_target_check: JSON text that the caller frees. */
int xv_target_check(struct xv_target *target, const struct xv_call *call, char **ret_json,
                    xvsa_error **error) XV_MUST_CHECK;

extern const xvsa_target_ops xv_directory_ops;
extern const xvsa_target_ops xv_memory_ops;

#endif
