/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * NBD disks: opening, checking, and lending of connections.
 */
#include "disk/nbd.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/thread.h"

#define MAX_CONNECTIONS   16u /* what a host serves in all */
#define MAX_IN_FLIGHT     1024u
#define MAX_REQUEST       (32u << 20)
#define MAX_EXPORT_NAME   4096u /* NBD's limit of strings */
#define MAX_READ          (64u << 20)
#define BOUNCE            (1u << 20)
#define RETURN_POLL_MS    20
#define DEFAULT_REQUEST   (256u << 10)
#define DEFAULT_IN_FLIGHT 16u
#define DEFAULT_TIMEOUT   60000

static struct xv_nbd_disk *of(struct xv_disk *disk)
{
    return (struct xv_nbd_disk *)disk;
}

int xv_nbd_disk_accept(struct xv_nbd_disk *disk, struct xv_nbd_link *link, xvsa_error **error)
{
    int64_t size = nbd_get_size(link->nbd);
    uint64_t least = disk->limit != 0 ? disk->limit : disk->disk.size;
    if (size < 0 || (uint64_t)size < least)
        return xv_fail(error, XVSA_ERR_PROTOCOL, XV_NBD_COMPONENT,
                       "server %s offers disk %s with %lld bytes; %llu are expected",
                       link->place->label, disk->options.disk_name, (long long)size,
                       (unsigned long long)least);
    if (disk->limit != 0)
        return 0;
    if (disk->disk.size == 0)
        disk->disk.size = (uint64_t)size;
    uint64_t spare = (uint64_t)size - disk->disk.size;
    uint64_t missing = (XV_NBD_SECTOR - disk->disk.size % XV_NBD_SECTOR) % XV_NBD_SECTOR;
    disk->limit = disk->disk.size + (spare < missing ? spare : missing);
    return 0;
}

int xv_nbd_disk_lease(struct xv_nbd_disk *disk, uint32_t wanted, struct xv_nbd_link **links,
                      uint32_t *ret, const struct xv_call *call, xvsa_error **error)
{
    int rc = 0;
    pthread_mutex_lock(&disk->lock);
    while (rc == 0 && disk->lent == disk->options.connections) {
        /* In steps, because a cancellation does not signal the condition. */
        xv_condition_wait(&disk->returned, &disk->lock, RETURN_POLL_MS);
        rc = xv_call_check(call, XV_NBD_COMPONENT, "waiting for an NBD connection", error);
    }
    if (rc == 0) {
        uint32_t left = disk->options.connections - disk->lent;
        *ret = wanted < left ? wanted : left;
        disk->lent += *ret;
        for (uint32_t i = 0; i < *ret; i++)
            links[i] = disk->idle_count > 0 ? disk->idle[--disk->idle_count] : NULL;
    }
    pthread_mutex_unlock(&disk->lock);
    return rc;
}

void xv_nbd_disk_return(struct xv_nbd_disk *disk, struct xv_nbd_link **links, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (links[i] != NULL && (links[i]->state != XV_NBD_READY || links[i]->in_flight > 0)) {
            xv_nbd_link_close(links[i]);
            links[i] = NULL;
        }
    }
    pthread_mutex_lock(&disk->lock);
    disk->lent -= count;
    for (uint32_t i = 0; i < count; i++) {
        if (links[i] == NULL)
            continue;
        atomic_store(&disk->place, (size_t)(links[i]->place - disk->places));
        disk->idle[disk->idle_count++] = links[i];
    }
    pthread_cond_broadcast(&disk->returned);
    pthread_mutex_unlock(&disk->lock);
}

