/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/reason.h"

#include <stdlib.h>
#include <string.h>

#define INFO    XV_SEVERITY_INFO
#define WARNING XV_SEVERITY_WARNING
#define ERROR   XV_SEVERITY_ERROR

#define ROW(name, severity, text) [XV_REASON_##name] = {#name, severity, text}

static const struct {
    const char *name;
    enum xv_severity severity;
    const char *text;
} table[XV_REASON_COUNT] = {
    ROW(ALLOCATION_UNKNOWN, INFO,
        "the pool did not tell which blocks are allocated: all were read"),
    ROW(AUDIT_SKIPPED, INFO, "this transport cannot re-read a sample of the unchanged blocks"),
    ROW(BASE_POINT_DAMAGED, WARNING, "the base restore point cannot be read: all was read"),
    ROW(BASE_POINT_GONE, WARNING, "the base restore point was deleted meanwhile: all was read"),
    ROW(CBT_BASE_GONE, WARNING,
        "the snapshot of the base point is not in the pool any more: all was read and compared"),
    ROW(CBT_BASE_NOT_KEPT, WARNING,
        "the snapshot could not be reduced to its tracking data and was removed: the next backup "
        "reads all"),
    ROW(CBT_DISABLED_BY_POLICY, INFO, "the job does not use changed block tracking"),
    ROW(CBT_ENABLED, INFO,
        "changed block tracking was switched on: the next backup profits from it"),
    ROW(CBT_ENABLE_FAILED, WARNING, "changed block tracking could not be switched on"),
    ROW(CBT_LIED, WARNING,
        "blocks that tracking called unchanged had changed: all was read and compared"),
    ROW(CBT_LIST_FAILED, WARNING,
        "the pool did not tell the changed blocks: all was read and compared"),
    ROW(CBT_NOT_ENABLED, INFO,
        "changed block tracking was off at the base or is off: all was read"),
    ROW(CBT_NOT_LICENSED, WARNING, "the pool's licence does not allow changed block tracking"),
    ROW(CBT_RESET, WARNING,
        "changed block tracking was interrupted since the base: all was read and compared"),
    ROW(CBT_UNSUPPORTED_SR, INFO, "the storage repository's driver cannot track changed blocks"),
    ROW(CHAIN_TOO_DEEP, ERROR,
        "the chain of snapshots is too deep for another one: let the pool coalesce it"),
    ROW(CLEANUP_PENDING, WARNING,
        "something could not be removed from the pool; it will be tried again"),
    ROW(CRASH_CONSISTENT, INFO,
        "the VM was running: each disk is as it would be after a power failure"),
    ROW(DISK_EXCLUDED, INFO, "the job excludes this disk"),
    ROW(DISK_MISSING, WARNING, "the storage repository lost this disk: it cannot be backed up"),
    ROW(DISK_NEW, INFO, "the base restore point does not have this disk: all was read"),
    ROW(DISK_NOT_SNAPSHOTTED, ERROR, "the snapshot does not hold this disk"),
    ROW(DISK_REPLACED, INFO,
        "another disk is at this position than in the base point: all was read and compared"),
    ROW(DISK_RESET_ON_BOOT, ERROR,
        "the disk is reset at each boot: the pool makes no snapshot of a VM that has one"),
    ROW(DISK_SHARED, WARNING, "the disk is shared between VMs and cannot be snapshotted: skipped"),
    ROW(DISK_SHRUNK, WARNING,
        "the disk is smaller than in the base point: all was read and compared"),
    ROW(FIRST_BACKUP, INFO, "there is no restore point of this VM yet: all was read"),
    ROW(JOB_BUSY, INFO, "as many VMs as the job allows are in work: the VM waits"),
    ROW(HOST_BUSY, INFO, "all NBD connections of the host are in use: the disk waits"),
    ROW(HOTADD_FAILED, WARNING,
        "attaching the disk to the proxy failed: another transport was used"),
    ROW(HOTADD_HVM_CLONE, INFO,
        "the proxy's VM takes only writable disks: a clone of the snapshot was attached"),
    ROW(HOTADD_NOT_LOCAL, WARNING,
        "the disk cannot be attached to the proxy, because this process does not run there"),
    ROW(HOTADD_NO_DEVICE, WARNING,
        "the proxy has no free position for another disk: another transport was used"),
    ROW(HOTADD_PROXY_VM, INFO, "disks of a proxy's own VM are not attached to proxies"),
    ROW(HOTADD_SR_NOT_REACHED, WARNING,
        "the proxy's host does not reach the storage repository: the disk cannot be attached"),
    ROW(MAC_DUPLICATE, WARNING, "another VM of the pool has this MAC address"),
    ROW(MAC_RENEWED, INFO, "the interface gets a new MAC address"),
    ROW(MIGRATION_NOT_BLOCKED, INFO, "the VM could not be kept from migrating during the backup"),
    ROW(NAME_TAKEN, INFO, "another VM of the pool has this name"),
    ROW(NBD_CONNECTIONS_MISSING, WARNING,
        "hosts refused or lost NBD connections: the disk was read over fewer than planned"),
    ROW(NBD_FAILED, WARNING, "reading over NBD failed: the slower HTTP export was used"),
    ROW(NBD_NOT_ENABLED, WARNING, "the pool offers no NBD on any network: HTTP export is used"),
    ROW(NBD_REFUSED_BY_POLICY, INFO, "the job does not use NBD"),
    ROW(NETWORK_AMBIGUOUS, ERROR, "several networks have the name: choose one in \"networks\""),
    ROW(NETWORK_NOT_FOUND, ERROR, "no network has the uuid or name: choose one in \"networks\""),
    ROW(NETWORK_SKIPPED, WARNING, "the job leaves this interface out"),
    ROW(NO_PROXY, ERROR, "the pool has no proxy: add one"),
    ROW(NO_PROXY_REACHES_SR, ERROR, "no proxy reaches the storage repository"),
    ROW(OTHER_POOL, INFO, "the restore point was made in another pool"),
    ROW(OUTSIDE_WINDOW, INFO, "the operation window is closed: work goes on when it opens"),
    ROW(POINT_NOT_PINNED, INFO,
        "nothing keeps the restore point from being deleted while it is read"),
    ROW(PROXY_BUSY, INFO, "the proxy moves as many disks as it may: the disk waits"),
    ROW(PROXY_DISKS_LEFT_OUT, INFO,
        "disks that the proxy's VM has attached for other backups are left out"),
    ROW(PROXY_HOST_NOT_LIVE, WARNING, "the host that the proxy's VM runs on is not live"),
    ROW(PROXY_NOT_RUNNING, WARNING, "the proxy's VM does not run"),
    ROW(RATE_ZERO, INFO, "the rate for this time of the week is 0: work goes on when it changes"),
    ROW(READ_OVER_NETWORK, WARNING,
        "no proxy that reaches the storage repository took the disk: it was read through another "
        "host"),
    ROW(SNAPSHOT_RETAKEN, WARNING,
        "the snapshot of an earlier attempt was gone, held other disks or is not known any more: "
        "all was begun anew"),
    ROW(SR_AMBIGUOUS, ERROR, "several storage repositories have the name: choose one in \"srs\""),
    ROW(SR_BUSY, INFO,
        "as many transfers as the storage repository allows are running: the disk waits"),
    ROW(SR_NOT_FOUND, ERROR, "no storage repository has the uuid or name: choose one in \"srs\""),
    ROW(SR_SPACE_LOW, ERROR, "the storage repository has too little free space for a snapshot"),
    ROW(SR_TOO_SMALL, ERROR, "the storage repository has less free space than the data needs"),
    ROW(STORE_UNREACHABLE, INFO,
        "the coordination store was out of reach: this proxy went on alone"),
    ROW(TASK_TAKEN_OVER, INFO, "an earlier attempt was taken over and gone on with"),
    ROW(TIME_LIMIT, WARNING, "the job's time limit was reached: what was done stays"),
    ROW(VM_HAS_NO_DISKS, INFO, "the VM has no disk to back up: only its settings are kept"),
    ROW(VM_HAS_VUSBS, ERROR, "the VM has USB devices passed through and cannot be snapshotted"),
    ROW(VM_PART_NOT_RESTORED, WARNING, "the pool did not accept a part of the VM's settings"),
    ROW(VTPM_NOT_SAVED, WARNING,
        "the contents of the virtual TPM are not part of the restore point"),
};

