# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts and the pool itself: certificates, clocks, death and return, moving the coordinator."""

import hashlib
import os
import ssl
import subprocess
import time

from . import clock, power, session as sessions
from .calls import call
from .errors import ApiError, ScenarioError
from .vm import free_memory


def make_certificate(directory, host):
    """The host's self-signed certificate and key in one PEM file; kept for the next start."""
    path = os.path.join(directory, "cert-%s.pem" % host.uuid)
    if not os.path.exists(path):
        key, cert = path + ".key", path + ".crt"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                   "-out", cert, "-days", "3650", "-subj", "/CN=" + host.name, "-addext",
                   "subjectAltName=DNS:%s,IP:%s" % (host.name, host.address)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ScenarioError("openssl can't make a certificate: " + done.stderr.strip())
        join_pem(cert, key, path)
        os.unlink(key)
        os.unlink(cert)
    use_certificate(host, path)


def join_pem(cert, key, path):
    with open(path + ".new", "w", encoding="ascii") as out:
        for name in (cert, key):
            with open(name, encoding="ascii") as source:
                out.write(source.read())
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)


def use_certificate(host, path):
    host.certificate = path
    der = ssl.PEM_cert_to_DER_cert(certificate_text(host))
    digest = hashlib.sha256(der).hexdigest().upper()
    host.fingerprint = ":".join(digest[i:i + 2] for i in range(0, len(digest), 2))


def certificate_text(host):
    """The certificate without the key."""
    if not host.certificate:
        return ""
    with open(host.certificate, encoding="ascii") as lines:
        text = lines.read()
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n"
    return text[text.index(start):text.index(end) + len(end)]


