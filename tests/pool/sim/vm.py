# SPDX-License-Identifier: LGPL-2.1-or-later
"""Virtual machines: creation, destruction, setters and questions."""

import re

from . import sr as srs, vm_checks
from .calls import after_set, call, not_allowed
from .database import new_uuid
from .dispatch import construct
from .errors import ApiError
from .model import NULL, NEVER

IGNORED_BY_CREATE = ("blocked_operations", "snapshot_schedule", "protection_policy", "power_state",
                     "suspend_VDI", "last_booted_record", "last_boot_CPU_flags")
BIOS_KEYS = ["bios-vendor", "bios-version", "system-manufacturer", "system-product-name",
             "system-version", "system-serial-number", "enclosure-asset-tag",
             "baseboard-manufacturer", "baseboard-product-name", "baseboard-version",
             "baseboard-serial-number", "baseboard-asset-tag", "baseboard-location-in-chassis"]
BIOS_DEFAULTS = {"bios-vendor": "Xen", "bios-version": "", "system-manufacturer": "Xen",
                 "system-product-name": "HVM domU", "system-version": "",
                 "system-serial-number": "", "hp-rombios": ""}


def held(ctx, vm, operation):
    """Hold a VM for an operation after the checks."""
    return ctx.operation("VM", vm, operation,
                         lambda: vm_checks.check(ctx.pool, vm, operation, ctx.key),
                         ctx.pool.refresh_vm)


def new_metrics(pool, values):
    return pool.db.create("VM_metrics", {
        "VCPUs_number": values.get("VCPUs_at_startup", 1),
        "current_domain_type": values.get("domain_type", "unspecified"),
        "hvm": values.get("domain_type") == "hvm", "install_time": NEVER})


def derive_domain_type(values):
    if values.get("domain_type", "unspecified") == "unspecified":
        values["domain_type"] = "hvm" if values.get("HVM_boot_policy") else "pv"


@call("VM.create")
def create(ctx, args):
    values = construct(ctx, "VM", args)
    suspended = values.get("power_state") == "Suspended" and ctx.pool.newer("1.257.0")
    kept = {name: values.get(name) for name in IGNORED_BY_CREATE}
    for name in IGNORED_BY_CREATE:
        values.pop(name, None)
    if suspended:
        complete = (kept["suspend_VDI"] and ctx.db.has("VDI", kept["suspend_VDI"])
                    and kept["last_booted_record"] and kept["last_boot_CPU_flags"])
        if not complete:
            raise ApiError("VM_BAD_POWER_STATE", NULL, "halted", "suspended")
        values.update(power_state="Suspended", suspend_VDI=kept["suspend_VDI"],
                      last_booted_record=kept["last_booted_record"],
                      last_boot_CPU_flags=kept["last_boot_CPU_flags"])
    derive_domain_type(values)
    values["other_config"] = dict(values["other_config"])
    values["other_config"].setdefault("mac_seed", new_uuid())
    values.setdefault("generation_id", "")
    values["metrics"] = new_metrics(ctx.pool, values)
    values["domid"] = -1
    if ctx.db.record("pool", ctx.pool.pool_ref()).get("policy_no_vendor_device"):
        values.setdefault("has_vendor_device", False)
    ref = ctx.db.create("VM", values)
    ctx.pool.refresh_vm(ref)
    return ref


@call("VM.destroy")
def destroy(ctx, self):
    record = ctx.db.record("VM", self)
    if record.get("is_default_template") \
            or record["other_config"].get("default_template") == "true":
        raise ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", self)
    with held(ctx, self, "destroy"):
        for child in list(record["children"]):
            ctx.set("VM", child, parent=record["parent"])
        remove(ctx.pool, self)


def remove(pool, vm):
    """Delete a VM's records, never its disks."""
    record = pool.db.record("VM", vm)
    for cls, field in (("VBD", "VBDs"), ("VIF", "VIFs"), ("VGPU", "VGPUs"), ("VTPM", "VTPMs"),
                       ("console", "consoles"), ("VUSB", "VUSBs")):
        for ref in list(record.get(field, [])):
            if cls == "VTPM":
                pool.secrets.pop(ref, None)
            vdi = pool.db.get("VBD", ref, "VDI") if cls == "VBD" else NULL
            pool.db.delete(cls, ref)
            pool.refresh_vdi(vdi)
    for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
        if pool.db.has(cls, record[field]):
            pool.db.delete(cls, record[field])
    pool.db.delete("VM", vm)


@after_set("VM")
def after(ctx, ref, field):
    if field in ("is_a_template", "affinity"):
        ctx.pool.refresh_vm(ref)


@call("VM.update_allowed_operations")
def update_allowed_operations(ctx, self):
    ctx.db.row("VM", self)
    ctx.pool.refresh_vm(self)


@call("VM.assert_operation_valid")
def assert_operation_valid(ctx, self, op):
    vm_checks.check(ctx.pool, self, op)


# ---- memory and processors ----