const char *xv_reason_name(enum xv_reason_code code)
{
    return table[code].name;
}

enum xv_severity xv_reason_severity(enum xv_reason_code code)
{
    return table[code].severity;
}

enum xv_reason_code xv_reason_find(const char *name)
{
    int code = 0;
    while (code < XV_REASON_COUNT && strcmp(table[code].name, name) != 0)
        code++;
    return (enum xv_reason_code)code;
}

bool xv_reasons_have(const struct xv_reasons *list, enum xv_reason_code code)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].code == code)
            return true;
    }
    return false;
}

/* Takes detail. */
static void append(struct xv_reasons *list, enum xv_reason_code code, char *detail)
{
    struct xv_reason *items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (items == NULL) {
        free(detail);
        return;
    }
    items[list->count] = (struct xv_reason){code, detail};
    list->items = items;
    list->count++;
}

void xv_reasons_add(struct xv_reasons *list, enum xv_reason_code code, const char *detail_format,
                    ...)
{
    if (xv_reasons_have(list, code))
        return;
    char *detail = NULL;
    if (detail_format != NULL) {
        va_list args;
        va_start(args, detail_format);
        if (vasprintf(&detail, detail_format, args) < 0)
            detail = NULL;
        va_end(args);
    }
    append(list, code, detail);
}