/* Reads what is not made of whole sectors through a buffer that is. */
static int read_odd(struct xv_nbd_disk *disk, uint64_t offset, uint8_t *data, size_t length,
                    const struct xv_call *call, xvsa_error **error)
{
    uint64_t start = offset - offset % XV_NBD_SECTOR;
    uint64_t end = offset + length;
    end += (XV_NBD_SECTOR - end % XV_NBD_SECTOR) % XV_NBD_SECTOR;
    if (end > disk->limit)
        end = disk->limit;
    uint8_t *sectors = malloc((size_t)(end - start));
    if (sectors == NULL)
        return xv_fail_memory(error);
    int rc = xv_nbd_transfer_read(disk, start, sectors, (uint32_t)(end - start), call, error);
    if (rc == 0)
        memcpy(data, sectors + (offset - start), length);
    free(sectors);
    return rc;
}

static int nbd_read(struct xv_disk *base, uint64_t offset, void *data, size_t length,
                    const struct xv_call *call, xvsa_error **error)
{
    struct xv_nbd_disk *disk = of(base);
    uint8_t *to = data;
    while (length > 0) {
        size_t step = length < MAX_READ ? length : MAX_READ;
        bool odd = offset % XV_NBD_SECTOR != 0 ||
                   (step % XV_NBD_SECTOR != 0 && offset + step != disk->limit);
        int rc;
        if (odd) {
            step = step < BOUNCE ? step : BOUNCE - offset % XV_NBD_SECTOR;
            rc = read_odd(disk, offset, to, step, call, error);
        } else {
            rc = xv_nbd_transfer_read(disk, offset, to, (uint32_t)step, call, error);
        }
        if (rc != 0)
            return rc;
        offset += step;
        to += step;
        length -= step;
    }
    return 0;
}

static int nbd_stream(struct xv_disk *base, const struct xv_extents *ranges,
                      struct xv_block_queue *queue, void *owner, const struct xv_call *call,
                      xvsa_error **error)
{
    struct xv_nbd_disk *disk = of(base);
    if (xv_block_queue_capacity(queue) % XV_NBD_SECTOR != 0)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "blocks of %u bytes are not made of whole sectors",
                       xv_block_queue_capacity(queue));
    for (size_t i = 0; i < ranges->count; i++) {
        uint64_t end = ranges->ranges[i].offset + ranges->ranges[i].length;
        if (ranges->ranges[i].offset % XV_NBD_SECTOR != 0 ||
            (end % XV_NBD_SECTOR != 0 && end != base->size))
            return xv_fail(
                error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                "the range of %llu bytes at %llu of disk %s is not made of whole sectors",
                (unsigned long long)ranges->ranges[i].length,
                (unsigned long long)ranges->ranges[i].offset, disk->options.disk_name);
    }
    return xv_nbd_transfer_stream(disk, ranges, queue, owner, call, error);
}

static void free_place(struct xv_nbd_place *place)
{
    free(place->uri);
    free(place->address);
    xv_free_secret(place->export_name);
    free(place->subject);
    X509_free(place->certificate);
}

static void nbd_disk_close(struct xv_disk *base)
{
    struct xv_nbd_disk *disk = of(base);
    for (uint32_t i = 0; i < disk->idle_count; i++)
        xv_nbd_link_close(disk->idle[i]);
    for (size_t i = 0; disk->places != NULL && i < disk->place_count; i++)
        free_place(&disk->places[i]);
    pthread_cond_destroy(&disk->returned);
    pthread_mutex_destroy(&disk->lock);
    free((char *)disk->options.disk_name);
    free(disk->idle);
    free(disk->places);
    free(disk);
}

static const struct xv_disk_ops server_ops = {
    .transport = "nbd",
    .read = nbd_read,
    .stream = nbd_stream,
    .close = nbd_disk_close,
};

static const struct xv_disk_ops uri_ops = {
    .transport = "nbd",
    .read = nbd_read,
    .allocated = xv_nbd_map,
    .stream = nbd_stream,
    .close = nbd_disk_close,
};

uint32_t xv_nbd_disk_missing(const struct xv_disk *disk)
{
    if (disk->ops != &server_ops && disk->ops != &uri_ops)
        return 0;
    return atomic_load(&((const struct xv_nbd_disk *)disk)->missing);
}