def assert_order(static_min, dynamic_min, dynamic_max, static_max):
    if not 0 <= static_min <= dynamic_min <= dynamic_max <= static_max:
        raise ApiError("MEMORY_CONSTRAINT_VIOLATION",
                       "Memory limits must satisfy: static_min <= dynamic_min <= dynamic_max <= "
                       "static_max")


@call("VM.set_memory_limits")
def set_memory_limits(ctx, self, static_min, static_max, dynamic_min, dynamic_max):
    with held(ctx, self, "changing_memory_limits"):
        assert_order(static_min, dynamic_min, dynamic_max, static_max)
        ctx.set("VM", self, memory_static_min=static_min, memory_static_max=static_max,
                memory_dynamic_min=dynamic_min, memory_dynamic_max=dynamic_max,
                memory_target=dynamic_max)


def memory_setter(operation, *names):
    """Setter of one or two memory fields that keeps the order of all four."""
    def handler(ctx, self, **given):
        record = ctx.db.record("VM", self)
        values = {"static_min": record["memory_static_min"],
                  "dynamic_min": record["memory_dynamic_min"],
                  "dynamic_max": record["memory_dynamic_max"],
                  "static_max": record["memory_static_max"]}
        for name, key in names:
            values[name] = given[key]
        with held(ctx, self, operation):
            assert_order(**values)
            ctx.set("VM", self, **{"memory_" + name: values[name] for name, _ in names})
    return handler


call("VM.set_memory_static_range")(memory_setter(
    "changing_static_range", ("static_min", "min"), ("static_max", "max")))
call("VM.set_memory_dynamic_range")(memory_setter(
    "changing_dynamic_range", ("dynamic_min", "min"), ("dynamic_max", "max")))
for _name in ("static_min", "static_max", "dynamic_min", "dynamic_max"):
    call("VM.set_memory_" + _name)(memory_setter(
        "changing_static_range" if _name.startswith("static") else "changing_dynamic_range",
        (_name, "value")))


@call("VM.set_memory")
def set_memory(ctx, self, value):
    set_memory_limits(ctx, self, ctx.get("VM", self, "memory_static_min"), value, value, value)


@call("VM.set_VCPUs_max")
def set_vcpus_max(ctx, self, value):
    with held(ctx, self, "changing_VCPUs"):
        if value < 1 or value < ctx.get("VM", self, "VCPUs_at_startup"):
            raise ApiError("INVALID_VALUE", "VCPU values must satisfy: 0 < VCPUs_at_startup "
                                            "<= VCPUs_max", str(value))
        ctx.set("VM", self, VCPUs_max=value)


