# SPDX-License-Identifier: LGPL-2.1-or-later
"""Virtual disks: create, destroy, snapshot, clone, copy, resize and their small setters."""

import contextlib

from . import chain, clock, nbd_external, sr as srs, vdi_checks
from .calls import call
from .database import new_uuid
from .dispatch import construct
from .errors import ApiError
from .model import NULL

VHD_MAX = 2040 << 30
INHERITED = ["name_label", "name_description", "type", "sharable", "other_config", "xenstore_data",
             "on_boot", "allow_caching", "tags"]


@contextlib.contextmanager
def operation(ctx, vdi, name):
    """Hold a VDI, and its SR where the operation occupies it."""
    sr = ctx.get("VDI", vdi, "SR")
    sr_name = vdi_checks.SR_OPERATION.get(name)

    def test():
        vdi_checks.check(ctx.pool, vdi, name, ctx.key)

    def renew(ref):
        vdi_checks.refresh(ctx.pool, ref)

    if sr_name is None:
        srs.working_host(ctx.pool, sr)
        with ctx.operation("VDI", vdi, name, test, renew):
            yield
        return
    with srs.occupied(ctx, sr, sr_name, vdi_check=test):
        with ctx.operation("VDI", vdi, name, lambda: None, renew):
            yield


def step(ctx, name, *arguments):
    """A storage step: the place where faults of the storage layer are injected.

    The method name of the fault is "SM.<step>"."""
    ctx.pool.faults.hit("SM." + name, arguments)