static int check_options(const struct xv_nbd_options *options, xvsa_error **error)
{
    if (options->connections > MAX_CONNECTIONS)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "%u connections are more than a server takes (%u)", options->connections,
                       MAX_CONNECTIONS);
    if (options->in_flight > MAX_IN_FLIGHT)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "%u requests under way are too many (%u)", options->in_flight,
                       MAX_IN_FLIGHT);
    if (options->request_size % XV_NBD_SECTOR != 0 || options->request_size > MAX_REQUEST)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "a request size of %u is not a multiple of %u up to %u",
                       options->request_size, XV_NBD_SECTOR, MAX_REQUEST);
    if (options->request_timeout_ms < 0 || options->size > INT64_MAX)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "the request timeout or the size of the disk is out of range");
    return 0;
}

static int new_disk(const struct xv_disk_ops *ops, size_t places,
                    const struct xv_nbd_options *options, struct xv_nbd_disk **ret,
                    xvsa_error **error)
{
    static const struct xv_nbd_options defaults;
    if (options == NULL)
        options = &defaults;
    int rc = check_options(options, error);
    if (rc != 0)
        return rc;
    struct xv_nbd_disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL)
        return xv_fail_memory(error);
    xv_condition_init(&disk->returned);
    pthread_mutex_init(&disk->lock, NULL);
    disk->disk = (struct xv_disk){.ops = ops, .size = options->size};
    disk->options = *options;
    disk->options.disk_name = strdup(options->disk_name == NULL ? "?" : options->disk_name);
    disk->options.request_size =
        options->request_size == 0 ? DEFAULT_REQUEST : options->request_size;
    disk->options.in_flight = options->in_flight == 0 ? DEFAULT_IN_FLIGHT : options->in_flight;
    if (options->request_timeout_ms == 0)
        disk->options.request_timeout_ms = DEFAULT_TIMEOUT;
    disk->place_count = places;
    disk->places = calloc(places, sizeof *disk->places);
    disk->idle = calloc(MAX_CONNECTIONS, sizeof(struct xv_nbd_link *));
    if (disk->options.disk_name == NULL || disk->places == NULL || disk->idle == NULL) {
        nbd_disk_close(&disk->disk);
        return xv_fail_memory(error);
    }
    *ret = disk;
    return 0;
}

static int read_certificate(struct xv_nbd_place *place, const char *pem, xvsa_error **error)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    if (bio == NULL)
        return xv_fail_memory(error);
    place->certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (place->certificate == NULL)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "the certificate announced for server %s is not PEM", place->label);
    return 0;
}

static int copy_server(const struct xv_nbd_server *from, bool require_tls, struct xv_nbd_place *to,
                       xvsa_error **error)
{
    if (from->address == NULL || *from->address == '\0' || from->export_name == NULL ||
        strlen(from->export_name) > MAX_EXPORT_NAME || from->port == 0)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "an NBD server needs address, port and export name");
    bool v6 = strchr(from->address, ':') != NULL;
    snprintf(to->label, sizeof to->label, "%s%.60s%s:%u", v6 ? "[" : "", from->address,
             v6 ? "]" : "", from->port);
    to->port = from->port;
    to->address = strdup(from->address);
    to->export_name = strdup(from->export_name);
    to->subject = from->subject == NULL ? NULL : strdup(from->subject);
    if (to->address == NULL || to->export_name == NULL ||
        (from->subject != NULL && to->subject == NULL))
        return xv_fail_memory(error);
    if (from->certificate != NULL)
        return read_certificate(to, from->certificate, error);
    if (require_tls)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "no certificate is known for server %s and plain connections are refused",
                       to->label);
    return 0;
}

static int connect_once(struct xv_nbd_disk *disk, size_t place, const struct xv_call *call,
                        xvsa_error **error)
{
    struct xv_nbd_link *link = NULL;
    int rc = xv_nbd_link_start(disk, place, &link, error);
    if (rc == 0)
        rc = xv_nbd_link_finish(link, call, error);
    if (rc == 0)
        rc = xv_nbd_disk_accept(disk, link, error);
    if (rc != 0) {
        xv_nbd_link_close(link);
        return rc;
    }
    disk->idle[disk->idle_count++] = link;
    atomic_store(&disk->place, place);
    return 0;
}

