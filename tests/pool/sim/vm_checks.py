# SPDX-License-Identifier: LGPL-2.1-or-later
"""When an operation on a VM may start: the checks in the server's order, and allowed_operations."""

from .errors import ApiError
from .model import NULL

LIVE = ["Paused", "Suspended", "Running"]
# Power states an operation is allowed in, in the order the error names them; None: any.
STATES = {
    "snapshot": None, "revert": None, "metadata_export": None, "power_state_reset": None,
    "update_allowed_operations": None, "data_source_op": None, "assert_operation_valid": None,
    "call_plugin": ["Running"], "query_services": ["Running"],
    "checkpoint": LIVE, "hard_shutdown": LIVE, "shutdown": LIVE,
    "hard_reboot": ["Paused", "Running"],
    "export": ["Halted", "Suspended"], "destroy": ["Halted", "Suspended"],
    "create_template": ["Halted", "Suspended"],
    "clone": ["Halted"], "copy": ["Halted"],
    "start": ["Halted"], "start_on": ["Halted"], "provision": ["Halted"],
    "make_into_template": ["Halted"], "changing_NVRAM": ["Halted"], "create_vtpm": ["Halted"],
    "changing_VCPUs": ["Halted"], "changing_static_range": ["Halted"],
    "changing_shadow_memory": ["Halted"], "changing_memory_limits": ["Halted"],
    "changing_dynamic_range": ["Halted", "Running"], "changing_VCPUs_live": ["Running"],
    "changing_shadow_memory_live": ["Running"], "changing_memory_live": ["Running"],
    "pause": ["Running"], "unpause": ["Paused"], "suspend": ["Running"],
    "clean_shutdown": ["Running"], "clean_reboot": ["Running"], "pool_migrate": ["Running"],
    "send_sysrq": ["Running"], "send_trigger": ["Running"], "resume": ["Suspended"],
    "resume_on": ["Suspended"], "migrate_send": ["Halted", "Suspended", "Running"],
    "snapshot_with_quiesce": ["Running"], "import": ["Halted"], "csvm": ["Suspended"],
    "get_boot_record": None, "awaiting_memory_live": ["Running"], "reverting": None,
    "sysprep": ["Running"],
}
TEMPLATE_OPS = {"clone", "copy", "export", "metadata_export", "provision", "destroy",
                "changing_VCPUs", "changing_static_range", "changing_dynamic_range",
                "changing_memory_limits", "changing_shadow_memory", "changing_NVRAM",
                "create_vtpm", "update_allowed_operations", "assert_operation_valid",
                "make_into_template"}
SNAPSHOT_OPS = {"revert", "clone", "copy", "export", "metadata_export", "destroy",
                "hard_shutdown", "update_allowed_operations", "assert_operation_valid"}
# Operations that may overlap others of the same group.
GROUPS = [{"clone", "copy", "export"}, {"snapshot", "checkpoint"}]
INTERRUPTING = {"hard_shutdown", "hard_reboot"}
INTERRUPTED = {"clean_shutdown", "clean_reboot", "hard_shutdown", "hard_reboot", "shutdown",
               "pause", "unpause", "suspend", "start", "start_on", "resume", "resume_on"}
GUEST_FEATURES = {"clean_shutdown": "feature-shutdown", "clean_reboot": "feature-reboot",
                  "suspend": "feature-suspend", "checkpoint": "feature-suspend",
                  "pool_migrate": "feature-suspend", "migrate_send": "feature-suspend",
                  "changing_VCPUs_live": "feature-vcpu-hotplug"}
IMMOBILE_OPS = {"suspend", "checkpoint", "pool_migrate", "migrate_send"}
DURING_UPGRADE = {"start", "start_on", "resume", "resume_on", "suspend", "pause", "unpause",
                  "clean_shutdown", "clean_reboot", "hard_shutdown", "hard_reboot", "shutdown",
                  "pool_migrate", "power_state_reset", "update_allowed_operations",
                  "assert_operation_valid", "metadata_export"}
LISTED = ["snapshot", "copy", "clone", "revert", "checkpoint", "snapshot_with_quiesce", "start",
          "start_on", "pause", "unpause", "clean_shutdown", "clean_reboot", "hard_shutdown",
          "hard_reboot", "suspend", "resume", "resume_on", "export", "destroy", "provision",
          "changing_VCPUs_live", "pool_migrate", "migrate_send", "make_into_template",
          "changing_static_range", "changing_shadow_memory", "changing_dynamic_range",
          "changing_NVRAM", "create_vtpm"]


