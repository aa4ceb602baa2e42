/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The store in etcd: opening, endpoints, reading. A reading is linearizable and of one revision, however
 * many pages it takes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "coord/kv_etcd.h"

#define COMPONENT    XV_KV_COMPONENT
#define PAGE_FIRST   500
#define PAGE_CEILING (16u << 20)
#define CLOSE_MS     2000
#define STALE_S      (7 * 24 * 3600)
#define STALE_MAX    50

/* State of a reading that takes several pages. */
struct reading {
    struct xv_kv_list *list;
    const char *key;
    const char *end;
    int64_t since; /* 0: all */
    int64_t limit;
    size_t bytes;
    bool more;
};

/* The page that begins with key. */
static json_t *make_range(const struct reading *reading, const char *key, size_t length)
{
    json_t *body = json_pack("{s:o,s:o}", "key", xv_etcd_encode(key, length), "limit",
                             xv_etcd_number(reading->limit));
    const char *end = reading->end;
    int64_t revision = reading->list->revision;
    bool good = body != NULL;
    if (good && end != NULL)
        good = json_object_set_new(body, "range_end", xv_etcd_encode(end, strlen(end))) == 0;
    if (good && revision != 0)
        good = json_object_set_new(body, "revision", xv_etcd_number(revision)) == 0;
    if (good && reading->since != 0)
        good = json_object_set_new(body, "min_mod_revision", xv_etcd_number(reading->since)) == 0;
    if (good)
        return body;
    json_decref(body);
    return NULL;
}

/* Reads the page behind what the list has. A page that is too long is asked for again, shorter. */
static int read_page(struct xv_kv_etcd *self, struct reading *reading, const struct xv_call *call,
                     xvsa_error **error)
{
    struct xv_kv_list *list = reading->list;
    const char *key = reading->key;
    size_t length = strlen(key);
    if (list->count > 0) { /* behind the last one: with its zero byte */
        key = list->pairs[list->count - 1].key;
        length = strlen(key) + 1;
    }
    struct xv_etcd_request request = {
        .what = "read keys",
        .target = "/v3/kv/range",
        .body = make_range(reading, key, length),
        .try_ms = XV_ETCD_TRY_MS,
        .ceiling = PAGE_CEILING,
    };
    if (request.body == NULL)
        return xv_fail_memory(error);
    struct xv_etcd_reply reply;
    size_t before = list->count;
    int64_t revision = 0;
    int64_t total = 0; /* whatever was asked for of it */
    int rc = xv_etcd_call(self, &request, call, &reply, error);
    json_decref(request.body);
    if (rc == 0)
        rc = xv_etcd_get_revision(reply.body, &revision, error);
    if (rc == 0)
        rc = xv_etcd_get_number(reply.body, "count", &total, error);
    if (rc == 0)
        rc = xv_etcd_read_pairs(reply.body, list, &reading->bytes, error);
    if (rc == 0) {
        reading->more = json_is_true(json_object_get(reply.body, "more"));
        if (list->revision == 0) {
            list->revision = revision;
            list->total = total;
        }
        if (reading->more && list->count == before)
            rc = xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT, "etcd promises keys and gives none");
    }
    json_decref(reply.body);
    return rc;
}

static int read_pages(struct xv_kv_etcd *self, struct reading *reading, const struct xv_call *call,
                      xvsa_error **error)
{
    int rc;
    do {
        xvsa_error *failure = NULL;
        rc = read_page(self, reading, call, &failure);
        if (rc == XVSA_ERR_LIMIT && reading->limit > 1) {
            xv_error_clear(&failure);
            reading->limit /= 8;
            reading->limit = reading->limit < 1 ? 1 : reading->limit;
            reading->more = true;
            rc = 0;
        } else if (error != NULL) {
            *error = failure;
        } else {
            xvsa_error_unref(failure);
        }
    } while (rc == 0 && reading->more && reading->end != NULL);
    return rc;
}