/* Tries the servers in turn. When all fail, the most telling error wins: anything over BUSY. */
static int connect_first(struct xv_nbd_disk *disk, const struct xv_call *call, xvsa_error **error)
{
    xvsa_error *first = NULL;
    int first_code = 0;
    for (size_t i = 0; i < disk->place_count; i++) {
        xvsa_error *why = NULL;
        int rc = connect_once(disk, i, call, &why);
        if (rc == 0) {
            xv_error_clear(&first);
            return 0;
        }
        xv_log(disk->options.env, XVSA_LOG_INFO, XV_NBD_COMPONENT, "disk %s: %s",
               disk->options.disk_name, xvsa_error_message(why));
        if (first_code == 0 || (first_code == XVSA_ERR_BUSY && rc != XVSA_ERR_BUSY)) {
            xv_error_clear(&first);
            first = why;
            first_code = rc;
        } else {
            xv_error_clear(&why);
        }
        if (xv_call_check(call, XV_NBD_COMPONENT, "connecting to NBD servers", NULL) != 0)
            break;
    }
    if (error == NULL)
        xv_error_clear(&first);
    else
        *error = first;
    return xv_error_wrap(error, first_code, XV_NBD_COMPONENT, "cannot reach disk %s over NBD",
                         disk->options.disk_name);
}

int xv_nbd_disk_open(const struct xv_nbd_server *servers, size_t count,
                     const struct xv_nbd_options *options, const struct xv_call *call,
                     struct xv_disk **ret, xvsa_error **error)
{
    if (count == 0)
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT, "no NBD server is given");
    struct xv_nbd_disk *disk = NULL;
    int rc = new_disk(&server_ops, count, options, &disk, error);
    bool tls = true;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        tls = tls && servers[i].certificate != NULL;
        rc = copy_server(&servers[i], disk->options.require_tls, &disk->places[i], error);
    }
    if (rc == 0 && disk->options.connections == 0)
        disk->options.connections = tls ? 2 : 1;
    if (rc == 0)
        rc = connect_first(disk, call, error);
    if (rc != 0) {
        xv_disk_close(disk == NULL ? NULL : &disk->disk);
        return rc;
    }
    *ret = &disk->disk;
    return 0;
}

/* The schemes whose server is either verified by its name or on this machine without TLS. */
static bool is_known_scheme(const char *uri)
{
    static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strncmp(uri, schemes[i], strlen(schemes[i])) == 0)
            return true;
    }
    return false;
}

int xv_nbd_disk_open_uri(const char *uri, const struct xv_nbd_options *options,
                         const struct xv_call *call, struct xv_disk **ret, xvsa_error **error)
{
    if (uri == NULL || !is_known_scheme(uri))
        return xv_fail(error, XVSA_ERR_INVALID, XV_NBD_COMPONENT,
                       "an NBD URI begins with nbd://, nbds:// or nbd+unix://");
    if (options != NULL && options->require_tls && strncmp(uri, "nbds://", 7) != 0)
        return xv_fail(error, XVSA_ERR_TLS, XV_NBD_COMPONENT,
                       "'%s' is a plain connection, and those are refused", uri);
    struct xv_nbd_disk *disk = NULL;
    int rc = new_disk(&uri_ops, 1, options, &disk, error);
    if (rc != 0)
        return rc;
    struct xv_nbd_place *place = &disk->places[0];
    snprintf(place->label, sizeof place->label, "%.70s", uri);
    place->uri = strdup(uri);
    if (disk->options.connections == 0)
        disk->options.connections = strncmp(uri, "nbds", 4) == 0 ? 2 : 1;
    rc = place->uri == NULL ? xv_fail_memory(error) : connect_first(disk, call, error);
    if (rc != 0) {
        nbd_disk_close(&disk->disk);
        return rc;
    }
    *ret = &disk->disk;
    return 0;
}
