/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * URL schemes and the vtables behind them.
 */
#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "target/internal.h"

#define SCHEME_MAX 32

struct scheme {
    struct scheme *next;
    char name[SCHEME_MAX + 1];
    xvsa_target_ops ops;
    void *user;
};

struct xv_target_registry {
    pthread_mutex_t lock; /* guards schemes; never held while a vtable is called */
    struct scheme *schemes;
};

int xv_target_registry_new(struct xv_target_registry **ret, xvsa_error **error)
{
    struct xv_target_registry *registry = calloc(1, sizeof *registry);
    if (registry == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&registry->lock, NULL);
    int rc = xv_target_registry_add(registry, "file", &xv_directory_ops, NULL, error);
    if (rc == 0)
        rc = xv_target_registry_add(registry, "memory", &xv_memory_ops, NULL, error);
    if (rc != 0) {
        xv_target_registry_free(registry);
        return rc;
    }
    *ret = registry;
    return 0;
}

void xv_target_registry_free(struct xv_target_registry *registry)
{
    if (registry == NULL)
        return;
    while (registry->schemes != NULL) {
        struct scheme *scheme = registry->schemes;
        registry->schemes = scheme->next;
        if (scheme->ops.destroy != NULL)
            scheme->ops.destroy(scheme->user);
        free(scheme);
    }
    pthread_mutex_destroy(&registry->lock);
    free(registry);
}

static bool scheme_valid(const char *scheme)
{
    size_t length = scheme == NULL ? 0 : strlen(scheme);
    if (length == 0 || length > SCHEME_MAX || !islower((unsigned char)scheme[0]))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)scheme[i];
        if (!islower(c) && !isdigit(c) && c != '+' && c != '-' && c != '.')
            return false;
    }
    return true;
}

static const char *missing_member(const xvsa_target_ops *ops)
{
    if (ops->open == NULL)
        return "open";
    if (ops->close == NULL)
        return "close";
    if (ops->put == NULL)
        return "put";
    if (ops->get == NULL)
        return "get";
    if (ops->stat == NULL)
        return "stat";
    if (ops->list == NULL)
        return "list";
    return ops->remove == NULL ? "remove" : NULL;
}

static struct scheme *find(struct scheme *first, const char *name)
{
    while (first != NULL && strcmp(first->name, name) != 0)
        first = first->next;
    return first;
}

int xv_target_registry_add(struct xv_target_registry *registry, const char *scheme,
                           const xvsa_target_ops *ops, void *user, xvsa_error **error)
{
    if (!scheme_valid(scheme))
        return xv_fail(
            error, XVSA_ERR_INVALID, "target",
            "scheme must be 1 to %d characters of a-z, 0-9, '+', '-', '.', the first a letter",
            SCHEME_MAX);
    if (ops == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "target", "ops is NULL");
    struct scheme *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return xv_fail_memory(error);
    int rc = xv_options_copy(&entry->ops, sizeof entry->ops, ops, "xvsa_target_ops", error);
    const char *missing = rc == 0 ? missing_member(&entry->ops) : NULL;
    if (missing != NULL)
        rc = xv_fail(error, XVSA_ERR_INVALID, "target", "scheme '%s': ops.%s is required", scheme,
                     missing);
    if (rc != 0) {
        free(entry);
        return rc;
    }
    memcpy(entry->name, scheme, strlen(scheme) + 1);
    entry->user = user;
    pthread_mutex_lock(&registry->lock);
    bool taken = find(registry->schemes, scheme) != NULL;
    if (!taken) {
        entry->next = registry->schemes;
        registry->schemes = entry;
    }
    pthread_mutex_unlock(&registry->lock);
    if (taken) {
        free(entry);
        return xv_fail(error, XVSA_ERR_EXISTS, "target", "scheme '%s' is registered already",
                       scheme);
    }
    return 0;
}

/* Leaves out what may be secret in a URL: the user part and the query. */
static char *displayed_url(const char *url)
{
    size_t length = strcspn(url, "?#");
    char *text = calloc(1, length + 1);
    if (text == NULL)
        return NULL;
    const char *authority = strstr(url, "://");
    if (authority == NULL || authority >= url + length) {
        memcpy(text, url, length);
        return text;
    }
    authority += 3;
    size_t head = (size_t)(authority - url);
    size_t host_length = strcspn(authority, "/?#");
    const char *rest = authority;
    for (size_t i = 0; i < host_length; i++) {
        if (authority[i] == '@')
            rest = authority + i + 1;
    }
    memcpy(text, url, head);
    memcpy(text + head, rest, length - (size_t)(rest - url));
    return text;
}

static int look_up(struct xv_target_registry *registry, const char *url, struct xv_target *target,
                   void **ret_user, xvsa_error **error)
{
    char name[SCHEME_MAX + 1] = "";
    size_t length = strcspn(url, ":");
    if (url[length] != ':' || length == 0 || length > SCHEME_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, "target",
                       "a target's URL begins with a scheme, such as file:///srv/backup");
    memcpy(name, url, length);
    pthread_mutex_lock(&registry->lock);
    struct scheme *scheme = find(registry->schemes, name);
    if (scheme != NULL) {
        target->ops = scheme->ops;
        *ret_user = scheme->user;
    }
    pthread_mutex_unlock(&registry->lock);
    if (scheme == NULL)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, "target",
                       "no storage target has the scheme '%s'", name);
    return 0;
}

int xv_target_open(struct xv_target_registry *registry, const struct xv_env *env, const char *url,
                   uint32_t flags, const char *options, struct xv_target **ret, xvsa_error **error)
{
    if (url == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "target", "url is NULL");
    if ((flags & ~XVSA_TARGET_CREATE) != 0)
        return xv_fail(error, XVSA_ERR_INVALID, "target", "unknown flags 0x%x", flags);
    struct xv_target *target = calloc(1, sizeof *target);
    if (target == NULL)
        return xv_fail_memory(error);
    atomic_init(&target->references, 1);
    target->env = env;
    target->url = displayed_url(url);
    void *user = NULL;
    int rc =
        target->url == NULL ? xv_fail_memory(error) : look_up(registry, url, target, &user, error);
    if (rc == 0) {
        xvsa_target_request request = {
            .size = sizeof request, .flags = flags, .url = url, .options = options};
        rc = target->ops.open(user, &request, &target->instance, error);
        if (rc != 0)
            xv_error_wrap(error, rc, "target", "cannot open the storage target %s", target->url);
    }
    if (rc != 0) {
        free(target->url);
        free(target);
        return rc;
    }
    *ret = target;
    return 0;
}

struct xv_target *xv_target_ref(struct xv_target *target)
{
    if (target != NULL)
        atomic_fetch_add_explicit(&target->references, 1, memory_order_relaxed);
    return target;
}

void xv_target_unref(struct xv_target *target)
{
    if (target != NULL &&
        atomic_fetch_sub_explicit(&target->references, 1, memory_order_acq_rel) == 1) {
        target->ops.close(target->instance);
        free(target->url);
        free(target);
    }
}

const char *xv_target_url(const struct xv_target *target)
{
    return target->url;
}
