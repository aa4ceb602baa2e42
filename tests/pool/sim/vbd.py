# SPDX-License-Identifier: LGPL-2.1-or-later
"""Virtual block devices: creation, hot-plug with the server's checks, media."""

import contextlib
import os
import re

from . import sr as srs, vdi_checks, vm_checks
from .calls import after_set, call, not_allowed
from .dispatch import construct
from .errors import ApiError
from .model import NULL

MAX_DISKS = 255


def device_name(position):
    """Position to Xen name: 0 is xvda, 26 is xvdaa."""
    letters = ""
    number = position
    while True:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
        if number < 0:
            return "xvd" + letters


def position_of(text):
    """A userdevice as a number: a position or a device name; None when it is neither."""
    if re.fullmatch(r"\d{1,3}", text):
        return int(text) if int(text) < MAX_DISKS else None
    match = re.fullmatch(r"(?:xvd|hd|sd)([a-z]{1,2})", text)
    if not match:
        return None
    number = 0
    for letter in match.group(1):
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def used_positions(pool, vm):
    return {pool.db.get("VBD", v, "userdevice") for v in pool.db.get("VM", vm, "VBDs")}


def free_positions(pool, vm):
    used = {position_of(u) for u in used_positions(pool, vm)}
    limit = 16 if pool.db.get("VM", vm, "HVM_boot_policy") else MAX_DISKS
    return [str(n) for n in range(max(limit, MAX_DISKS)) if n not in used]


def refresh(pool, ref):
    if not pool.db.has("VBD", ref):
        return
    record = pool.db.record("VBD", ref)
    allowed = []
    for operation in ("attach", "eject", "unplug", "unplug_force", "insert", "plug", "pause",
                      "unpause"):
        try:
            check(pool, ref, record, operation)
            allowed.append(operation)
        except ApiError:
            continue
    pool.db.set("VBD", ref, "allowed_operations", allowed)


def check(pool, ref, record, operation, key=None):
    """Raise the first reason why `operation` may not start on the VBD."""
    for other, name in record["current_operations"].items():
        if other != key:
            raise pool.busy("VBD", ref, name, other)
    vm = pool.db.record("VM", record["VM"])
    attached = record["currently_attached"]
    if operation == "unplug" and not record["unpluggable"]:
        raise ApiError("VBD_NOT_UNPLUGGABLE", ref)
    if record["type"] == "CD":
        check_media(vm, record, operation, ref)
    elif operation in ("insert", "eject"):
        raise ApiError("VBD_NOT_REMOVABLE_MEDIA", ref)
    if operation in ("plug", "unplug", "unplug_force", "pause", "unpause"):
        check_hotplug(pool, ref, record, vm, operation, attached)
    if operation == "attach" and attached and vm["power_state"] != "Suspended":
        raise ApiError("DEVICE_ALREADY_ATTACHED", ref)
    if operation in ("plug", "attach", "insert") and record["VDI"] != NULL:
        check_disk(pool, ref, record)


def check_media(vm, record, operation, ref):
    hvm = vm.get("domain_type") == "hvm" or bool(vm["HVM_boot_policy"])
    if operation == "plug" and hvm and vm["power_state"] == "Running":
        raise not_allowed("Cannot plug a CD into a running HVM guest")
    if operation == "eject" and record["empty"]:
        raise ApiError("VBD_IS_EMPTY", ref)
    if operation == "insert" and not record["empty"]:
        raise ApiError("VBD_NOT_EMPTY", ref)


def check_hotplug(pool, ref, record, vm, operation, attached):
    if vm["power_state"] not in ("Running", "Paused"):
        raise ApiError("VM_BAD_POWER_STATE", record["VM"], "running", vm["power_state"].lower())
    if operation == "plug" and attached:
        raise ApiError("DEVICE_ALREADY_ATTACHED", ref)
    if operation != "plug" and not attached:
        raise ApiError("DEVICE_ALREADY_DETACHED", ref)
    for name in vm["current_operations"].values():
        if name in ("clean_shutdown", "hard_shutdown", "suspend", "shutdown"):
            raise not_allowed("VM is shutting down")
    hvm = vm.get("domain_type") in ("hvm", "pvh") or bool(vm["HVM_boot_policy"])
    if hvm and not vm["is_control_domain"] and record["type"] == "Disk":
        if vm_checks.guest_features(pool, vm) is None:
            raise ApiError("VM_MISSING_PV_DRIVERS", record["VM"])
        metrics = pool.db.record("VM_guest_metrics", vm["guest_metrics"])
        if metrics.get("can_use_hotplug_vbd") == "no":
            raise not_allowed("VM states it does not support VBD hotplug.")


