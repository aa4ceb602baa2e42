/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What backup and restore do in a pool, each with the real server's traps taken care of: retries where
 * they are safe, outcomes that are looked for when an answer was lost. Objects are tagged with
 * other_config["xvsa"] = tag; the caller has written them down in its intents before.
 */
#ifndef XV_XENAPI_OPERATIONS_H
#define XV_XENAPI_OPERATIONS_H

#include "disk/disk.h"
#include "xenapi/inventory.h"

#define XV_TAG_KEY "xvsa"

/* Reads one object's whole record. */
int xv_record_get(struct xv_client *client, const char *class_name, const char *ref,
                  const struct xv_call *call, struct xv_value **ret,
                  xvsa_error **error) XV_MUST_CHECK;
/* Reference for a uuid; NOT_FOUND when there is none. The caller frees it. */
int xv_record_find(struct xv_client *client, const char *class_name, const char *uuid,
                   const struct xv_call *call, char **ret_ref, xvsa_error **error) XV_MUST_CHECK;
/* Sets other_config[key] (remove, then add). */
int xv_record_set_tag(struct xv_client *client, const char *class_name, const char *ref,
                      const char *key, const char *value, const struct xv_call *call,
                      xvsa_error **error) XV_MUST_CHECK;

/* Takes other_config[key] away; what is gone is success. */
int xv_record_unset_tag(struct xv_client *client, const char *class_name, const char *ref,
                        const char *key, const struct xv_call *call,
                        xvsa_error **error) XV_MUST_CHECK;

/* VM.snapshot with a name that is unique to the tag, so that a snapshot whose answer was lost is found.
 * skip: VDI references to leave out (older servers: their snapshots are destroyed afterwards). The
 * snapshot VM and its disks' VDIs are tagged. *ret_ref is the snapshot VM's reference. */
int xv_snapshot_take(struct xv_client *client, const char *vm_ref, const char *tag,
                     const char *const *skip, size_t skip_count, const struct xv_call *call,
                     char **ret_ref, xvsa_error **error) XV_MUST_CHECK;

/* The snapshot that xv_snapshot_take of an earlier process made of the VM with this tag; what it did not come to do
 * is done. NOT_FOUND when there is none. */
int xv_snapshot_find(struct xv_client *client, const char *vm_ref, const char *tag,
                     const char *const *skip, size_t skip_count, const struct xv_call *call,
                     char **ret_ref, xvsa_error **error) XV_MUST_CHECK;

struct xv_snapshot_disk {
    char *vdi_ref;
    char *vdi_uuid;
    char *source_uuid; /* the VDI it is a snapshot of */
    char *device;
    char *sr_ref;
    uint64_t size;
    bool cbt_enabled;
};
/* The disks of a snapshot VM, CDs left out. */
int xv_snapshot_disks(struct xv_client *client, const char *snapshot_ref,
                      const struct xv_call *call, struct xv_snapshot_disk **ret, size_t *ret_count,
                      xvsa_error **error) XV_MUST_CHECK;
void xv_snapshot_disks_free(struct xv_snapshot_disk *disks, size_t count);
/* Destroys a snapshot VM and then its disks, except those in keep (references), which lose their VBDs
 * with it. Retries VDI_IN_USE, removes control-domain VBDs in between. What is gone already is success. */
int xv_snapshot_destroy(struct xv_client *client, const char *snapshot_ref, const char *const *keep,
                        size_t keep_count, const struct xv_call *call,
                        xvsa_error **error) XV_MUST_CHECK;
