/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/inventory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/thread.h"
#include "xenapi/client_internal.h"
#include "xenapi/errors.h"
#include "xenapi/inventory_store.h"

#define ATTEMPTS 3
#define READERS  4 /* connections that read at once */

static int read_one(struct xv_client *client, const struct xv_class_reader *reader,
                    struct xv_store *store, const char *ref, const struct xv_call *call,
                    xvsa_error **error)
{
    char method[96];
    struct xv_value *record = NULL;
    struct xv_value *params = xv_params(ref, NULL);
    snprintf(method, sizeof method, "%s.get_record", reader->class_name);
    int rc = params == NULL ? xv_fail_memory(error)
                            : xv_client_call(client, method, params, true, call, &record, error);
    xv_value_free(params);
    if (rc == 0)
        rc = reader->read(store, ref, record, error);
    xv_value_free(record);
    return rc;
}

/* Takes *failure for the reason, or puts another one there. */
static int omit(struct xv_client *client, const struct xv_class_reader *reader,
                struct xv_store *store, const char *ref, xvsa_error **failure)
{
    struct xv_omission *omission = xv_list_add(&store->omissions, NULL);
    const char *copy = xv_store_text(store, ref);
    const char *why = xv_store_text(store, xvsa_error_message(*failure));
    if (omission == NULL || copy == NULL || why == NULL) {
        xv_error_clear(failure);
        return xv_fail_memory(failure);
    }
    *omission = (struct xv_omission){reader->class_name, copy, why};
    xv_log(client->env, XVSA_LOG_WARNING, XV_COMPONENT, "the %s %s is left out: %s",
           reader->class_name, ref, why);
    return 0;
}

/* For a class whose records as a whole are not readable, because one of them is not: one by one,
 * leaving out the broken ones. */
static int read_singly(struct xv_client *client, const struct xv_class_reader *reader,
                       struct xv_store *store, const struct xv_call *call, xvsa_error **error)
{
    char method[96];
    struct xv_value *refs = NULL;
    snprintf(method, sizeof method, "%s.get_all", reader->class_name);
    int rc = xv_client_call(client, method, NULL, true, call, &refs, error);
    for (size_t i = 0; rc == 0 && i < xv_value_count(refs); i++) {
        const char *ref = xv_value_string(xv_value_at(refs, i), "");
        xvsa_error *failure = NULL;
        rc = read_one(client, reader, store, ref, call, &failure);
        if (rc == XVSA_ERR_PROTOCOL || xv_errors_is_gone(failure)) {
            rc = rc == XVSA_ERR_PROTOCOL ? omit(client, reader, store, ref, &failure) : 0;
        }
        if (rc != 0 && error != NULL)
            *error = xvsa_error_ref(failure);
        xvsa_error_unref(failure);
    }
    xv_value_free(refs);
    return rc;
}

static int read_class(struct xv_client *client, const struct xv_class_reader *reader,
                      struct xv_store *store, const struct xv_call *call, xvsa_error **error)
{
    struct xv_list *list = xv_store_list(store, reader);
    xvsa_error *failure = NULL;
    int rc = xv_client_each_part(client, reader->class_name, reader->members, reader->read, store,
                                 call, &failure);
    if (rc == XVSA_ERR_PROTOCOL && xvsa_error_http_status(failure) == 0) {
        xv_log(client->env, XVSA_LOG_WARNING, XV_COMPONENT, "%s", xvsa_error_message(failure));
        xv_error_clear(&failure);
        if (list != NULL)
            list->count = 0;
        rc = read_singly(client, reader, store, call, &failure);
    }
    if (rc == XVSA_ERR_UNSUPPORTED && reader->optional) {
        xv_error_clear(&failure);
        rc = 0;
    }
    if (rc != 0 && error != NULL) {
        *error = failure;
        xv_error_wrap(error, rc, XV_COMPONENT, "cannot read the pool's inventory");
    } else {
        xvsa_error_unref(failure);
    }
    return rc;
}

/* Threads that share the classes; each fills a store of its own. */
struct gang {
    struct xv_client *client;
    const struct xv_call *call;
    atomic_size_t next; /* place in the order of reading */
    atomic_bool failed;
};

struct reader {
    struct gang *gang;
    struct xv_store *store;
    pthread_t thread;
    bool has_thread;
    int rc;
    xvsa_error *error;
};

/* The classes with most records, which come last in the table, are begun first. */
static void read_classes(struct reader *reader)
{
    struct gang *gang = reader->gang;
    while (reader->rc == 0 && !atomic_load(&gang->failed)) {
        size_t place = atomic_fetch_add(&gang->next, 1);
        if (place >= xv_class_reader_count)
            return;
        reader->rc = read_class(gang->client, &xv_class_readers[xv_class_reader_count - 1 - place],
                                reader->store, gang->call, &reader->error);
    }
    if (reader->rc != 0)
        atomic_store(&gang->failed, true);
}

static void *reader_body(void *argument)
{
    read_classes(argument);
    return NULL;
}

