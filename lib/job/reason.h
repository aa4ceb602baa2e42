/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Reasons: typed codes that explain a choice or a degradation. The table in reason.c and
 * docs/reasons.md say the same.
 */
#ifndef XV_JOB_REASON_H
#define XV_JOB_REASON_H

#include <stdbool.h>
#include <stddef.h>

#include "job/json.h"

enum xv_reason_code {
    XV_REASON_ALLOCATION_UNKNOWN,
    XV_REASON_AUDIT_SKIPPED,
    XV_REASON_BASE_POINT_DAMAGED,
    XV_REASON_BASE_POINT_GONE,
    XV_REASON_CBT_BASE_GONE,
    XV_REASON_CBT_BASE_NOT_KEPT,
    XV_REASON_CBT_DISABLED_BY_POLICY,
    XV_REASON_CBT_ENABLED,
    XV_REASON_CBT_ENABLE_FAILED,
    XV_REASON_CBT_LIED,
    XV_REASON_CBT_LIST_FAILED,
    XV_REASON_CBT_NOT_ENABLED,
    XV_REASON_CBT_NOT_LICENSED,
    XV_REASON_CBT_RESET,
    XV_REASON_CBT_UNSUPPORTED_SR,
    XV_REASON_CHAIN_TOO_DEEP,
    XV_REASON_CLEANUP_PENDING,
    XV_REASON_CRASH_CONSISTENT,
    XV_REASON_DISK_EXCLUDED,
    XV_REASON_DISK_MISSING,
    XV_REASON_DISK_NEW,
    XV_REASON_DISK_NOT_SNAPSHOTTED,
    XV_REASON_DISK_REPLACED,
    XV_REASON_DISK_RESET_ON_BOOT,
    XV_REASON_DISK_SHARED,
    XV_REASON_DISK_SHRUNK,
    XV_REASON_FIRST_BACKUP,
    XV_REASON_HOST_BUSY,
    XV_REASON_HOTADD_FAILED,
    XV_REASON_HOTADD_HVM_CLONE,
    XV_REASON_HOTADD_NOT_LOCAL,
    XV_REASON_HOTADD_NO_DEVICE,
    XV_REASON_HOTADD_PROXY_VM,
    XV_REASON_HOTADD_SR_NOT_REACHED,
    XV_REASON_JOB_BUSY,
    XV_REASON_MAC_DUPLICATE,
    XV_REASON_MAC_RENEWED,
    XV_REASON_MIGRATION_NOT_BLOCKED,
    XV_REASON_NAME_TAKEN,
    XV_REASON_NBD_CONNECTIONS_MISSING,
    XV_REASON_NBD_FAILED,
    XV_REASON_NBD_NOT_ENABLED,
    XV_REASON_NBD_REFUSED_BY_POLICY,
    XV_REASON_NETWORK_AMBIGUOUS,
    XV_REASON_NETWORK_NOT_FOUND,
    XV_REASON_NETWORK_SKIPPED,
    XV_REASON_NO_PROXY,
    XV_REASON_NO_PROXY_REACHES_SR,
    XV_REASON_OTHER_POOL,
    XV_REASON_OUTSIDE_WINDOW,
    XV_REASON_POINT_NOT_PINNED,
    XV_REASON_PROXY_BUSY,
    XV_REASON_PROXY_DISKS_LEFT_OUT,
    XV_REASON_PROXY_HOST_NOT_LIVE,
    XV_REASON_PROXY_NOT_RUNNING,
    XV_REASON_RATE_ZERO,
    XV_REASON_READ_OVER_NETWORK,
    XV_REASON_SNAPSHOT_RETAKEN,
    XV_REASON_SR_AMBIGUOUS,
    XV_REASON_SR_BUSY,
    XV_REASON_SR_NOT_FOUND,
    XV_REASON_SR_SPACE_LOW,
    XV_REASON_SR_TOO_SMALL,
    XV_REASON_STORE_UNREACHABLE,
    XV_REASON_TASK_TAKEN_OVER,
    XV_REASON_TIME_LIMIT,
    XV_REASON_VM_HAS_NO_DISKS,
    XV_REASON_VM_HAS_VUSBS,
    XV_REASON_VM_PART_NOT_RESTORED,
    XV_REASON_VTPM_NOT_SAVED,
    XV_REASON_COUNT,
};

enum xv_severity {
    XV_SEVERITY_INFO,    /* explains a choice */
    XV_SEVERITY_WARNING, /* less than was asked for, or than would be possible */
    XV_SEVERITY_ERROR,   /* refuses the VM or the disk */
};

const char *xv_reason_name(enum xv_reason_code code);
enum xv_severity xv_reason_severity(enum xv_reason_code code);
/* XV_REASON_COUNT when there is none. */
enum xv_reason_code xv_reason_find(const char *name);

struct xv_reason {
    enum xv_reason_code code;
    char *detail; /* of this case; NULL: none */
};

struct xv_reasons {
    struct xv_reason *items;
    size_t count;
};

/* Adds a reason; one of the same code stays alone. detail_format may be NULL. A reason that memory is
 * lacking for is lost: it never fails what it explains. */
void xv_reasons_add(struct xv_reasons *list, enum xv_reason_code code, const char *detail_format,
                    ...) XV_PRINTF(3, 4);
bool xv_reasons_have(const struct xv_reasons *list, enum xv_reason_code code);
/* Copies what list does not have yet. */
void xv_reasons_copy(struct xv_reasons *list, const struct xv_reasons *from);
void xv_reasons_free(struct xv_reasons *list);
/* [{"code", "severity", "text", "detail"}] */
json_t *xv_reasons_to_json(const struct xv_reasons *list);

/* Codes that a job's policy does not accept. */
struct xv_refusals {
    bool codes[XV_REASON_COUNT];
};
/* From a JSON array of names; NULL: none. */
int xv_refusals_read(const json_t *array, const char *path, struct xv_refusals *ret,
                     xvsa_error **error) XV_MUST_CHECK;
/* Fails with REFUSED when the list holds a refused code or one of severity error. what names the VM or
 * disk. */
int xv_reasons_check(const struct xv_reasons *list, const struct xv_refusals *refusals,
                     const char *what, xvsa_error **error) XV_MUST_CHECK;

#endif