int xv_vm_destroy(struct xv_client *client, const char *ref, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
int xv_vdi_destroy(struct xv_client *client, const char *ref, const struct xv_call *call,
                   xvsa_error **error) XV_MUST_CHECK;

/* Changed block tracking. */
int xv_cbt_enable(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* Base64 bitmap of the changes from one snapshot to a later one; the caller frees it. */
int xv_cbt_changes(struct xv_client *client, const char *from_ref, const char *to_ref,
                   const struct xv_call *call, char **ret, xvsa_error **error) XV_MUST_CHECK;
/* VDI.data_destroy with its retries: the snapshot keeps only what it tracked. */
int xv_cbt_reduce(struct xv_client *client, const char *vdi_ref, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;

/* Opens a snapshot's bytes through NBD. prefer_host: address of the host to try first, or NULL.
 * UNSUPPORTED when the pool offers no NBD for it. allow_insecure admits servers of insecure_nbd. */
int xv_vdi_open_nbd(struct xv_client *client, const struct xv_inventory *inventory,
                    const char *vdi_ref, const char *prefer_host, bool allow_insecure,
                    const struct xv_nbd_options *options, const struct xv_call *call,
                    struct xv_disk **ret, xvsa_error **error) XV_MUST_CHECK;
/* Opens a snapshot's bytes through GET /export_raw_vdi of a host that reaches its SR; its allocated
 * member reads header and block table of the VHD form where the server makes one. stream reads in
 * ascending order; read is refused with UNSUPPORTED. Outcome: size and task. */
int xv_vdi_open_http(struct xv_client *client, const struct xv_inventory *inventory,
                     const char *vdi_ref, const struct xv_host *host, const struct xv_call *call,
                     struct xv_disk **ret, xvsa_error **error) XV_MUST_CHECK;

/* A VDI attached to the VM that this process runs on. */
struct xv_hotadd_options {
    const struct xv_env *env;
    const char *vm_uuid;     /* of the VM */
    const char *device_path; /* folder where its devices show up */
    const char *tag;         /* of what is made in the pool */
    const char *disk_name;   /* for messages: the VDI's uuid */
    uint64_t size;           /* of the VDI */
    bool writable; /* else the device is opened read-only, however the VM has to have it attached */
    /* Told before a clone is made because the VM cannot have disks attached read-only; a failure ends the
     * opening. May be NULL. */
    int (*cloning)(void *user, xvsa_error **error);
    /* Told when closing could not remove all from the pool. May be NULL. */
    void (*left)(void *user, const char *why);
    void *user; /* must outlive the disk */
};
enum xv_hotadd_fault {
    XV_HOTADD_FAILED,
    XV_HOTADD_NO_DEVICE,      /* the VM has no free position for a disk */
    XV_HOTADD_SR_NOT_REACHED, /* the host of the VM has the VDI's SR not attached */
};
/* Attaches a VDI and opens its device. What is to be read is attached read-only, or, where the VM takes
 * only writable disks, as a clone that nothing is written to. Closing the disk detaches it and destroys
 * the clone, which may block for a minute; it is never done by force. *ret_fault is set on failure. */
int xv_vdi_open_hotadd(struct xv_client *client, const char *vdi_ref,
                       const struct xv_hotadd_options *options, const struct xv_call *call,
                       struct xv_disk **ret, enum xv_hotadd_fault *ret_fault,
                       xvsa_error **error) XV_MUST_CHECK;
/* VDIs that are attached to a VM for as long as data moves; the caller frees each and the array. */
int xv_hotadd_list(struct xv_client *client, const char *vm_ref, const struct xv_call *call,
                   char ***ret, size_t *ret_count, xvsa_error **error) XV_MUST_CHECK;

/* Creates an empty, tagged VDI; *ret_size is what the SR made of size. */
struct xv_vdi_spec {
    const char *sr_ref, *name, *description, *tag;
    const char *type; /* "user" or "system" */
    const char *id;   /* xv_created_look finds it by; NULL: a random one */
    uint64_t size;
};
int xv_vdi_create(struct xv_client *client, const struct xv_vdi_spec *spec,
                  const struct xv_call *call, char **ret_ref, uint64_t *ret_size,
                  xvsa_error **error) XV_MUST_CHECK;

/* Reference of what xv_vdi_create or xv_vm_create ("VDI", "VM") made with an id of the caller's, 32 hex digits; NOT_FOUND when
 * there is none. */
int xv_created_look(struct xv_client *client, const char *class_name, const char *id,
                    const struct xv_call *call, char **ret_ref, xvsa_error **error) XV_MUST_CHECK;
/* Ends transfers into a VDI that a process which is gone, or is not to go on, began, and what holds the VDI for
 * them. */
void xv_vdi_stop_imports(struct xv_client *client, const char *vdi_ref, const struct xv_call *call);
/* Ends the transfers of a disk's content that processes which died have left pending; for who knows that nobody
 * reads it any more. */
void xv_vdi_stop_exports(struct xv_client *client, const char *vdi_ref, const struct xv_call *call);

/* Writes data into a new VDI through PUT /import_raw_vdi?chunked of a host that reaches its SR. data:
 * the ranges that will be written, known beforehand because the length of the request must be announced;
 * blocks are taken from the queue (each a part of data, any order) until all have come. A block begins and
 * ends at multiples of block_size or at bounds of data; one may span several. A queue that is stopped ends it with
 * CANCELLED; after a failure the blocks that are left in it are the caller's. */
int xv_vdi_import(struct xv_client *client, const struct xv_host *host, const char *vdi_ref,
                  const struct xv_extents *data, uint32_t block_size, struct xv_block_queue *queue,
                  const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* VM.create from a saved record: sanitised as the real server needs, given name, tag and a block on
 * start; no disks or interfaces yet. id as for a VDI. */
int xv_vm_create(struct xv_client *client, const struct xv_value *record, const char *name,
                 const char *tag, const char *id, const struct xv_call *call, char **ret_ref,
                 xvsa_error **error) XV_MUST_CHECK;
/* The block on start, in case that whoever created the VM did not come to it. */
int xv_vm_block_start(struct xv_client *client, const char *vm_ref, const char *tag,
                      const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_vbd_create(struct xv_client *client, const char *vm_ref, const char *vdi_ref,
                  const struct xv_value *saved, const struct xv_call *call,
                  xvsa_error **error) XV_MUST_CHECK;
/* mac: "" lets the server derive one. *ret_warning: a text when the pool refused a part of what was
 * saved and the interface was made without it, else NULL; the caller frees it. */
int xv_vif_create(struct xv_client *client, const char *vm_ref, const char *network_ref,
                  const char *mac, const struct xv_value *saved, const struct xv_call *call,
                  char **ret_warning, xvsa_error **error) XV_MUST_CHECK;
/* Bios strings, final name, tags; removes our tag and the block on start. warnings receives a JSON array
 * of texts about parts that the pool did not accept; the caller frees it. */
int xv_vm_complete(struct xv_client *client, const char *vm_ref, const struct xv_value *record,
                   const char *name, const struct xv_call *call, char **ret_warnings,
                   xvsa_error **error) XV_MUST_CHECK;

/* Blocks pool_migrate and migrate_send of a VM with a reason that holds tag, unless somebody else blocks
 * them; and takes away what holds tag. */
int xv_migration_block(struct xv_client *client, const char *vm_ref, const char *tag,
                       const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_migration_unblock(struct xv_client *client, const char *vm_ref, const char *tag,
                         const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;

/* Removes every object of the pool that carries tag (exactly) or, with a NULL tag, any tag of a job for
 * which is_dead answers true: stale VBDs in control domains, snapshot VMs, VDIs, unfinished VMs, blocked
 * operations, tasks. VDIs in keep (uuids) stay. Goes on after failures; *ret_left counts what could not
 * be removed and the first failure is returned. */
typedef bool (*xv_tag_fn)(void *user, const char *tag);
int xv_leftovers_remove(struct xv_client *client, xv_tag_fn is_dead, void *user,
                        const char *const *keep, size_t keep_count, const struct xv_call *call,
                        size_t *ret_removed, size_t *ret_left, xvsa_error **error) XV_MUST_CHECK;

#endif