static int range(struct xv_kv *kv, const char *key, bool prefix, int64_t since,
                 const struct xv_call *call, struct xv_kv_list *ret, xvsa_error **error)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)kv;
    char *end = prefix ? xv_kv_range_end(key) : NULL;
    if (prefix && end == NULL)
        return xv_fail_memory(error);
    int64_t limit = prefix ? PAGE_FIRST : 1;
    int rc;
    do { /* again when the revision of the first page was compacted before the last one came */
        struct reading reading = {
            .list = ret, .key = key, .end = end, .since = since, .limit = limit};
        xvsa_error *failure = NULL;
        rc = read_pages(self, &reading, call, &failure);
        limit = reading.limit;
        if (rc == XVSA_ERR_CONFLICT) {
            xv_kv_list_free(ret);
            xv_error_clear(&failure);
        } else if (error != NULL) {
            *error = failure;
        } else {
            xvsa_error_unref(failure);
        }
    } while (rc == XVSA_ERR_CONFLICT);
    free(end);
    return rc;
}

/* Takes away the slots of handles that ended long ago without doing it themselves; also shows that the
 * store answers and lets us read. */
static int clean_slots(struct xv_kv_etcd *self, const char *own, const struct xv_call *call,
                       xvsa_error **error)
{
    struct xv_kv_list list = {0};
    struct xv_kv_compare compares[STALE_MAX];
    struct xv_kv_op ops[STALE_MAX];
    size_t count = 0;
    int rc = range(&self->kv, own, true, 0, call, &list, error);
    int64_t now = xv_wall_ms() / 1000;
    for (size_t i = 0; rc == 0 && i < list.count && count < STALE_MAX; i++) {
        const struct xv_kv_pair *pair = &list.pairs[i];
        const char *time = strchr(pair->value, ' ');
        if (time == NULL || now - strtoll(time, NULL, 10) < STALE_S)
            continue;
        compares[count] =
            (struct xv_kv_compare){pair->key, XV_KV_MOD_REVISION, pair->mod_revision, NULL};
        ops[count++] = (struct xv_kv_op){.verb = XV_KV_DELETE, .key = pair->key};
    }
    if (rc == 0 && count > 0) {
        bool succeeded = false; /* else somebody else did it, or somebody lives after all */
        int64_t revision = 0;
        rc = xv_kv_etcd_txn(&self->kv, compares, count, ops, count, call, &succeeded, &revision,
                            error);
    }
    xv_kv_list_free(&list);
    return rc;
}

static void free_store(struct xv_kv_etcd *self)
{
    while (self->idle != NULL) {
        struct xv_etcd_slot *next = self->idle->next;
        free(self->idle->key);
        free(self->idle);
        self->idle = next;
    }
    xv_http_free(self->http);
    xv_trust_free(self->trust);
    xv_free_secret(self->token);
    xv_free_secret(self->password);
    free(self->username);
    free(self->certificate_file);
    free(self->key_file);
    free(self->own_prefix);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static void close_store(struct xv_kv *kv)
{
    struct xv_kv_etcd *self = (struct xv_kv_etcd *)kv;
    char *end = xv_kv_range_end(self->own_prefix);
    json_t *key = xv_etcd_encode(self->own_prefix, strlen(self->own_prefix));
    struct xv_etcd_request request = {
        .what = "clean up",
        .target = "/v3/kv/deleterange",
        .body = end == NULL ? NULL
                            : json_pack("{s:O,s:o}", "key", key, "range_end",
                                        xv_etcd_encode(end, strlen(end))),
        .try_ms = CLOSE_MS,
        .ceiling = PAGE_CEILING,
    };
    struct xv_call soon = xv_call_within(NULL, CLOSE_MS);
    struct xv_etcd_reply reply;
    /* What stays behind is taken away by somebody later. */
    if (self->slot_count > 0 && request.body != NULL &&
        xv_etcd_call(self, &request, &soon, &reply, NULL) == 0)
        json_decref(reply.body);
    json_decref(request.body);
    json_decref(key);
    free(end);
    free_store(self);
}

static const struct xv_kv_ops ops = {
    .local = false,
    .range = range,
    .txn = xv_kv_etcd_txn,
    .lease_grant = xv_kv_etcd_grant,
    .lease_renew = xv_kv_etcd_renew,
    .lease_revoke = xv_kv_etcd_revoke,
    .watch_open = xv_kv_etcd_watch_open,
    .watch_wait = xv_kv_etcd_watch_wait,
    .watch_close = xv_kv_etcd_watch_close,
    .close = close_store,
};

static bool is_here(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "::1") == 0;
}