void xv_reasons_copy(struct xv_reasons *list, const struct xv_reasons *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const char *detail = from->items[i].detail;
        if (!xv_reasons_have(list, from->items[i].code))
            append(list, from->items[i].code, detail == NULL ? NULL : strdup(detail));
    }
}

void xv_reasons_free(struct xv_reasons *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].detail);
    free(list->items);
    *list = (struct xv_reasons){0};
}

json_t *xv_reasons_to_json(const struct xv_reasons *list)
{
    static const char *const severities[] = {"info", "warning", "error"};
    json_t *array = json_array();
    for (size_t i = 0; i < list->count; i++) {
        const struct xv_reason *reason = &list->items[i];
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:s, s:o}", "code", table[reason->code].name, "severity",
                             severities[table[reason->code].severity], "text",
                             table[reason->code].text, "detail", xv_json_text(reason->detail)));
    }
    return array;
}

int xv_refusals_read(const json_t *array, const char *path, struct xv_refusals *ret,
                     xvsa_error **error)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        enum xv_reason_code code = name == NULL ? XV_REASON_COUNT : xv_reason_find(name);
        if (code == XV_REASON_COUNT)
            return xv_fail(error, XVSA_ERR_INVALID, "job", "%s[%zu]: \"%s\" is not a reason code",
                           path, i, name == NULL ? "(not a text)" : name);
        ret->codes[code] = true;
    }
    return 0;
}

int xv_reasons_check(const struct xv_reasons *list, const struct xv_refusals *refusals,
                     const char *what, xvsa_error **error)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct xv_reason *reason = &list->items[i];
        bool is_error = table[reason->code].severity == ERROR;
        if (is_error || refusals->codes[reason->code])
            return xv_fail(error, XVSA_ERR_REFUSED, "job", "%s: %s%s: %s%s%s", what,
                           is_error ? "" : "the job's policy refuses ", table[reason->code].name,
                           table[reason->code].text, reason->detail == NULL ? "" : ": ",
                           reason->detail == NULL ? "" : reason->detail);
    }
    return 0;
}
