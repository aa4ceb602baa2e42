/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/site.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

#define NAME_LENGTH_MAX 64

struct xv_site {
    atomic_uint references;
    struct xv_engine *engine;
    struct xv_kv *kv;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    uint32_t users, agents;
    bool closed;
};

static int check_name(const char *name, xvsa_error **error)
{
    size_t length = name == NULL ? 0 : strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (length == 0 || length > NAME_LENGTH_MAX || name[length] != '\0')
        return xv_fail(error, XVSA_ERR_INVALID, "agent",
                       "xvsa_site_options.name: must be 1 to %d of a-z, 0-9 and -",
                       NAME_LENGTH_MAX);
    return 0;
}

int xv_site_open(struct xv_engine *engine, const xvsa_site_options *options,
                 const struct xv_call *call, struct xv_site **ret, xvsa_error **error)
{
    char prefix[NAME_LENGTH_MAX + 16];
    int rc = check_name(options->name, error);
    if (rc == 0 && options->store == NULL)
        rc = xv_fail(error, XVSA_ERR_INVALID, "agent", "xvsa_site_options.store is NULL");
    if (rc != 0)
        return rc;
    struct xv_site *site = calloc(1, sizeof *site);
    if (site == NULL)
        return xv_fail_memory(error);
    snprintf(prefix, sizeof prefix, "/xvsa/1/%s/", options->name);
    const struct xv_kv_options kv_options = {
        .env = xv_engine_env(engine),
        .url = options->store,
        .prefix = prefix,
        .username = options->username,
        .password = options->password,
        .ca_file = options->ca_file,
        .certificate_file = options->certificate_file,
        .key_file = options->key_file,
        .allow_plain = (options->flags & XVSA_SITE_ALLOW_PLAIN_HTTP) != 0,
    };
    rc = xv_kv_open(&kv_options, call, &site->kv, error);
    if (rc != 0) {
        free(site);
        return rc;
    }
    atomic_init(&site->references, 1);
    pthread_mutex_init(&site->lock, NULL);
    xv_condition_init(&site->changed);
    site->engine = xv_engine_ref(engine);
    *ret = site;
    return 0;
}

struct xv_site *xv_site_ref(struct xv_site *site)
{
    atomic_fetch_add_explicit(&site->references, 1, memory_order_relaxed);
    return site;
}

void xv_site_unref(struct xv_site *site)
{
    if (site == NULL || atomic_fetch_sub_explicit(&site->references, 1, memory_order_acq_rel) != 1)
        return;
    if (site->kv != NULL)
        xv_kv_close(site->kv);
    xv_engine_unref(site->engine);
    pthread_cond_destroy(&site->changed);
    pthread_mutex_destroy(&site->lock);
    free(site);
}

int xv_site_close(struct xv_site *site, xvsa_error **error)
{
    int rc = 0;
    struct xv_kv *kv = NULL;
    pthread_mutex_lock(&site->lock);
    if (site->agents > 0)
        rc = xv_fail(error, XVSA_ERR_STATE, "agent", "%u agents of the site have not left it",
                     site->agents);
    else
        site->closed = true;
    while (rc == 0 && site->users > 0)
        pthread_cond_wait(&site->changed, &site->lock);
    if (rc == 0) {
        kv = site->kv;
        site->kv = NULL;
    }
    pthread_mutex_unlock(&site->lock);
    if (kv != NULL)
        xv_kv_close(kv);
    return rc;
}

struct xv_engine *xv_site_engine(const struct xv_site *site)
{
    return site->engine;
}

struct xv_kv *xv_site_kv(const struct xv_site *site)
{
    return site->kv;
}

static int add_to(struct xv_site *site, uint32_t *count, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&site->lock);
    if (site->closed)
        rc = xv_fail(error, XVSA_ERR_STATE, "agent", "the site was closed");
    else
        ++*count;
    pthread_mutex_unlock(&site->lock);
    return rc;
}

static void take_from(struct xv_site *site, uint32_t *count)
{
    pthread_mutex_lock(&site->lock);
    --*count;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
}

int xv_site_enter(struct xv_site *site, xvsa_error **error)
{
    return add_to(site, &site->users, error);
}

void xv_site_leave(struct xv_site *site)
{
    take_from(site, &site->users);
}

bool xv_site_is_closing(struct xv_site *site)
{
    pthread_mutex_lock(&site->lock);
    bool closed = site->closed;
    pthread_mutex_unlock(&site->lock);
    return closed;
}

int xv_site_add_agent(struct xv_site *site, xvsa_error **error)
{
    return add_to(site, &site->agents, error);
}

void xv_site_remove_agent(struct xv_site *site)
{
    take_from(site, &site->agents);
}