@call("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(ctx, self, value):
    with held(ctx, self, "changing_VCPUs"):
        if not 0 < value <= ctx.get("VM", self, "VCPUs_max"):
            raise ApiError("INVALID_VALUE", "VCPU values must satisfy: 0 < VCPUs_at_startup "
                                            "<= VCPUs_max", str(value))
        ctx.set("VM", self, VCPUs_at_startup=value)


@call("VM.set_HVM_shadow_multiplier")
def set_shadow_multiplier(ctx, self, value):
    with held(ctx, self, "changing_shadow_memory"):
        if value < 0.5:
            raise ApiError("INVALID_VALUE", "multiplier", str(value))
        ctx.set("VM", self, HVM_shadow_multiplier=value)


# ---- other setters ----

def field_setter(field, halted=False):
    def handler(ctx, self, value):
        if halted:
            state = ctx.get("VM", self, "power_state")
            if state != "Halted":
                raise ApiError("VM_BAD_POWER_STATE", self, "halted", state.lower())
        before = ctx.get("VM", self, field)
        ctx.set("VM", self, **{field: value})
        if isinstance(value, dict):
            for key in value:
                if key not in before:
                    ctx.pool.mark("VM", self, field, key)
        ctx.pool.refresh_vm(self)
    return handler


for _field in ("actions_after_crash", "platform", "other_config", "ha_restart_priority", "order",
               "start_delay", "shutdown_delay", "appliance", "snapshot_schedule",
               "has_vendor_device", "ha_always_run"):
    call("VM.set_" + _field)(field_setter(_field))
for _field in ("NVRAM", "domain_type", "HVM_boot_policy"):
    call("VM.set_" + _field)(field_setter(_field, halted=True))


@call("VM.set_blocked_operations")
def set_blocked_operations(ctx, self, value):
    before = ctx.get("VM", self, "blocked_operations")
    ctx.set("VM", self, blocked_operations=value)
    for key in value:
        if key not in before:
            ctx.pool.mark("VM", self, "blocked_operations", key)


def adder(field, halted=False):
    def handler(ctx, self, key, value):
        assert_halted(ctx, self, halted)
        ctx.db.map_add("VM", self, field, key, value)
        ctx.pool.mark("VM", self, field, key)
        if field != "blocked_operations":  # allowed_operations stays stale there, as on a server
            ctx.pool.refresh_vm(self)
    return handler


def remover(field, halted=False):
    def handler(ctx, self, key):
        assert_halted(ctx, self, halted)
        ctx.db.map_remove("VM", self, field, key)
    return handler


def assert_halted(ctx, vm, needed):
    state = ctx.get("VM", vm, "power_state")
    if needed and state != "Halted":
        raise ApiError("VM_BAD_POWER_STATE", vm, "halted", state.lower())


for _field, _halted in (("blocked_operations", False), ("platform", False),
                        ("other_config", False), ("NVRAM", True)):
    call("VM.add_to_" + _field)(adder(_field, _halted))
    call("VM.remove_from_" + _field)(remover(_field, _halted))


@call("VM.set_is_a_template")
def set_is_a_template(ctx, self, value):
    record = ctx.db.record("VM", self)
    if value and not record["is_a_template"]:
        with held(ctx, self, "make_into_template"):
            pass
        if any(ctx.get("VBD", v, "currently_attached") for v in record["VBDs"]):
            raise not_allowed("VM has attached disks")
    ctx.set("VM", self, is_a_template=value)
    ctx.pool.refresh_vm(self)


@call("VM.set_is_default_template")
def set_is_default_template(ctx, vm, value):
    ctx.set("VM", vm, is_default_template=value)


@call("VM.set_bios_strings")
def set_bios_strings(ctx, self, value):
    if ctx.get("VM", self, "bios_strings"):
        raise ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    for key, text in value.items():
        if key not in BIOS_KEYS:
            raise ApiError("INVALID_VALUE", key, "Unknown key")
        if not re.fullmatch(r"[\x20-\x7e]{1,512}", text) or text != text.strip():
            raise ApiError("INVALID_VALUE", key, "%s: must be printable ASCII of 1 to 512 "
                                                 "characters" % text[:40])
    ctx.set("VM", self, bios_strings={**BIOS_DEFAULTS, **value})


@call("VM.copy_bios_strings")
def copy_bios_strings(ctx, vm, host):
    if ctx.get("VM", vm, "bios_strings"):
        raise ApiError("VM_BIOS_STRINGS_ALREADY_SET")
    ctx.set("VM", vm, bios_strings=ctx.get("host", host, "bios_strings") or dict(BIOS_DEFAULTS))


@call("VM.set_suspend_VDI")
def set_suspend_vdi(ctx, self, value):
    state = ctx.get("VM", self, "power_state")
    if state != "Suspended":
        raise ApiError("VM_BAD_POWER_STATE", self, "suspended", state.lower())
    ctx.db.row("VDI", value)
    ctx.set("VM", self, suspend_VDI=value)


# ---- placement ----

def assert_fits(ctx, vm, host):
    """The first reason why a VM can't start on a host."""
    pool, record = ctx.pool, ctx.db.record("VM", vm)
    if not pool.host_live(host):
        raise ApiError("HOST_NOT_LIVE")
    if not ctx.get("host", host, "enabled"):
        raise ApiError("HOST_DISABLED", host)
    for vdi in vm_checks.disks(pool, record):
        sr = ctx.get("VDI", vdi, "SR")
        if not srs.reaches(pool, host, sr):
            raise ApiError("VM_REQUIRES_SR", vm, sr)
    present = {ctx.get("PIF", p, "network") for p in ctx.get("host", host, "PIFs")}
    for vif in record["VIFs"]:
        network = ctx.get("VIF", vif, "network")
        if not ctx.db.has("network", network):
            continue
        pifs = ctx.get("network", network, "PIFs")
        if pifs and network not in present:
            raise ApiError("VM_REQUIRES_NETWORK", vm, network)
    free = free_memory(ctx, host)
    if record["memory_dynamic_max"] > free:
        raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", record["memory_dynamic_max"], free)


def free_memory(ctx, host):
    metrics = ctx.get("host", host, "metrics")
    if not ctx.db.has("host_metrics", metrics):
        return 0
    used = sum(ctx.get("VM", v, "memory_dynamic_max")
               for v in ctx.get("host", host, "resident_VMs"))
    return max(0, ctx.get("host_metrics", metrics, "memory_total") - used)


@call("VM.assert_can_boot_here")
def assert_can_boot_here(ctx, self, host):
    ctx.db.row("VM", self)
    ctx.db.row("host", host)
    assert_fits(ctx, self, host)


def possible_hosts(ctx, vm):
    found = []
    for host in ctx.pool.hosts:
        try:
            assert_fits(ctx, vm, host)
            found.append(host)
        except ApiError:
            continue
    return found


@call("VM.get_possible_hosts")
def get_possible_hosts(ctx, vm):
    ctx.db.row("VM", vm)
    return possible_hosts(ctx, vm)


@call("VM.get_SRs_required_for_recovery")
def get_srs_required(ctx, self, session_to):
    return list({ctx.get("VDI", v, "SR") for v in vm_checks.disks(
        ctx.pool, ctx.db.record("VM", self))})