def rounded(pool, sr, size):
    if pool.db.get("SR", sr, "type") in srs.VHD_TYPES:
        unit = max(1, int(pool.options["round"]))
        return -(-size // unit) * unit
    return size


def make(pool, sr, size, values, uuid=None):
    """A VDI record with a data file."""
    uuid = uuid or new_uuid()
    pool.store.create(uuid, size)
    ref = pool.db.create("VDI", {
        "uuid": uuid, "location": uuid, "SR": sr, "virtual_size": size, "managed": True, **values})
    vdi_checks.refresh(pool, ref)
    return ref


@call("VDI.create")
def create(ctx, args):
    values = construct(ctx, "VDI", args)
    sr, size = values["SR"], values["virtual_size"]
    ctx.db.row("SR", sr)
    if values["type"] == "cbt_metadata":
        raise ApiError("VDI_INCOMPATIBLE_TYPE", "", "CBT metadata")
    with srs.occupied(ctx, sr, "vdi_create"):
        step(ctx, "vdi_create", sr)
        if size < 1 or (ctx.get("SR", sr, "type") in srs.VHD_TYPES and size > VHD_MAX
                        and values.get("sm_config", {}).get("image-format") != "qcow2"):
            raise srs.backend_failure(79, "VDI Invalid size [opterr=VDI size must be between 1 MB "
                                          "and %d MB]" % (VHD_MAX >> 20))
        size = rounded(ctx.pool, sr, size)
        srs.assert_space(ctx.pool, sr, size)
        values["virtual_size"] = size
        ref = make(ctx.pool, sr, size, values)
        srs.update_space(ctx.pool, sr)
    return ref


@call("VDI.destroy")
def destroy(ctx, self):
    record = ctx.db.record("VDI", self)
    sr = record["SR"]
    with operation(ctx, self, "destroy"):
        step(ctx, "vdi_destroy", self, record["uuid"])
        remove(ctx.pool, self)
        srs.update_space(ctx.pool, sr)
    ctx.pool.schedule_coalesce(sr)


def remove(pool, vdi):
    """Delete a VDI's data, record, VBDs, and forget it as a suspend image."""
    record = pool.db.record("VDI", vdi)
    if pool.store.exists(record["uuid"]):
        if pool.store.has_data(record["uuid"]):
            nbd_external.release(pool.hosts.values(), pool.store.path(record["uuid"]))
        pool.store.destroy(record["uuid"])
    for ref, _ in vdi_checks.vbd_records(pool, vdi):
        vm = pool.db.get("VBD", ref, "VM")
        pool.db.delete("VBD", ref)
        pool.refresh_vm(vm)
    for row in list(pool.db.tables["VM"].values()):
        if row.values["suspend_VDI"] == vdi:
            pool.db.set("VM", row.ref, "suspend_VDI", NULL)
    pool.db.delete("VDI", vdi)


@call("VDI.snapshot")
def snapshot(ctx, vdi, driver_params=None):
    with operation(ctx, vdi, "snapshot"):
        return take_snapshot(ctx, vdi)


def take_snapshot(ctx, vdi):
    """The storage side and the record of a snapshot; the VDI is held by the caller."""
    pool, record = ctx.pool, ctx.db.record("VDI", vdi)
    step(ctx, "vdi_snapshot", vdi, record["uuid"])
    if pool.store.cbt_enabled(record["uuid"]) and vdi in pool.cbt_snapshot_fails:
        pool.cbt_snapshot_fails.discard(vdi)
        broken = True
    else:
        broken = False
    srs.assert_space(pool, record["SR"], record["virtual_size"])
    chain.assert_depth(pool, vdi)
    uuid = new_uuid()
    with pool.unlocked():
        pool.store.snapshot(record["uuid"], uuid, break_cbt=broken)
    tracked = record.get("cbt_enabled", False)
    values = {name: record[name] for name in INHERITED}
    ref = ctx.db.create("VDI", {
        **values, "uuid": uuid, "location": uuid, "SR": record["SR"], "managed": True,
        "virtual_size": record["virtual_size"], "is_a_snapshot": True, "snapshot_of": vdi,
        "snapshot_time": clock.text(), "cbt_enabled": tracked})
    chain.split(pool, vdi, ref)
    if broken:
        ctx.set("VDI", vdi, cbt_enabled=False)
        pool.message("VDI_CBT_SNAPSHOT_FAILED", 3, "VDI", record["uuid"], "")
    srs.update_space(pool, record["SR"])
    vdi_checks.refresh(pool, ref)
    return ref


@call("VDI.clone")
def clone(ctx, vdi, driver_params=None):
    with operation(ctx, vdi, "clone"):
        return take_clone(ctx, vdi)


def take_clone(ctx, vdi):
    pool, record = ctx.pool, ctx.db.record("VDI", vdi)
    step(ctx, "vdi_clone", vdi, record["uuid"])
    srs.assert_space(pool, record["SR"], record["virtual_size"])
    chain.assert_depth(pool, vdi)
    uuid = new_uuid()
    with pool.unlocked():
        pool.store.clone(record["uuid"], uuid)
    values = {name: record[name] for name in INHERITED}
    ref = ctx.db.create("VDI", {
        **values, "uuid": uuid, "location": uuid, "SR": record["SR"], "managed": True,
        "virtual_size": record["virtual_size"]})
    chain.split(pool, vdi, ref)
    srs.update_space(pool, record["SR"])
    vdi_checks.refresh(pool, ref)
    return ref


@call("VDI.copy")
def copy(ctx, vdi, sr=NULL, base_vdi=NULL, into_vdi=NULL):
    record = ctx.db.record("VDI", vdi)
    if base_vdi != NULL:
        ctx.db.row("VDI", base_vdi)
    if into_vdi == NULL and sr == NULL:
        raise ApiError("OPERATION_NOT_ALLOWED", "Either sr or into_vdi must be given")
    if into_vdi != NULL:
        target = ctx.db.record("VDI", into_vdi)
        if target["read_only"]:
            raise ApiError("VDI_READONLY", into_vdi)
        if target["virtual_size"] < record["virtual_size"]:
            raise ApiError("VDI_TOO_SMALL", into_vdi, record["virtual_size"])
        vdi_checks.check_attached(ctx.pool, into_vdi, "destroy")
    with operation(ctx, vdi, "copy"):
        step(ctx, "vdi_copy", vdi, record["uuid"])
        if into_vdi == NULL:
            ctx.db.row("SR", sr)
            srs.assert_space(ctx.pool, sr, record["virtual_size"])
            values = {n: record[n] for n in INHERITED if n not in ("sharable",)}
            into_vdi = make(ctx.pool, sr, rounded(ctx.pool, sr, record["virtual_size"]), values)
        source, destination = record["uuid"], ctx.get("VDI", into_vdi, "uuid")
        with ctx.pool.unlocked():
            ctx.pool.store.copy_into(source, destination)
        srs.update_space(ctx.pool, ctx.get("VDI", into_vdi, "SR"))
    return into_vdi


@call("VDI.resize")
def resize(ctx, vdi, size):
    grow(ctx, vdi, size, "resize")


@call("VDI.resize_online")
def resize_online(ctx, vdi, size):
    grow(ctx, vdi, size, "resize_online")


def grow(ctx, vdi, size, name):
    pool = ctx.pool
    with operation(ctx, vdi, name):
        record = ctx.db.record("VDI", vdi)
        step(ctx, "vdi_resize", vdi, record["uuid"])
        if size < record["virtual_size"]:
            raise srs.backend_failure(79, "VDI Invalid size [opterr=shrinking not allowed]")
        size = rounded(pool, record["SR"], size)
        if size - record["virtual_size"] > srs.free_space(pool, record["SR"]) \
                and srs.thick(pool, record["SR"]):
            raise srs.no_space()
        broken = vdi in pool.cbt_resize_fails
        pool.cbt_resize_fails.discard(vdi)
        pool.store.resize(record["uuid"], size, break_cbt=broken)
        ctx.set("VDI", vdi, virtual_size=size)
        if broken and record.get("cbt_enabled"):
            ctx.set("VDI", vdi, cbt_enabled=False)
            pool.message("VDI_CBT_RESIZE_FAILED", 3, "VDI", record["uuid"], "")
        srs.update_space(pool, record["SR"])


@call("VDI.revert")
def revert(ctx, snapshot):
    with operation(ctx, snapshot, "revert_to"):
        record = ctx.db.record("VDI", snapshot)
        target = record["snapshot_of"]
        ctx.db.row("VDI", target)
        vdi_checks.check_attached(ctx.pool, target, "destroy")
        with ctx.pool.unlocked():
            ctx.pool.store.copy_into(record["uuid"], ctx.pool.db.get("VDI", target, "uuid"))


@call("VDI.update")
def update(ctx, vdi):
    with operation(ctx, vdi, "update"):
        record = ctx.db.record("VDI", vdi)
        ctx.set("VDI", vdi, physical_utilisation=srs.vdi_bytes(ctx.pool, record))


@call("VDI.forget")
def forget(ctx, vdi):
    with operation(ctx, vdi, "forget"):
        for ref, _ in vdi_checks.vbd_records(ctx.pool, vdi):
            ctx.db.delete("VBD", ref)
        ctx.db.delete("VDI", vdi)


@call("VDI.introduce")
def introduce(ctx, uuid, name_label, name_description, sharable, read_only, other_config, location,
              xenstore_data=None, sm_config=None, managed=True, virtual_size=0,
              physical_utilisation=0, metadata_of_pool=NULL, is_a_snapshot=False,
              snapshot_time="19700101T00:00:00Z", snapshot_of=NULL, **rest):
    sr = rest["SR"]
    if not ctx.pool.store.exists(uuid):
        raise ApiError("VDI_MISSING", sr, uuid)
    if uuid in ctx.db.uuids["VDI"]:
        raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "VDI", "uuid", uuid)
    with srs.occupied(ctx, sr, "vdi_introduce"):
        ref = ctx.db.create("VDI", {
            "uuid": uuid, "name_label": name_label, "name_description": name_description, "SR": sr,
            "type": rest["type"], "sharable": sharable, "read_only": read_only,
            "other_config": other_config, "location": location or uuid, "managed": managed,
            "xenstore_data": xenstore_data or {}, "sm_config": sm_config or {},
            "virtual_size": ctx.pool.store.size(uuid), "is_a_snapshot": is_a_snapshot,
            "snapshot_time": snapshot_time, "snapshot_of": snapshot_of,
            "cbt_enabled": ctx.pool.store.cbt_enabled(uuid)})
        vdi_checks.refresh(ctx.pool, ref)
    return ref