def check(pool, vm, operation, key=None):
    """Raise the first reason why `operation` may not start on the VM."""
    record = pool.db.record("VM", vm)
    if operation in record["blocked_operations"]:
        raise ApiError("OPERATION_BLOCKED", vm, record["blocked_operations"][operation])
    check_power_state(vm, record, operation)
    check_concurrency(pool, vm, record, operation, key)
    if record["is_a_template"] and not record["is_a_snapshot"] and operation not in TEMPLATE_OPS:
        raise ApiError("VM_IS_TEMPLATE", vm, operation)
    if record["is_a_snapshot"] and operation not in SNAPSHOT_OPS:
        raise ApiError("VM_IS_SNAPSHOT", vm, operation)
    if operation == "provision" and not record["is_a_template"]:
        raise ApiError("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
    if operation == "revert" and not record["is_a_snapshot"]:
        raise ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")
    if operation in IMMOBILE_OPS and record["power_state"] == "Running" \
            and record["platform"].get("nomigrate") == "true":
        raise ApiError("VM_IS_IMMOBILE", vm)
    if record["is_control_domain"] and operation not in (
            "data_source_op", "changing_memory_live", "awaiting_memory_live", "metadata_export",
            "changing_dynamic_range"):
        raise ApiError("OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0")
    check_features(pool, vm, record, operation)
    if operation == "snapshot_with_quiesce":
        raise ApiError("VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", vm, "not supported")
    check_disks(pool, record, operation)
    check_devices(pool, vm, record, operation)


def check_power_state(vm, record, operation):
    states = STATES.get(operation)
    if states is None:
        return
    if operation in ("clone", "copy") and record["is_a_snapshot"]:
        states = ["Halted", "Suspended"]
    if record["power_state"] not in states:
        raise ApiError("VM_BAD_POWER_STATE", vm, ", ".join(s.lower() for s in states),
                       record["power_state"].lower())


def check_concurrency(pool, vm, record, operation, key):
    others = {k: op for k, op in record["current_operations"].items() if k != key}
    if not others or operation in ("update_allowed_operations", "assert_operation_valid"):
        return
    busy = set(others.values())
    if any(operation in group and busy <= group for group in GROUPS):
        return
    if operation == "metadata_export" and busy == {"migrate_send"}:
        return
    if operation in INTERRUPTING and busy <= INTERRUPTED:
        return
    names = list(others.values())
    text = names[0] if len(names) == 1 else "{%s}" % ",".join(names)
    raise pool.busy("VM", vm, text, next(iter(others)))


def guest_features(pool, record):
    """What the guest announced, or None without an agent."""
    metrics = record["guest_metrics"]
    if not pool.db.has("VM_guest_metrics", metrics):
        return None
    return pool.db.get("VM_guest_metrics", metrics, "other")


def check_features(pool, vm, record, operation):
    needed = GUEST_FEATURES.get(operation)
    if needed is None or record["power_state"] != "Running":
        return
    features = guest_features(pool, record)
    if features is None or features.get(needed) != "1":
        raise ApiError("VM_LACKS_FEATURE", vm)
    if operation in ("suspend", "checkpoint") and "data-cant-suspend-reason" in features:
        raise ApiError("VM_NON_SUSPENDABLE", vm, features["data-cant-suspend-reason"])


def disks(pool, record):
    """VDI references of the VM's filled drives."""
    found = []
    for vbd in record["VBDs"]:
        vdi = pool.db.get("VBD", vbd, "VDI")
        if vdi != NULL and pool.db.has("VDI", vdi):
            found.append(vdi)
    return found


def check_disks(pool, record, operation):
    if operation not in ("snapshot", "checkpoint", "suspend", "pool_migrate", "migrate_send"):
        return
    if any(pool.db.get("VDI", v, "on_boot") == "reset" for v in disks(pool, record)):
        raise ApiError("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")


def check_upgrade(pool, operation):
    """While hosts differ in version only what moves and stops machines works."""
    if pool.options["rolling_upgrade"] and operation not in DURING_UPGRADE:
        raise ApiError("NOT_SUPPORTED_DURING_UPGRADE")


def check_devices(pool, vm, record, operation):
    moving = operation in ("suspend", "checkpoint", "pool_migrate", "migrate_send")
    if moving and (record["attached_PCIs"] or record["other_config"].get("pci")):
        raise ApiError("VM_HAS_PCI_ATTACHED", vm)
    if moving and record["VGPUs"]:
        raise ApiError("VM_HAS_VGPU", vm)
    if record.get("VUSBs") and operation in ("snapshot", "checkpoint", "suspend", "pool_migrate",
                                             "migrate_send"):
        raise ApiError("VM_HAS_VUSBS", vm)
    if operation in ("destroy", "make_into_template"):
        appliance = record.get("appliance", NULL)
        if operation == "make_into_template" and pool.db.has("VM_appliance", appliance):
            raise ApiError("VM_IS_PART_OF_AN_APPLIANCE", vm, appliance)
        schedule = record.get("snapshot_schedule", NULL)
        if operation == "make_into_template" and pool.db.has("VMSS", schedule):
            raise ApiError("VM_ASSIGNED_TO_SNAPSHOT_SCHEDULE", vm, schedule)
    check_upgrade(pool, operation)
    if operation == "create_vtpm" and record.get("VTPMs"):
        raise ApiError("VTPM_MAX_AMOUNT_REACHED", "1")
    if operation == "checkpoint" and pool.db.get("pool", pool.pool_ref(), "restrictions").get(
            "restrict_checkpoint", "false") == "true":
        raise ApiError("LICENCE_RESTRICTION", "Checkpoint")


def refresh(pool, vm):
    """Recompute a VM's allowed_operations."""
    if not pool.db.has("VM", vm):
        return
    allowed = []
    for operation in LISTED:
        try:
            check(pool, vm, operation)
            allowed.append(operation)
        except ApiError:
            continue
    known = pool.model.enums["vm_operations"]
    pool.db.set("VM", vm, "allowed_operations", [o for o in reversed(allowed) if o in known])