def tls_context(host):
    """A server context with the host's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(host.certificate)
    return context


# ---- life and death ----

def die(pool, host):
    """A host loses power: its VMs stop where they are, the coordinator notices later."""
    host.alive = False
    for vm in list(pool.db.get("host", host.ref, "resident_VMs")):
        for vbd in pool.db.get("VM", vm, "VBDs"):
            power.mark_crashed(pool, pool.db.record("VBD", vbd))
    if host.ref == pool.coordinator():
        pool.epoch += 1
        if pool.options["ha_failover"] > 0:
            pool.later(pool.options["ha_failover"], lambda: elect(pool))
    delay = pool.options["host_dead_after"]
    if host.ref != pool.coordinator():
        if delay > 0:
            pool.later(delay, lambda: notice_death(pool, host))
        else:
            notice_death(pool, host)


def elect(pool):
    """High availability: the first live member takes over from a dead coordinator."""
    alive = [h for h in pool.hosts.values() if h.alive]
    if alive and not pool.hosts[pool.coordinator()].alive:
        move_coordinator(pool, alive[0])


def notice_death(pool, host):
    if not host.alive:
        metrics = pool.db.get("host", host.ref, "metrics")
        if pool.db.has("host_metrics", metrics):
            pool.db.set("host_metrics", metrics, "live", False)
        pool.db.set("host", host.ref, "enabled", False)


def revive(pool, host):
    """A host is back: its domains are gone, its dom0 attachments are cleaned, its tasks too."""
    host.alive = True
    metrics = pool.db.get("host", host.ref, "metrics")
    pool.db.update("host_metrics", metrics, live=True, last_updated=clock.text())
    pool.db.set("host", host.ref, "enabled", True)
    dom0 = pool.control_domain(host.ref)
    for vm in list(pool.db.get("host", host.ref, "resident_VMs")):
        if vm != dom0:
            power.stop(pool, vm)
    clean_control_domain(pool, host)
    pool.tasks.forget_all(host.ref)
    note_start(pool, host, boot=True)


def clean_control_domain(pool, host):
    dom0 = pool.control_domain(host.ref)
    if not pool.db.has("VM", dom0):
        return
    for vbd in list(pool.db.get("VM", dom0, "VBDs")):
        vdi = pool.db.get("VBD", vbd, "VDI")
        pool.db.delete("VBD", vbd)
        pool.attachments.pop(vbd, None)
        pool.refresh_vdi(vdi)


def note_start(pool, host, boot=False):
    config = dict(pool.db.get("host", host.ref, "other_config"))
    now = "%.0f." % time.time()
    config["agent_start_time"] = now
    if boot:
        config["boot_time"] = now
    pool.db.set("host", host.ref, "other_config", config)


def restart_toolstack(pool, host):
    """Tasks of the host are gone, nothing is under way any more; sessions live in the database."""
    pool.tasks.forget_all(None if host.ref == pool.coordinator() else host.ref)
    if host.ref == pool.coordinator():
        pool.epoch += 1
        for cls in ("VM", "VDI", "SR", "VBD", "VIF", "host", "pool", "network"):
            for row in list(pool.db.tables[cls].values()):
                if row.values.get("current_operations"):
                    pool.db.set(cls, row.ref, "current_operations", {})
    note_start(pool, host)


def move_coordinator(pool, host):
    """Another member takes over: sessions and tasks of the old one are gone, tokens start anew."""
    pool.tasks.forget_all()
    for ref in list(pool.sessions):
        sessions.close_session(pool, ref)
    pool.db.set("pool", pool.pool_ref(), "master", host.ref)
    host.emergency = None
    for other in pool.hosts.values():
        if not other.alive:
            notice_death(pool, other)
    restart_toolstack(pool, host)


# ---- calls ----

@call("host.get_servertime", "host.get_server_localtime")
def get_servertime(ctx, host):
    ctx.db.row("host", host)
    ctx.pool.assert_host(host)
    return clock.text()


@call("host.get_server_certificate")
def get_server_certificate(ctx, host):
    ctx.db.row("host", host)
    ctx.pool.assert_host(host)
    return certificate_text(ctx.pool.hosts[host])


@call("host.call_plugin")
def call_plugin(ctx, host, plugin, fn, args):
    ctx.pool.assert_host(host)
    raise ApiError("XENAPI_MISSING_PLUGIN", plugin)


@call("host.compute_free_memory")
def compute_free_memory(ctx, host):
    ctx.db.row("host", host)
    return free_memory(ctx, host)


@call("host.get_management_interface")
def get_management_interface(ctx, host):
    for pif in ctx.get("host", host, "PIFs"):
        if ctx.get("PIF", pif, "management"):
            return pif
    raise ApiError("HOST_HAS_NO_MANAGEMENT_IP")


@call("host.get_vms_which_prevent_evacuation")
def prevent_evacuation(ctx, self):
    ctx.db.row("host", self)
    return {}


@call("host.enable")
def enable(ctx, host):
    ctx.set("host", host, enabled=True)


@call("host.disable")
def disable(ctx, host):
    ctx.set("host", host, enabled=False)


@call("host.is_in_emergency_mode")
def is_in_emergency_mode(ctx):
    return ctx.pool.hosts[ctx.host].emergency is not None


@call("pool.is_slave")
def is_slave(ctx, host):
    return ctx.pool.coordinator() != ctx.host


@call("pool.emergency_transition_to_master")
def emergency_transition(ctx):
    host = ctx.pool.hosts[ctx.host]
    ctx.pool.later(0.0, lambda: move_coordinator(ctx.pool, host))


@call("pool.designate_new_master")
def designate_new_master(ctx, host):
    ctx.db.row("host", host)
    ctx.pool.assert_host(host)
    ctx.pool.later(0.0, lambda: move_coordinator(ctx.pool, ctx.pool.hosts[host]))


@call("pool.recover_slaves")
def recover_slaves(ctx):
    found = []
    for host in ctx.pool.hosts.values():
        if host.alive and host.emergency:
            host.emergency = None
            found.append(host.ref)
    return found


@call("pool.sync_database")
def sync_database(ctx):
    return None


@call("message.create")
def message_create(ctx, name, priority, obj_uuid, body, **rest):
    return ctx.pool.message(name, priority, rest["cls"], obj_uuid, body)


@call("message.destroy")
def message_destroy(ctx, self):
    ctx.db.row("message", self)
    ctx.db.delete("message", self)


@call("message.get_all_records")
def message_get_all_records(ctx):
    return {ref: ctx.db.record("message", ref) for ref in ctx.db.refs("message")}


@call("message.get_since")
def message_get_since(ctx, since):
    limit = clock.seconds(since) or 0
    return {r.ref: r.values for r in ctx.db.tables["message"].values()
            if clock.seconds(r.values["timestamp"]) >= limit}


@call("message.get")
def message_get(ctx, obj_uuid, since, **rest):
    return {ref: values for ref, values in message_get_since(ctx, since).items()
            if values["obj_uuid"] == obj_uuid}


@call("message.get_all")
def message_get_all(ctx):
    return ctx.db.refs("message")


@call("message.get_record")
def message_get_record(ctx, self):
    return ctx.db.record("message", self)


@call("message.get_by_uuid")
def message_get_by_uuid(ctx, uuid):
    return ctx.db.by_uuid("message", uuid)
