# SPDX-License-Identifier: LGPL-2.1-or-later
"""Storage repositories: drivers' features, the lock of an SR, space, scans, PBDs."""

import contextlib

from .calls import call, not_allowed
from .dispatch import construct
from .errors import ApiError
from .model import NULL

COMMON = ["SR_PROBE", "SR_UPDATE", "VDI_CREATE", "VDI_DELETE", "VDI_ATTACH", "VDI_DETACH",
          "VDI_UPDATE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_RESIZE", "VDI_GENERATE_CONFIG"]
CBT = ["VDI_MIRROR", "VDI_CONFIG_CBT"]
VHD_TYPES = {"ext", "nfs", "file", "smb", "lvm", "lvmoiscsi", "lvmohba", "lvmofcoe", "xfs",
             "largeblock", "zfs"}
THICK_TYPES = {"lvm", "lvmoiscsi", "lvmohba", "lvmofcoe"}
PLAIN_TYPES = {"linstor", "cephfs", "glusterfs", "moosefs", "gfs2", "dummy"}
MEDIA_TYPES = {"iso", "udev"}
ALL_TYPES = VHD_TYPES | PLAIN_TYPES | MEDIA_TYPES

# Operations that occupy an SR, and the driver feature each needs.
NEEDS = {
    "vdi_create": "VDI_CREATE", "vdi_destroy": "VDI_DELETE", "vdi_snapshot": "VDI_SNAPSHOT",
    "vdi_clone": "VDI_CLONE", "vdi_resize": "VDI_RESIZE", "vdi_enable_cbt": "VDI_CONFIG_CBT",
    "vdi_disable_cbt": "VDI_CONFIG_CBT", "vdi_data_destroy": "VDI_CONFIG_CBT",
    "vdi_list_changed_blocks": "VDI_CONFIG_CBT", "vdi_revert": "VDI_REVERT",
    "vdi_set_on_boot": "VDI_RESET_ON_BOOT", "vdi_introduce": None, "vdi_mirror": "VDI_MIRROR",
    "scan": None, "update": "SR_UPDATE", "destroy": None, "forget": None, "plug": None,
    "unplug": None,
}
# The order in which a server lists what is allowed.
LISTED = ["vdi_enable_cbt", "vdi_list_changed_blocks", "unplug", "plug", "pbd_create",
          "vdi_disable_cbt", "update", "pbd_destroy", "vdi_resize", "vdi_clone",
          "vdi_data_destroy", "scan", "vdi_snapshot", "vdi_create", "vdi_destroy",
          "vdi_set_on_boot"]


def features(type_):
    """SM.features of a driver: name to version."""
    names = {"iso": ["SR_PROBE", "SR_UPDATE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE"],
             "udev": ["SR_UPDATE", "VDI_ATTACH", "VDI_DETACH", "VDI_UPDATE", "VDI_INTRODUCE"],
             }.get(type_)
    if names is None:
        names = COMMON + (CBT if type_ in VHD_TYPES else [])
        if type_ in ("ext", "nfs", "file", "smb", "xfs"):
            names = names + ["THIN_PROVISIONING"]
    result = {name: 1 for name in names}
    if type_ in VHD_TYPES:
        result["VDI_RESET_ON_BOOT"] = 2
    return result


def has_feature(pool, sr, feature):
    if feature is None:
        return True
    type_ = pool.db.get("SR", sr, "type")
    for row in pool.db.tables["SM"].values():
        if row.values["type"] == type_:
            return feature in row.values["features"]
    return False


def refresh(pool, sr):
    """Recompute allowed_operations: with one thing under way only PBD work is allowed."""
    if not pool.db.has("SR", sr):
        return
    record = pool.db.record("SR", sr)
    if record["current_operations"]:
        allowed = ["unplug", "plug"]
    else:
        allowed = [op for op in LISTED if has_feature(pool, sr, NEEDS.get(op))]
        if not record["PBDs"]:
            allowed += ["forget", "destroy"]
    pool.db.set("SR", sr, "allowed_operations", allowed)


def attached_hosts(pool, sr):
    """Hosts with a plugged PBD of the SR."""
    db = pool.db
    return [db.get("PBD", pbd, "host") for pbd in db.get("SR", sr, "PBDs")
            if db.get("PBD", pbd, "currently_attached")]