/* The first reader is the caller's thread; the others are optional. */
static int run_gang(struct reader readers[READERS], xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 1; i < READERS; i++)
        readers[i].has_thread = xv_thread_start("xvsa-inventory", false, reader_body, &readers[i],
                                                &readers[i].thread, NULL) == 0;
    read_classes(&readers[0]);
    for (size_t i = 1; i < READERS; i++) {
        if (readers[i].has_thread)
            pthread_join(readers[i].thread, NULL);
    }
    for (size_t i = 0; i < READERS; i++) {
        if (rc == 0 && readers[i].rc != 0) {
            rc = readers[i].rc;
            if (error != NULL)
                *error = xvsa_error_ref(readers[i].error);
        }
    }
    return rc;
}

static int read_stores(struct reader readers[READERS], xvsa_error **error)
{
    for (size_t i = 0; i < READERS; i++) {
        readers[i].store = xv_store_new();
        if (readers[i].store == NULL)
            return xv_fail_memory(error);
    }
    int rc = run_gang(readers, error);
    for (size_t i = 1; rc == 0 && i < READERS; i++)
        rc = xv_store_join(readers[0].store, readers[i].store, error);
    return rc;
}

static int finish_store(struct xv_store *store, xvsa_error **error)
{
    if (store->public.pool_ref == NULL)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT, "the pool has no pool record");
    return xv_store_finish(store, error);
}

static int read_all(struct xv_client *client, const struct xv_call *call, struct xv_store **ret,
                    xvsa_error **error)
{
    struct reader readers[READERS] = {0};
    struct gang gang = {.client = client, .call = call};
    uint64_t epoch = xv_client_epoch(client);
    atomic_init(&gang.next, 0);
    atomic_init(&gang.failed, false);
    for (size_t i = 0; i < READERS; i++)
        readers[i].gang = &gang;
    int rc = read_stores(readers, error);
    if (rc == 0)
        rc = finish_store(readers[0].store, error);
    if (rc == 0) {
        *ret = readers[0].store;
        readers[0].store->public.epoch = epoch;
        readers[0].store = NULL;
    }
    for (size_t i = 0; i < READERS; i++) {
        xv_store_free(readers[i].store);
        xvsa_error_unref(readers[i].error);
    }
    return rc;
}

/* A connection lost in the middle, or a coordinator that changed meanwhile, means to begin anew. */
int xv_inventory_read(struct xv_client *client, const struct xv_call *call,
                      struct xv_inventory **ret, xvsa_error **error)
{
    for (int attempt = 1;; attempt++) {
        struct xv_store *store = NULL;
        xvsa_error *failure = NULL;
        int rc = read_all(client, call, &store, &failure);
        bool stale = rc == 0 && store->public.epoch != xv_client_epoch(client);
        if (rc == 0 && (!stale || attempt == ATTEMPTS)) {
            *ret = &store->public;
            return 0;
        }
        xv_store_free(store);
        if (rc != 0 && (rc != XVSA_ERR_NETWORK || attempt == ATTEMPTS)) {
            if (error != NULL)
                *error = failure;
            else
                xvsa_error_unref(failure);
            return rc;
        }
        xvsa_error_unref(failure);
    }
}

struct xv_inventory *xv_inventory_ref(struct xv_inventory *inventory)
{
    atomic_fetch_add_explicit(&xv_store_of(inventory)->references, 1, memory_order_relaxed);
    return inventory;
}

void xv_inventory_free(struct xv_inventory *inventory)
{
    if (inventory != NULL)
        xv_store_free(xv_store_of(inventory));
}

const struct xv_host *xv_inventory_host(const struct xv_inventory *inventory, const char *id)
{
    return xv_store_find(xv_store_of(inventory), XV_KIND_HOST, id);
}

const struct xv_sr *xv_inventory_sr(const struct xv_inventory *inventory, const char *id)
{
    return xv_store_find(xv_store_of(inventory), XV_KIND_SR, id);
}

const struct xv_network *xv_inventory_network(const struct xv_inventory *inventory, const char *id)
{
    return xv_store_find(xv_store_of(inventory), XV_KIND_NETWORK, id);
}

const struct xv_vm *xv_inventory_vm(const struct xv_inventory *inventory, const char *id)
{
    return xv_store_find(xv_store_of(inventory), XV_KIND_VM, id);
}

const struct xv_vdi *xv_inventory_vdi(const struct xv_inventory *inventory, const char *id)
{
    return xv_store_find(xv_store_of(inventory), XV_KIND_VDI, id);
}

bool xv_inventory_reaches(const struct xv_inventory *inventory, const struct xv_host *host,
                          const struct xv_sr *sr)
{
    if (host == NULL || sr == NULL || !host->live)
        return false;
    for (size_t i = 0; i < inventory->pbd_count; i++) {
        const struct xv_pbd *pbd = &inventory->pbds[i];
        if (pbd->host == host && pbd->sr == sr && pbd->attached)
            return true;
    }
    return false;
}