def check_disk(pool, ref, record):
    """The VDI's side: managed, idle, sharing rule, writable."""
    vdi = record["VDI"]
    disk = pool.db.record("VDI", vdi)
    if not disk["managed"]:
        raise ApiError("VDI_NOT_MANAGED", vdi)
    for key, name in disk["current_operations"].items():
        raise pool.busy("VDI", vdi, name, key)
    if not disk["sharable"]:
        for other, vbd in vdi_checks.vbd_records(pool, vdi):
            if other == ref or not vbd["currently_attached"]:
                continue
            holder = pool.db.record("VM", vbd["VM"])
            if holder["power_state"] == "Suspended" or holder["is_control_domain"]:
                continue
            if "RW" in (record["mode"], vbd["mode"]):
                raise ApiError("VDI_IN_USE", vdi)
    if record["mode"] == "RW" and disk["read_only"]:
        raise ApiError("VDI_READONLY", vdi)


@call("VBD.create")
def create(ctx, args):
    values = construct(ctx, "VBD", args)
    pool, vm, vdi = ctx.pool, values["VM"], values["VDI"]
    ctx.db.row("VM", vm)
    if vdi != NULL:
        disk = ctx.db.record("VDI", vdi)
        if disk["type"] == "cbt_metadata":
            raise vdi_checks.incompatible(vdi, disk)
    if values["type"] == "CD" and values["mode"] != "RO":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    if values["type"] == "Disk" and values["empty"]:
        raise ApiError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    if vdi != NULL and not values["empty"] and values["mode"] == "RW" and disk["read_only"]:
        raise ApiError("VDI_READONLY", vdi)
    for key, name in ctx.get("VM", vm, "current_operations").items():
        if name in ("migrate_send", "pool_migrate"):
            raise pool.busy("VM", vm, name, key)
    values["userdevice"] = choose_position(pool, vm, values["userdevice"])
    suspended = ctx.get("VM", vm, "power_state") == "Suspended"
    if not suspended:
        values.pop("currently_attached", None)
        values.pop("device", None)
    if vdi == NULL:
        values["empty"] = True
    metrics = {"metrics": "OpaqueRef:" + ctx.dummy.split("|")[1]}
    values.setdefault("unpluggable", True)
    ref = ctx.db.create("VBD", {**values, **metrics})
    changed(pool, ref)
    return ref


def choose_position(pool, vm, wanted):
    if wanted == "autodetect":
        free = [n for n in free_positions(pool, vm) if n != "3"] or free_positions(pool, vm)
        if not free:
            raise ApiError("DEVICE_ALREADY_EXISTS", wanted)
        return free[0]
    position = position_of(wanted)
    if position is None:
        raise ApiError("INVALID_DEVICE", wanted)
    if position in {position_of(u) for u in used_positions(pool, vm)}:
        raise ApiError("DEVICE_ALREADY_EXISTS", wanted)
    return wanted


def changed(pool, ref):
    """After a VBD changed: what it and its neighbours allow."""
    if pool.loading or not pool.db.has("VBD", ref):
        return
    refresh(pool, ref)
    vdi_checks.refresh(pool, pool.db.get("VBD", ref, "VDI"))


@call("VBD.destroy")
def destroy(ctx, self):
    record = ctx.db.record("VBD", self)
    vm = record["VM"]
    if ctx.db.has("VM", vm) and ctx.get("VM", vm, "power_state") == "Suspended" \
            and record["currently_attached"]:
        raise ApiError("VM_BAD_POWER_STATE", vm, "halted", "suspended")
    if record["currently_attached"]:
        raise not_allowed("VBD '%s' still attached to '%s'" % (record["uuid"],
                                                               ctx.get("VM", vm, "uuid")))
    vdi = record["VDI"]
    ctx.db.delete("VBD", self)
    vdi_checks.refresh(ctx.pool, vdi)


def held(ctx, ref, name):
    """Hold a VBD for an operation."""
    return ctx.operation("VBD", ref, name,
                         lambda: check(ctx.pool, ref, ctx.db.record("VBD", ref), name, ctx.key),
                         lambda r: changed(ctx.pool, r))


@call("VBD.plug")
def plug(ctx, self):
    record = ctx.db.record("VBD", self)
    vm = ctx.db.record("VM", record["VM"])
    hvm = vm.get("domain_type") == "hvm" or bool(vm["HVM_boot_policy"])
    if hvm and record["type"] == "Disk" and record["mode"] == "RO" and not vm["is_control_domain"]:
        raise ApiError("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", self)
    with held(ctx, self, "plug"):
        host = vm["resident_on"]
        ctx.pool.assert_host(host)
        if record["VDI"] != NULL:
            sr = ctx.get("VDI", record["VDI"], "SR")
            if not srs.reaches(ctx.pool, host, sr):
                raise ApiError("VM_REQUIRES_SR", record["VM"], sr)
            ctx.pool.faults.hit("SM.vdi_attach", [record["VDI"], self])
            expect_writes(ctx.pool, record)
        attach(ctx.pool, self)