def working_host(pool, sr):
    """The host that does an SR operation; the errors are those of the call's forwarding."""
    db = pool.db
    pbds = db.get("SR", sr, "PBDs")
    master = pool.coordinator()
    if len(pbds) > 1:
        for pbd in pbds:
            if db.get("PBD", pbd, "host") == master:
                if db.get("PBD", pbd, "currently_attached"):
                    return master
                raise ApiError("SR_HAS_NO_PBDS", sr)
    for host in attached_hosts(pool, sr):
        pool.assert_host(host)
        return host
    raise ApiError("SR_HAS_NO_PBDS", sr)


def check(ctx, sr, operation):
    record = ctx.db.record("SR", sr)
    if not has_feature(ctx.pool, sr, NEEDS.get(operation)):
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    for key, busy in record["current_operations"].items():
        if key != ctx.key and operation not in ("plug",):
            raise ctx.pool.busy("SR", sr, busy, key)


@contextlib.contextmanager
def occupied(ctx, sr, operation, vdi_check=None):
    """Hold the SR for one operation; yields the host that works on it."""
    def test():
        check(ctx, sr, operation)
        if vdi_check:
            vdi_check()

    host = working_host(ctx.pool, sr)
    with ctx.operation("SR", sr, operation, test, lambda ref: refresh(ctx.pool, ref)):
        yield host


def thick(pool, sr):
    return pool.db.get("SR", sr, "type") in THICK_TYPES


def makes_base_copies(pool, sr):
    return pool.options["base_copies"] and pool.db.get("SR", sr, "type") in VHD_TYPES


def backend_failure(number, text):
    return ApiError("SR_BACKEND_FAILURE_%d" % number, "", text, "")


def no_space(text="no space left"):
    return backend_failure(44, "There is insufficient space [opterr=%s]" % text)


def vdi_bytes(pool, record):
    """What a VDI occupies on its SR."""
    if not pool.store.exists(record["uuid"]) or not pool.store.has_data(record["uuid"]):
        return 0
    return pool.store.allocated(record["uuid"])


def update_space(pool, sr):
    """Recompute virtual_allocation and physical_utilisation, as a scan does."""
    db = pool.db
    if not db.has("SR", sr) or db.get("SR", sr, "type") in MEDIA_TYPES:
        return
    virtual = used = 0
    for vdi in db.get("SR", sr, "VDIs"):
        record = db.record("VDI", vdi)
        own = vdi_bytes(pool, record)
        db.set("VDI", vdi, "physical_utilisation", own)
        leaf = record["managed"] and not record["is_a_snapshot"]
        used += record["virtual_size"] if leaf and thick(pool, sr) else own
        if record["managed"]:
            virtual += record["virtual_size"]
    db.update("SR", sr, virtual_allocation=virtual,
              physical_utilisation=used + pool.filled.get(sr, 0))


def free_space(pool, sr):
    record = pool.db.record("SR", sr)
    return max(0, record["physical_size"] - record["physical_utilisation"])


def assert_space(pool, sr, size):
    """Room for a new disk or snapshot: the whole of it on thick SRs, metadata on thin ones."""
    update_space(pool, sr)
    need = size if thick(pool, sr) else 1 << 20
    if free_space(pool, sr) < need:
        raise no_space("%d bytes needed, %d free" % (need, free_space(pool, sr)))


@call("SR.scan")
def scan(ctx, sr):
    with occupied(ctx, sr, "scan"):
        update_space(ctx.pool, sr)
    ctx.pool.schedule_coalesce(sr)


@call("SR.update")
def update(ctx, sr):
    with occupied(ctx, sr, "update"):
        update_space(ctx.pool, sr)


@call("SR.create")
def create(ctx, host, device_config, physical_size, name_label, name_description, type_=None,
           content_type="user", shared=False, sm_config=None, **rest):
    type_ = rest.get("type", type_)
    ctx.db.row("host", host)
    if type_ not in ALL_TYPES:
        raise ApiError("SR_UNKNOWN_DRIVER", type_)
    ref = make_sr(ctx.pool, {"name_label": name_label, "name_description": name_description,
                             "type": type_, "content_type": content_type, "shared": shared,
                             "sm_config": sm_config or {},
                             "physical_size": physical_size or 1 << 40})
    for member in (list(ctx.pool.hosts) if shared else [host]):
        ctx.db.create("PBD", {"host": member, "SR": ref, "device_config": device_config,
                              "currently_attached": True})
    refresh(ctx.pool, ref)
    return ref


