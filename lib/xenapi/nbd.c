/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where a snapshot's bytes are offered through NBD.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xenapi/operations_internal.h"

#define SERVERS_MAX  256
#define DEFAULT_PORT 10809

/* A server with texts of its own. */
struct entry {
    char *address;
    char *export_name;
    char *certificate;
    char *subject;
    uint16_t port;
    bool preferred;
};

struct entries {
    struct entry items[SERVERS_MAX];
    size_t count;
};

static void free_entries(struct entries *entries)
{
    for (size_t i = 0; entries != NULL && i < entries->count; i++) {
        free(entries->items[i].address);
        xv_free_secret(entries->items[i].export_name);
        free(entries->items[i].certificate);
        free(entries->items[i].subject);
    }
    free(entries);
}

/* The PIF that has an address; NULL when the inventory does not know it. */
static const struct xv_pif *pif_of(const struct xv_inventory *inventory, const char *address)
{
    for (size_t i = 0; i < inventory->pif_count; i++) {
        const struct xv_pif *pif = &inventory->pifs[i];
        if (pif->address[0] != '\0' && strcmp(pif->address, address) == 0)
            return pif;
    }
    return NULL;
}

static bool is_preferred(const struct xv_inventory *inventory, const char *address,
                         const char *prefer_host)
{
    if (prefer_host == NULL)
        return false;
    const struct xv_pif *pif = pif_of(inventory, address);
    return strcmp(address, prefer_host) == 0 ||
           (pif != NULL && pif->host != NULL && strcmp(pif->host->address, prefer_host) == 0);
}

/* Which kinds of NBD the pool's networks have. */
static void purposes(const struct xv_inventory *inventory, bool *ret_tls, bool *ret_insecure)
{
    *ret_tls = false;
    *ret_insecure = false;
    for (size_t i = 0; i < inventory->network_count; i++) {
        *ret_tls = *ret_tls || inventory->networks[i].nbd;
        *ret_insecure = *ret_insecure || inventory->networks[i].insecure_nbd;
    }
}

/* Decides between TLS and plain NBD, which the servers choose for the whole pool. */
static int choose_kind(const struct xv_inventory *inventory, bool allow_insecure, bool *ret_plain,
                       xvsa_error **error)
{
    bool tls = false;
    bool insecure = false;
    purposes(inventory, &tls, &insecure);
    if (tls && insecure)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_COMPONENT,
                       "the pool has networks for nbd and for insecure_nbd; its hosts refuse every "
                       "NBD connection until one kind is removed");
    if (insecure && !allow_insecure)
        return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_COMPONENT,
                       "the pool offers NBD without TLS only, which is not allowed");
    *ret_plain = insecure;
    return 0;
}

/* Takes all texts over. */
static int add_entry(struct entries *entries, struct entry entry, xvsa_error **error)
{
    bool complete = entry.address != NULL && entry.export_name != NULL;
    if (complete && entries->count < SERVERS_MAX) {
        entries->items[entries->count++] = entry;
        return 0;
    }
    free(entry.address);
    xv_free_secret(entry.export_name);
    free(entry.certificate);
    free(entry.subject);
    return complete ? 0 : xv_fail_memory(error);
}

static char *copy_member(const struct xv_value *record, const char *key)
{
    const char *text = xv_value_get_string(record, key, "");
    return text[0] == '\0' ? NULL : strdup(text);
}

static int take_answer(struct entries *entries, const struct xv_value *answer, bool plain,
                       const struct xv_inventory *inventory, const char *prefer_host,
                       xvsa_error **error)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < xv_value_count(answer); i++) {
        const struct xv_value *record = xv_value_at(answer, i);
        int64_t port = xv_value_get_int(record, "port", DEFAULT_PORT);
        struct entry entry = {
            .address = copy_member(record, "address"),
            .export_name = copy_member(record, "exportname"),
            .certificate = plain ? NULL : copy_member(record, "cert"),
            .subject = plain ? NULL : copy_member(record, "subject"),
            .port = (uint16_t)port,
        };
        if (entry.address == NULL || entry.export_name == NULL || port < 1 || port > 65535 ||
            (!plain && entry.certificate == NULL))
            rc = xv_fail(error, XVSA_ERR_PROTOCOL, XV_COMPONENT,
                         "VDI.get_nbd_info answers with an incomplete entry");
        entry.preferred =
            entry.address != NULL && is_preferred(inventory, entry.address, prefer_host);
        if (rc == 0) {
            rc = add_entry(entries, entry, error);
        } else {
            free(entry.address);
            xv_free_secret(entry.export_name);
            free(entry.certificate);
            free(entry.subject);
        }
    }
    return rc;
}

static char *make_export_name(struct xv_client *client, const char *vdi_uuid)
{
    char *session = xv_client_session(client);
    size_t size = session == NULL ? 0 : strlen(session) + strlen(vdi_uuid) + 32;
    char *name = session == NULL ? NULL : malloc(size);
    if (name != NULL)
        snprintf(name, size, "/%s?session_id=%s", vdi_uuid, session);
    xv_free_secret(session);
    return name;
}

