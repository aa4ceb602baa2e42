# SPDX-License-Identifier: LGPL-2.1-or-later
"""When an operation on a VDI may start: the checks in the server's order."""

from . import sr as srs
from .errors import ApiError
from .model import NULL

# Operations on the VDI, and the SR operation that goes with each (None: only the VDI is locked).
SR_OPERATION = {
    "snapshot": "vdi_snapshot", "clone": "vdi_clone", "destroy": "vdi_destroy",
    "resize": "vdi_resize", "resize_online": "vdi_resize", "enable_cbt": "vdi_enable_cbt",
    "disable_cbt": "vdi_disable_cbt", "data_destroy": "vdi_data_destroy",
    "list_changed_blocks": "vdi_list_changed_blocks", "set_on_boot": "vdi_set_on_boot",
    "revert_to": "vdi_revert", "mirror": "vdi_mirror",
}
LIVE = {"snapshot", "clone", "resize_online", "mirror", "enable_cbt", "disable_cbt",
        "data_destroy", "revert_to"}
NOT_ON_METADATA = {"snapshot", "clone", "copy", "resize", "resize_online", "enable_cbt",
                   "disable_cbt", "mirror", "set_on_boot", "generate_config", "force_unlock",
                   "get_nbd_info"}
FEATURE = {"snapshot": "VDI_SNAPSHOT", "destroy": "VDI_DELETE", "resize": "VDI_RESIZE",
           "resize_online": "VDI_RESIZE_ONLINE", "generate_config": "VDI_GENERATE_CONFIG",
           "enable_cbt": "VDI_CONFIG_CBT", "disable_cbt": "VDI_CONFIG_CBT",
           "data_destroy": "VDI_CONFIG_CBT", "list_changed_blocks": "VDI_CONFIG_CBT",
           "set_on_boot": "VDI_RESET_ON_BOOT", "mirror": "VDI_MIRROR", "update": "VDI_UPDATE",
           "revert_to": "VDI_REVERT"}
DURING_UPGRADE = {"destroy", "forget", "update", "generate_config", "force_unlock"}
LISTED = ["clone", "copy", "resize", "resize_online", "snapshot", "destroy", "forget", "update",
          "generate_config"]


def vbd_records(pool, vdi):
    return [(ref, pool.db.record("VBD", ref)) for ref in pool.db.get("VDI", vdi, "VBDs")
            if pool.db.has("VBD", ref)]


def attached(pool, vdi, ignore_snapshots=False, read_write_only=False):
    """Whether a VBD holds the VDI."""
    for _, vbd in vbd_records(pool, vdi):
        if not vbd["currently_attached"]:
            continue
        if read_write_only and vbd["mode"] == "RO":
            continue
        if ignore_snapshots and pool.db.has("VM", vbd["VM"]) \
                and pool.db.get("VM", vbd["VM"], "is_a_snapshot"):
            continue
        return True
    return False


def check_attached(pool, vdi, operation):
    if operation in ("destroy", "forget", "resize", "set_on_boot"):
        held = attached(pool, vdi)
    elif operation == "list_changed_blocks":
        held = attached(pool, vdi, ignore_snapshots=True)
    elif operation == "copy":
        held = attached(pool, vdi, read_write_only=True)
    else:
        held = operation not in LIVE and attached(pool, vdi)
    if held:
        raise ApiError("VDI_IN_USE", vdi, operation)


def check_busy(pool, vdi, operation, key):
    """Another operation on the VDI: copies only exclude what changes it."""
    for other_key, other in pool.db.get("VDI", vdi, "current_operations").items():
        if other_key == key:
            continue
        if other == "copy":
            if operation in ("copy", "clone", "update"):
                continue
            if operation == "snapshot":
                raise ApiError("OPERATION_NOT_ALLOWED",
                               "Snapshot operation not allowed during copy.")
        raise pool.busy("VDI", vdi, other, other_key)


def check(pool, vdi, operation, key=None):
    """Raise the first reason why `operation` may not start on the VDI."""
    record = pool.db.record("VDI", vdi)
    if pool.options["rolling_upgrade"] and operation not in DURING_UPGRADE:
        raise ApiError("NOT_SUPPORTED_DURING_UPGRADE")
    check_busy(pool, vdi, operation, key)
    if operation == "resize" and not srs.attached_hosts(pool, record["SR"]):
        raise ApiError("SR_HAS_NO_PBDS", record["SR"])
    check_attached(pool, vdi, operation)
    if operation != "data_destroy":
        for _, vbd in vbd_records(pool, vdi):
            for other_key, other in vbd["current_operations"].items():
                raise pool.busy("VDI", vdi, other, other_key)
    if not srs.has_feature(pool, record["SR"], FEATURE.get(operation)):
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", record["SR"])
    if record["type"] == "cbt_metadata" and operation in NOT_ON_METADATA:
        raise incompatible(vdi, record)
    if record.get("cbt_enabled") and operation in ("mirror", "set_on_boot"):
        raise ApiError("VDI_CBT_ENABLED", vdi)
    check_rules(pool, vdi, record, operation)


def incompatible(vdi, record):
    """The type is spelled for people here."""
    names = {"cbt_metadata": "CBT metadata"}
    return ApiError("VDI_INCOMPATIBLE_TYPE", vdi, names.get(record["type"], record["type"]))


def check_rules(pool, vdi, record, operation):
    if operation == "snapshot":
        if record["sharable"]:
            raise ApiError("VDI_IS_SHARABLE", vdi)
        if record["on_boot"] == "reset":
            raise ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    elif operation == "copy":
        if record["type"] in ("ha_statefile", "redo_log"):
            raise ApiError("OPERATION_NOT_ALLOWED", "VDI containing HA statefile or redo log "
                                                    "cannot be copied (check the VDI's allowed "
                                                    "operations).")
        if record["on_boot"] == "reset":
            raise ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    elif operation in ("enable_cbt", "disable_cbt"):
        if record["is_a_snapshot"]:
            raise ApiError("OPERATION_NOT_ALLOWED", "VDI is a snapshot: " + vdi)
        if record["type"] not in ("user", "system"):
            raise incompatible(vdi, record)
        if record["on_boot"] == "reset":
            raise ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    elif operation == "data_destroy":
        if not record["is_a_snapshot"]:
            raise ApiError("OPERATION_NOT_ALLOWED", "VDI is not a snapshot: " + vdi)
        if not record["cbt_enabled"]:
            raise ApiError("VDI_NO_CBT_METADATA", vdi)
    elif operation == "destroy":
        if record["type"] in ("ha_statefile", "redo_log") and record["managed"] \
                and pool.db.get("pool", pool.pool_ref(), "ha_enabled"):
            raise ApiError("HA_IS_ENABLED")
    elif operation == "revert_to":
        if not record["is_a_snapshot"]:
            raise ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")


def refresh(pool, vdi):
    """Recompute allowed_operations; CBT operations are never listed."""
    if vdi == NULL or not pool.db.has("VDI", vdi):
        return
    record = pool.db.record("VDI", vdi)
    allowed = []
    for operation in LISTED:
        if record["current_operations"] or not record["managed"] and operation == "snapshot":
            continue
        try:
            sr_operation = SR_OPERATION.get(operation)
            if sr_operation and not srs.has_feature(pool, record["SR"], srs.NEEDS[sr_operation]):
                continue
            check(pool, vdi, operation)
            allowed.append(operation)
        except ApiError:
            continue
    pool.db.set("VDI", vdi, "allowed_operations", list(reversed(allowed)))