def make_sr(pool, values, ref=None):
    """An SR and, when it is the first of its kind, its driver's SM record."""
    type_ = values["type"]
    if not pool.db.find("SM", type=type_):
        pool.db.create("SM", {
            "name_label": type_, "type": type_, "features": features(type_),
            "capabilities": list(features(type_)), "vendor": "", "version": "1.0",
            "required_api_version": "1.0", "driver_filename": "/opt/xensource/sm/%sSR" % type_})
    return pool.db.create("SR", values, ref)


@call("SR.forget")
def forget(ctx, sr):
    if any(ctx.get("PBD", p, "currently_attached") for p in ctx.get("SR", sr, "PBDs")):
        raise ApiError("SR_HAS_PBD", sr)
    for vdi in ctx.get("SR", sr, "VDIs"):
        for vbd in ctx.get("VDI", vdi, "VBDs"):
            ctx.db.delete("VBD", vbd)
        ctx.db.delete("VDI", vdi)
    for pbd in ctx.get("SR", sr, "PBDs"):
        ctx.db.delete("PBD", pbd)
    ctx.db.delete("SR", sr)


@call("SR.destroy")
def destroy(ctx, sr):
    if ctx.get("SR", sr, "PBDs"):
        raise ApiError("SR_HAS_PBD", sr)
    if ctx.get("SR", sr, "VDIs"):
        raise ApiError("SR_NOT_EMPTY")
    ctx.db.delete("SR", sr)


@call("SR.set_name_label")
def set_name_label(ctx, sr, value):
    ctx.set("SR", sr, name_label=value)


@call("SR.set_name_description")
def set_name_description(ctx, sr, value):
    ctx.set("SR", sr, name_description=value)


@call("SR.set_shared")
def set_shared(ctx, sr, value):
    ctx.set("SR", sr, shared=value)


@call("SR.set_physical_size")
def set_physical_size(ctx, self, value):
    ctx.set("SR", self, physical_size=value)


@call("SR.get_supported_types")
def get_supported_types(ctx):
    return [r.values["type"] for r in ctx.db.tables["SM"].values()]


@call("SR.get_live_hosts")
def get_live_hosts(ctx, sr):
    return [h for h in attached_hosts(ctx.pool, sr) if ctx.pool.host_live(h)]


@call("PBD.plug")
def pbd_plug(ctx, self):
    ctx.pool.assert_host(ctx.get("PBD", self, "host"))
    ctx.set("PBD", self, currently_attached=True)
    refresh(ctx.pool, ctx.get("PBD", self, "SR"))


@call("PBD.unplug")
def pbd_unplug(ctx, self):
    host, sr = ctx.get("PBD", self, "host"), ctx.get("PBD", self, "SR")
    ctx.pool.assert_host(host)
    for vdi in ctx.get("SR", sr, "VDIs"):
        for vbd in ctx.get("VDI", vdi, "VBDs"):
            record = ctx.db.record("VBD", vbd)
            vm = ctx.db.record("VM", record["VM"])
            if record["currently_attached"] and vm["resident_on"] == host:
                raise ApiError("VDI_IN_USE", vdi, "unplug")
    ctx.set("PBD", self, currently_attached=False)
    refresh(ctx.pool, sr)


@call("PBD.create")
def pbd_create(ctx, args):
    values = construct(ctx, "PBD", args)
    ctx.db.row("host", values["host"])
    for pbd in ctx.get("SR", values["SR"], "PBDs"):
        if ctx.get("PBD", pbd, "host") == values["host"]:
            raise ApiError("PBD_EXISTS", values["SR"], values["host"], pbd)
    return ctx.db.create("PBD", values)


@call("PBD.destroy")
def pbd_destroy(ctx, self):
    if ctx.get("PBD", self, "currently_attached"):
        raise not_allowed("PBD is currently attached")
    ctx.db.delete("PBD", self)


def reaches(pool, host, sr):
    return sr == NULL or host in attached_hosts(pool, sr)