def expect_writes(pool, record):
    """Processes stand in for guests whose disks are plugged, and write to the files themselves."""
    uuid = pool.db.get("VDI", record["VDI"], "uuid")
    if record["mode"] == "RW" and pool.store.exists(uuid) and pool.store.has_data(uuid):
        pool.store.writable_path(uuid)


def attach(pool, ref):
    """Mark a VBD attached and mark its tracking log in use where it is written."""
    record = pool.db.record("VBD", ref)
    position = position_of(record["userdevice"])
    pool.db.update("VBD", ref, currently_attached=True, device=device_name(position or 0))
    show_device(pool, ref)
    if record["VDI"] != NULL:
        activate(pool, record["VDI"], record["mode"])
    changed(pool, ref)


def activate(pool, vdi, mode):
    """A log left inconsistent by a crash is found out when the disk is attached again."""
    disk = pool.db.record("VDI", vdi)
    if mode != "RW" or not disk.get("cbt_enabled") or disk["is_a_snapshot"]:
        return
    if pool.store.exists(disk["uuid"]) and not pool.store.cbt_activate(disk["uuid"]):
        pool.db.set("VDI", vdi, "cbt_enabled", False)
        pool.message("VDI_CBT_METADATA_INCONSISTENT", 3, "VDI", disk["uuid"], "")


def device_path(pool, record):
    """Where a guest's device shows up: a link named like the device."""
    vm = pool.db.get("VM", record["VM"], "uuid")
    return os.path.join(pool.guests, vm, record["device"])


def show_device(pool, ref):
    record = pool.db.record("VBD", ref)
    if record["VDI"] == NULL or not pool.db.has("VDI", record["VDI"]):
        return
    uuid = pool.db.get("VDI", record["VDI"], "uuid")
    if pool.guests and pool.store.exists(uuid) and pool.store.has_data(uuid):
        path = device_path(pool, record)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        hide_device(pool, record)
        os.symlink(pool.store.path(uuid), path)


def hide_device(pool, record):
    if pool.guests and record["device"]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(device_path(pool, record))


def detach(pool, ref):
    hide_device(pool, pool.db.record("VBD", ref))
    pool.db.update("VBD", ref, currently_attached=False, device="")
    changed(pool, ref)


def is_open(pool, record):
    """Whether a process of the guest has the device open: any other than the simulator itself."""
    if record["VDI"] == NULL or not record["device"]:
        return False
    path = os.path.realpath(device_path(pool, record))
    for process in os.listdir("/proc"):
        if not process.isdigit() or int(process) == os.getpid():
            continue
        folder = os.path.join("/proc", process, "fd")
        with contextlib.suppress(OSError):
            for number in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(os.path.join(folder, number)) == path:
                        return True
    return False


@call("VBD.unplug")
def unplug(ctx, self):
    record = ctx.db.record("VBD", self)
    with held(ctx, self, "unplug"):
        ctx.pool.assert_host(ctx.get("VM", record["VM"], "resident_on"))
        if self in ctx.pool.detach_refused or is_open(ctx.pool, record):
            raise ApiError("DEVICE_DETACH_REJECTED", "VBD", self, "device is in use")
        ctx.pool.faults.hit("SM.vdi_detach", [record["VDI"], self])
        detach(ctx.pool, self)


@call("VBD.unplug_force")
def unplug_force(ctx, self):
    with held(ctx, self, "unplug_force"):
        detach(ctx.pool, self)


@call("VBD.insert")
def insert(ctx, vbd, vdi):
    ctx.db.row("VDI", vdi)
    with held(ctx, vbd, "insert"):
        disk = ctx.db.record("VDI", vdi)
        if not srs.has_feature(ctx.pool, disk["SR"], "VDI_ATTACH") \
                or ctx.get("SR", disk["SR"], "content_type") != "iso":
            raise ApiError("VDI_IS_NOT_ISO", vdi, disk["type"])
        ctx.set("VBD", vbd, VDI=vdi, empty=False)


@call("VBD.eject")
def eject(ctx, vbd):
    with held(ctx, vbd, "eject"):
        ctx.set("VBD", vbd, VDI=NULL, empty=True)


@call("VBD.assert_attachable")
def assert_attachable(ctx, self):
    check(ctx.pool, self, ctx.db.record("VBD", self), "attach")


@call("VBD.set_mode")
def set_mode(ctx, self, value):
    if ctx.get("VBD", self, "currently_attached"):
        raise not_allowed("VBD is attached")
    if ctx.get("VBD", self, "type") == "CD" and value != "RO":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    ctx.set("VBD", self, mode=value)


@after_set("VBD")
def after(ctx, ref, field):
    if field in ("unpluggable", "type"):
        refresh(ctx.pool, ref)


@call("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(ctx, vm):
    ctx.db.row("VM", vm)
    return free_positions(ctx.pool, vm)
