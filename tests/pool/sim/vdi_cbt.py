# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changed block tracking, data_destroy and the addresses of the NBD servers."""

import base64
import time

from . import nbd_external, sr as srs, vdi, vdi_checks
from .calls import call
from .codec import TypedRecord
from .errors import ApiError, internal
from .model import Type
from .nbd_external import ExternalNbd, ExternalNbdError
from .storage import CbtError

TEXTS = {459: "Changed blocks log is inconsistent", 460: "Failed to calculate changed blocks for "
                                                          "given VDIs."}
NBD_MEMBERS = [("exportname", "S"), ("address", "S"), ("port", "I"), ("cert", "S"),
               ("subject", "S")]


@call("VDI.enable_cbt")
def enable_cbt(ctx, self):
    if not ctx.pool.options["cbt_licence"]:
        ctx.db.row("VDI", self)
        raise ApiError("LICENCE_RESTRICTION", "CBT")
    change(ctx, self, "enable_cbt", True)


@call("VDI.disable_cbt")
def disable_cbt(ctx, self):
    change(ctx, self, "disable_cbt", False)


def change(ctx, self, name, wanted):
    with vdi.operation(ctx, self, name):
        record = ctx.db.record("VDI", self)
        if record["cbt_enabled"] == wanted:
            return
        vdi.step(ctx, name, self, record["uuid"])
        if record["sm_config"].get("vdi_type") == "raw":
            raise srs.backend_failure(66, "Invalid VDI type")
        if wanted:
            ctx.pool.store.cbt_enable(record["uuid"])
        else:
            ctx.pool.store.cbt_disable(record["uuid"])
        ctx.set("VDI", self, cbt_enabled=wanted)


@call("VDI.list_changed_blocks")
def list_changed_blocks(ctx, vdi_from, vdi_to):
    first = ctx.db.record("VDI", vdi_from)
    with vdi.operation(ctx, vdi_to, "list_changed_blocks"):
        last = ctx.db.record("VDI", vdi_to)
        vdi.step(ctx, "list_changed_blocks", vdi_to, last["uuid"])
        try:
            bitmap = ctx.pool.store.changed_blocks(first["uuid"], last["uuid"])
        except CbtError as error:
            raise srs.backend_failure(error.fault, "%s [opterr=%s]" % (
                TEXTS.get(error.fault, "CBT"), error.detail)) from error
    return base64.b64encode(bitmap).decode()


@call("VDI.data_destroy")
def data_destroy(ctx, self):
    record = ctx.db.record("VDI", self)
    if record["type"] == "cbt_metadata":
        return
    sr = record["SR"]
    deadline = time.monotonic() + ctx.pool.options["data_destroy_wait"]
    with vdi.operation(ctx, self, "data_destroy"):
        while vdi_checks.vbd_records(ctx.pool, self):
            left = deadline - time.monotonic()
            if left <= 0:
                raise ApiError("VDI_IN_USE", self, "data_destroy")
            ctx.db.changed.wait(min(left, 0.1))
        vdi.step(ctx, "vdi_data_destroy", self, record["uuid"])
        nbd_external.release(ctx.pool.hosts.values(), ctx.pool.store.path(record["uuid"]))
        ctx.pool.store.data_destroy(record["uuid"])
        ctx.set("VDI", self, type="cbt_metadata", physical_utilisation=0)
        srs.update_space(ctx.pool, sr)
    ctx.pool.schedule_coalesce(sr)


@call("VDI.get_nbd_info")
def get_nbd_info(ctx, self):
    record = ctx.db.record("VDI", self)
    if record["type"] == "cbt_metadata":
        raise vdi_checks.incompatible(self, record)
    entries = []
    for host in srs.attached_hosts(ctx.pool, record["SR"]):
        addresses = nbd_addresses(ctx.pool, host)
        if not addresses:
            continue
        ctx.pool.assert_host(host)
        member = ctx.pool.hosts[host]
        exportname = "/%s?session_id=%s" % (record["uuid"], ctx.session.ref)
        port = served_port(ctx.pool, member, record["uuid"], exportname)
        for address in addresses:
            values = (exportname, address, port, member.certificate_text(), member.subject())
            entries.append(TypedRecord([(n, Type.parse(t), v)
                                        for (n, t), v in zip(NBD_MEMBERS, values)]))
    return entries


def served_port(pool, member, uuid, exportname):
    """Where a host serves a disk: an external program has a port for each."""
    if not isinstance(member.nbd, ExternalNbd):
        return member.nbd_port
    try:
        return member.nbd.serve(exportname, pool.store.path(uuid))
    except ExternalNbdError as error:
        raise internal(str(error)) from error


def nbd_addresses(pool, host):
    """Addresses of a host on networks with an NBD purpose."""
    found = []
    for pif in pool.db.get("host", host, "PIFs"):
        record = pool.db.record("PIF", pif)
        if not record["currently_attached"] or not pool.db.has("network", record["network"]):
            continue
        purpose = pool.db.record("network", record["network"]).get("purpose", ())
        if "nbd" in purpose or "insecure_nbd" in purpose:
            found += [record["IP"]] if record["IP"] else []
            found += [a.partition("/")[0] for a in record["IPv6"] if a]
    return found


def nbd_purpose(pool):
    """What the daemon learns from the pool: "nbd", "insecure_nbd", "both" or None."""
    kinds = set()
    for row in pool.db.tables["network"].values():
        kinds |= {p for p in row.values.get("purpose", ()) if p in ("nbd", "insecure_nbd")}
    return "both" if len(kinds) == 2 else kinds.pop() if kinds else None


@call("network.add_purpose")
def add_purpose(ctx, self, value):
    current = ctx.get("network", self, "purpose")
    other = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}.get(value)
    for row in ctx.db.tables["network"].values():
        if other in row.values["purpose"]:
            raise ApiError("NETWORK_INCOMPATIBLE_PURPOSES", value, other)
    if value not in current:
        ctx.set("network", self, purpose=current + [value])


@call("network.remove_purpose")
def remove_purpose(ctx, self, value):
    current = ctx.get("network", self, "purpose")
    ctx.set("network", self, purpose=[p for p in current if p != value])