@call("VDI.pool_migrate")
def pool_migrate(ctx, vdi, sr, options):
    record = ctx.db.record("VDI", vdi)
    ctx.db.row("SR", sr)
    if record.get("cbt_enabled"):
        raise ApiError("VDI_CBT_ENABLED", vdi)
    holders = [v for r, v in vdi_checks.vbd_records(ctx.pool, vdi)
               if not ctx.get("VM", v["VM"], "is_a_snapshot")]
    if not holders:
        raise ApiError("VDI_NEEDS_VM_FOR_MIGRATE", vdi)
    if not srs.has_feature(ctx.pool, record["SR"], "VDI_MIRROR"):
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", record["SR"])
    values = {n: record[n] for n in INHERITED}
    target = make(ctx.pool, sr, rounded(ctx.pool, sr, record["virtual_size"]), values)
    source, destination = record["uuid"], ctx.get("VDI", target, "uuid")
    with ctx.pool.unlocked():
        ctx.pool.store.copy_into(source, destination)
    for ref, _ in vdi_checks.vbd_records(ctx.pool, vdi):
        ctx.set("VBD", ref, VDI=target)
    remove(ctx.pool, vdi)
    return target


def simple_setter(field):
    def handler(ctx, self, value):
        ctx.db.row("VDI", self)
        ctx.set("VDI", self, **{field: value})
    return handler


for _field in ("name_label", "name_description", "sharable", "read_only", "allow_caching"):
    call("VDI.set_" + _field)(simple_setter(_field))


@call("VDI.set_on_boot")
def set_on_boot(ctx, self, value):
    with operation(ctx, self, "set_on_boot"):
        ctx.set("VDI", self, on_boot=value)
