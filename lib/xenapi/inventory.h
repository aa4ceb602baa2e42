/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a pool holds at one instant: typed, compact, indexed by reference and uuid. Immutable once read
 * and reference counted; references and uuids are text that belongs to the inventory. References are
 * valid for one epoch of the client; keep uuids.
 */
#ifndef XV_XENAPI_INVENTORY_H
#define XV_XENAPI_INVENTORY_H

#include <jansson.h>

#include "xenapi/client.h"

struct xv_host {
    const char *ref, *uuid, *name, *address;
    const char *product; /* "XCP-ng 8.3.0" */
    int64_t api_major, api_minor;
    bool enabled, live, coordinator;
};

struct xv_sr {
    const char *ref, *uuid, *name, *type, *content_type;
    bool shared;        /* the administrative flag */
    bool supports_cbt;  /* its driver has VDI_CONFIG_CBT */
    bool declared_thin; /* it was made with thin allocation */
    bool thin;          /* that, or its driver has THIN_PROVISIONING */
    bool coalesces;     /* its garbage collection was not switched off */
    uint64_t physical_size, physical_used, virtual_allocation;
};

struct xv_pbd {
    const char *ref;
    const struct xv_host *host; /* NULL when dangling */
    const struct xv_sr *sr;
    bool attached;
};

struct xv_network {
    const char *ref, *uuid, *name, *bridge;
    bool nbd, insecure_nbd; /* purposes */
};

struct xv_pif {
    const char *ref;
    const struct xv_host *host;
    const struct xv_network *network;
    const char *address; /* IPv4 or "" */
    bool attached, management;
};

struct xv_vdi {
    const char *ref, *uuid, *name, *type;
    const struct xv_sr *sr;
    const char *snapshot_of; /* reference or XV_NULL_REF */
    uint64_t size, physical_used;
    bool managed, missing, sharable, read_only, is_snapshot, cbt_enabled, reset_on_boot;
    const char *vhd_parent; /* uuid of the parent node or NULL */
    uint32_t chain;   /* nodes from this one to the last parent that is known, itself included */
    bool coalescible; /* among them is a hidden one with a single child, which the SR will merge */
    const char *tag;  /* other_config["xvsa"] or NULL */
};

struct xv_vbd {
    const char *ref, *device, *type, *mode;
    const struct xv_vm *vm;
    const struct xv_vdi *vdi; /* NULL: empty */
    bool bootable, attached;
    const char *tag; /* other_config["xvsa"]: the VM has it for as long as data move; or NULL */
};

struct xv_vif {
    const char *ref, *device, *mac;
    const struct xv_vm *vm;
    const struct xv_network *network;
};

struct xv_vm {
    const char *ref, *uuid, *name, *power_state;
    const struct xv_host *resident_on; /* NULL unless running or paused */
    const char *snapshot_of;
    const char *const *tags;
    size_t tag_count;
    const struct xv_vbd *const *vbds;
    size_t vbd_count;
    const struct xv_vif *const *vifs;
    size_t vif_count;
    bool is_template, is_snapshot, is_control_domain;
    bool has_vusbs;
    const char *tag; /* other_config["xvsa"] or NULL */
};

/* An object that is not in the inventory because its record could not be read. */
struct xv_omission {
    const char *class_name, *ref;
    const char *why; /* a message */
};

struct xv_inventory {
    const char *pool_ref, *pool_uuid, *pool_name, *default_sr;
    int64_t api_major, api_minor;
    bool cbt_licensed;   /* pool.restrictions["restrict_cbt"] is "false" */
    uint64_t epoch;      /* of the client when it was read */
    uint64_t generation; /* grows with every change a live inventory learnt of (xenapi/live.h) */
    const struct xv_host *hosts;
    const struct xv_sr *srs;
    const struct xv_pbd *pbds;
    const struct xv_network *networks;
    const struct xv_pif *pifs;
    const struct xv_vdi *vdis;
    const struct xv_vbd *vbds;
    const struct xv_vif *vifs;
    const struct xv_vm *vms;
    const struct xv_omission *omissions;
    size_t omission_count;
    size_t host_count, sr_count, pbd_count, network_count, pif_count, vdi_count, vbd_count,
        vif_count, vm_count;
};

/* Reads it as a stream of records. Where a class's reply as a whole is not well-formed its records are read
 * one by one, and those that still cannot be read become omissions. */
int xv_inventory_read(struct xv_client *client, const struct xv_call *call,
                      struct xv_inventory **ret, xvsa_error **error) XV_MUST_CHECK;
struct xv_inventory *xv_inventory_ref(struct xv_inventory *inventory);
/* Drops a reference. NULL is allowed. */
void xv_inventory_free(struct xv_inventory *inventory);

/* NULL when there is none. By reference or by uuid. */
const struct xv_host *xv_inventory_host(const struct xv_inventory *inventory, const char *id);
const struct xv_sr *xv_inventory_sr(const struct xv_inventory *inventory, const char *id);
const struct xv_network *xv_inventory_network(const struct xv_inventory *inventory, const char *id);
const struct xv_vm *xv_inventory_vm(const struct xv_inventory *inventory, const char *id);
const struct xv_vdi *xv_inventory_vdi(const struct xv_inventory *inventory, const char *id);

/* True when the SR has an attached PBD on the host and the host is live. */
bool xv_inventory_reaches(const struct xv_inventory *inventory, const struct xv_host *host,
                          const struct xv_sr *sr);
/* JSON document "inventory" but for its proxies; NULL without memory. */
json_t *xv_inventory_to_json(const struct xv_inventory *inventory);

#endif