static int add_host(struct xv_client *client, const struct xv_inventory *inventory,
                    const struct xv_host *host, const char *vdi_uuid, bool plain,
                    const char *prefer_host, const struct xv_call *call, struct entries *entries,
                    xvsa_error **error)
{
    char *certificate = NULL;
    int rc = 0;
    if (!plain)
        rc = xv_ask_text(client, "host.get_server_certificate", xv_params(host->ref, NULL), call,
                         &certificate, error);
    for (size_t i = 0; rc == 0 && i < inventory->pif_count; i++) {
        const struct xv_pif *pif = &inventory->pifs[i];
        if (pif->host != host || !pif->attached || pif->address[0] == '\0' ||
            pif->network == NULL || (!pif->network->nbd && !pif->network->insecure_nbd))
            continue;
        struct entry entry = {
            .address = strdup(pif->address),
            .export_name = make_export_name(client, vdi_uuid),
            .certificate = certificate == NULL ? NULL : strdup(certificate),
            .port = DEFAULT_PORT,
            .preferred = is_preferred(inventory, pif->address, prefer_host),
        };
        rc = add_entry(entries, entry, error);
    }
    free(certificate);
    return rc;
}

/* One dead host makes VDI.get_nbd_info fail as a whole: builds what the live ones would answer. */
static int build_entries(struct xv_client *client, const struct xv_inventory *inventory,
                         const struct xv_value *vdi, bool plain, const char *prefer_host,
                         const struct xv_call *call, struct entries *entries, xvsa_error **error)
{
    xvsa_error *last = NULL;
    const struct xv_sr *sr = xv_inventory_sr(inventory, xv_value_get_string(vdi, "SR", ""));
    for (size_t i = 0; i < inventory->host_count; i++) {
        const struct xv_host *host = &inventory->hosts[i];
        if (!xv_inventory_reaches(inventory, host, sr))
            continue;
        xv_error_clear(&last);
        int rc = add_host(client, inventory, host, xv_value_get_string(vdi, "uuid", ""), plain,
                          prefer_host, call, entries, &last);
        if (rc != 0)
            xv_log(client->env, XVSA_LOG_INFO, XV_COMPONENT, "no NBD through host %s: %s",
                   host->name, xvsa_error_message(last));
    }
    int code = entries->count > 0 ? 0 : xvsa_error_code(last);
    if (code != 0 && error != NULL)
        *error = last;
    else
        xvsa_error_unref(last);
    return code;
}

static int find_servers(struct xv_client *client, const struct xv_inventory *inventory,
                        const char *vdi_ref, bool plain, const char *prefer_host,
                        const struct xv_call *call, struct entries *entries, xvsa_error **error)
{
    struct xv_value *answer = NULL;
    xvsa_error *failure = NULL;
    struct xv_value *vdi = NULL;
    int rc =
        xv_ask(client, "VDI.get_nbd_info", xv_params(vdi_ref, NULL), true, call, &answer, &failure);
    if (rc == 0) {
        rc = take_answer(entries, answer, plain, inventory, prefer_host, &failure);
    } else if (xv_error_is_xenapi(failure, "HOST_OFFLINE") ||
               xv_error_is_xenapi(failure, "CANNOT_CONTACT_HOST")) {
        xv_error_clear(&failure);
        /* The inventory may be older than the snapshot. */
        rc = xv_record_get(client, "VDI", vdi_ref, call, &vdi, &failure);
        if (rc == 0)
            rc = build_entries(client, inventory, vdi, plain, prefer_host, call, entries, &failure);
    }
    xv_value_free(answer);
    xv_value_free(vdi);
    if (rc == 0 && entries->count == 0)
        rc = xv_fail(&failure, XVSA_ERR_UNSUPPORTED, XV_COMPONENT,
                     "the pool offers no NBD for the disk %s: no network has the purpose nbd on a "
                     "host that reaches its storage",
                     vdi_ref);
    if (rc != 0 && error != NULL)
        *error = failure;
    else
        xvsa_error_unref(failure);
    return rc;
}

/* The preferred ones first. */
static size_t sort_servers(const struct entries *entries, struct xv_nbd_server *servers)
{
    size_t count = 0;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < entries->count; i++) {
            const struct entry *entry = &entries->items[i];
            if (entry->preferred == (round == 0))
                servers[count++] = (struct xv_nbd_server){
                    .address = entry->address,
                    .export_name = entry->export_name,
                    .certificate = entry->certificate,
                    .subject = entry->subject,
                    .port = entry->port,
                };
        }
    }
    return count;
}

int xv_vdi_open_nbd(struct xv_client *client, const struct xv_inventory *inventory,
                    const char *vdi_ref, const char *prefer_host, bool allow_insecure,
                    const struct xv_nbd_options *options, const struct xv_call *call,
                    struct xv_disk **ret, xvsa_error **error)
{
    struct xv_nbd_server servers[SERVERS_MAX];
    bool plain = false;
    int rc = choose_kind(inventory, allow_insecure, &plain, error);
    if (rc != 0)
        return rc;
    struct entries *entries = calloc(1, sizeof *entries);
    if (entries == NULL)
        return xv_fail_memory(error);
    rc = find_servers(client, inventory, vdi_ref, plain, prefer_host, call, entries, error);
    if (rc == 0)
        rc = xv_nbd_disk_open(servers, sort_servers(entries, servers), options, call, ret, error);
    free_entries(entries);
    return rc;
}