static int add_endpoint(struct xv_kv_etcd *self, const struct xv_kv_options *options,
                        const char *text, xvsa_error **error)
{
    if (self->endpoint_count == XV_ETCD_ENDPOINT_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "more than %d endpoints of etcd",
                       XV_ETCD_ENDPOINT_MAX);
    struct xv_url *url = &self->endpoints[self->endpoint_count];
    int rc = xv_url_parse(text, url, error);
    if (rc != 0)
        return rc;
    if (!url->tls && !options->allow_plain && !is_here(url->host))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "http://%s would send everything in the clear; use https or allow plain "
                       "HTTP explicitly",
                       url->host);
    self->endpoint_count++;
    return 0;
}

static int add_endpoints(struct xv_kv_etcd *self, const struct xv_kv_options *options,
                         const char *list, xvsa_error **error)
{
    char *copy = strdup(list);
    char *rest = NULL;
    if (copy == NULL)
        return xv_fail_memory(error);
    int rc = 0;
    for (char *text = strtok_r(copy, ", ", &rest); rc == 0 && text != NULL;
         text = strtok_r(NULL, ", ", &rest))
        rc = add_endpoint(self, options, text, error);
    free(copy);
    if (rc == 0 && self->endpoint_count == 0)
        rc = xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                     "\"etcd:\" must be followed by addresses such as https://host:2379");
    return rc;
}

static int copy_text(const char *text, char **ret, xvsa_error **error)
{
    if (text == NULL || text[0] == '\0')
        return 0;
    *ret = strdup(text);
    return *ret == NULL ? xv_fail_memory(error) : 0;
}

static int fill(struct xv_kv_etcd *self, const struct xv_kv_options *options, const char *rest,
                xvsa_error **error)
{
    unsigned char id[8];
    char hex[sizeof id * 2 + 1];
    int rc = add_endpoints(self, options, rest, error);
    if (rc == 0)
        rc = copy_text(options->username, &self->username, error);
    if (rc == 0)
        rc = copy_text(options->password, &self->password, error);
    if (rc == 0)
        rc = copy_text(options->certificate_file, &self->certificate_file, error);
    if (rc == 0)
        rc = copy_text(options->key_file, &self->key_file, error);
    if (rc == 0)
        rc = xv_random(id, sizeof id, error);
    if (rc != 0)
        return rc;
    xv_hex_encode(id, sizeof id, hex);
    if (asprintf(&self->own_prefix, "%s" XV_KV_OWN "%s.", options->prefix, hex) < 0) {
        self->own_prefix = NULL;
        return xv_fail_memory(error);
    }
    struct xv_trust_options trust = {.ca_file = options->ca_file};
    rc = xv_trust_new(&trust, &self->trust, error);
    return rc == 0 ? xv_http_new(options->env, self->trust, true, &self->http, error) : rc;
}

int xv_kv_etcd_open(const struct xv_kv_options *options, const char *rest,
                    const struct xv_call *call, struct xv_kv **ret, xvsa_error **error)
{
    struct xv_kv_etcd *self = calloc(1, sizeof *self);
    if (self == NULL)
        return xv_fail_memory(error);
    self->kv.ops = &ops;
    pthread_mutex_init(&self->lock, NULL);
    char *own = NULL;
    int rc = fill(self, options, rest, error);
    if (rc == 0 && asprintf(&own, "%s" XV_KV_OWN, options->prefix) < 0) {
        own = NULL;
        rc = xv_fail_memory(error);
    }
    if (rc == 0)
        rc = clean_slots(self, own, call, error);
    free(own);
    if (rc != 0) {
        free_store(self);
        return rc;
    }
    *ret = &self->kv;
    return 0;
}
