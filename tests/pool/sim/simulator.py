# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that runs: hosts' listeners, NBD servers, control interface, ready file."""

import json
import os
import random
import shutil
import socket
import threading

from . import build, bulk, control, hosts
from .dispatch import Dispatcher
from .errors import ScenarioError
from .httpd import Server
from .nbd import NbdServer
from .nbd_external import ExternalNbd, ExternalNbdError
from .pool import Pool
from .rpc import HostHandler
from .storage import Store

# Modules that register handlers of calls.
from . import events, power, snapshot, sr, tasks, vbd, vdi, vdi_cbt, vif, vm  # noqa: F401


CLAIMS = []  # sockets by whose names other test programs know which ports are taken


def claim(port):
    """Takes a port until this process ends: what is chosen is listened at only later, and not while
    its host is away."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind("\0xvsa-test-port-%d" % port)
    except OSError:
        sock.close()
        return False
    CLAIMS.append(sock)
    return True


def free_port(addresses):
    """A port that is free on all of the addresses and was given to nobody else. Not of those that the
    system gives to connections: such a connection would have the port when a host that was away
    comes back."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        end = int(file.read().split()[0])
    for _ in range(200):
        port = random.randrange(min(20000, end // 2), end)
        if all(can_bind(a, port) for a in addresses) and claim(port):
            return port
    raise ScenarioError("no port is free on all of " + ", ".join(addresses))


def can_bind(address, port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def address_of(first, index):
    """Loopback addresses count up from the first host's; others share it."""
    parts = first.split(".")
    if parts[0] != "127" or index == 0:
        return first
    number = (int(parts[2]) << 8) + int(parts[3]) + index
    return "%s.%s.%d.%d" % (parts[0], parts[1], number >> 8 & 255, number & 255)


class Simulator:
    """A pool that answers. `plan` is a checked scenario."""

    def __init__(self, plan, directory, listen, tls=False, certificate=None, database=None):
        os.makedirs(directory, exist_ok=True)
        self.directory, self.tls = directory, tls
        self.pool = Pool(plan["options"], Store(os.path.join(directory, "disks")))
        self.pool.guests = os.path.join(directory, "guests")
        shutil.rmtree(self.pool.guests, ignore_errors=True)
        self.given_certificate = certificate
        address, port = listen
        for index, host in enumerate(plan["hosts"]):
            host["address"] = host["address"] or address_of(address, index)
        if database is None:
            build.build(self.pool, plan)
        else:
            database(self.pool, [h["address"] for h in plan["hosts"]])
        self.dispatcher = Dispatcher(self.pool)
        self.stopped = threading.Event()
        with self.pool.lock:
            self.place(port)
        self.control = control.start(self, address)

    def place(self, port):
        """Certificates and listeners of every host: one port for all, likewise for NBD."""
        members = list(self.pool.hosts.values())
        addresses = [m.address for m in members]
        if len(set(addresses)) < len(addresses):
            raise ScenarioError("hosts: two have the same address")
        port = port or free_port(addresses)
        nbd_port = self.pool.options["nbd_port"] or free_port(addresses)
        bulk_handlers = bulk.handlers(self.pool)
        for member in members:
            member.tls, member.port, member.nbd_port = self.tls, port, nbd_port
            if self.given_certificate and member is members[0]:
                hosts.use_certificate(member, self.given_certificate)
            else:
                hosts.make_certificate(self.directory, member)
            self.record_certificate(member)
            handler = HostHandler(self.pool, member, self.dispatcher, bulk_handlers)
            tls = (lambda m=member: hosts.tls_context(m)) if self.tls else None
            try:
                member.listener = Server(member.address, port, handler, tls)
            except OSError as error:
                raise ScenarioError("can't listen at %s:%d: %s" % (
                    member.address, port, error.strerror)) from error

    def record_certificate(self, member):
        db = self.pool.db
        if "Certificate" in db.tables:
            db.create("Certificate", {
                "host": member.ref, "type": "host", "fingerprint": member.fingerprint,
                "fingerprint_sha256": member.fingerprint,
                "not_before": "20240101T00:00:00Z", "not_after": "20360101T00:00:00Z"})

    def start_nbd(self, member):
        """The host's NBD service; an external program gives each disk a port when it is asked for,
        with TLS unless the pool's networks are for plain NBD now."""
        kind = self.pool.options["nbd"]
        if kind == "off":
            return
        if kind != "python":
            with self.pool.lock:
                plain = vdi_cbt.nbd_purpose(self.pool) == "insecure_nbd"
            certificate = None if plain else member.certificate
            try:
                member.nbd = ExternalNbd(kind, member.address, certificate)
            except ExternalNbdError as error:
                raise ScenarioError("options: nbd: %s" % error) from error
            return
        member.nbd = NbdServer(member.address, member.nbd_port,
                               lambda m=member: hosts.tls_context(m),
                               bulk.NbdResolver(self.pool, member),
                               self.pool.options["nbd_connections"])
        member.nbd.faults.rate = self.pool.options["nbd_rate"]
        member.nbd.start()

    def start(self):
        for member in self.pool.hosts.values():
            member.listener.start()
            self.start_nbd(member)
            with self.pool.lock:
                hosts.note_start(self.pool, member, boot=True)
        threading.Thread(target=self.pool.collect, daemon=True, name="collector").start()
        self.control.start()

    # ---- hosts ----

    def kill(self, member):
        """The host is gone: connections cut, ports closed, dom0 attachments left behind."""
        with self.pool.lock:
            hosts.die(self.pool, member)
            self.pool.db.changed.notify_all()
        member.listener.stop()
        if member.nbd:
            member.nbd.stop(detach=False)
            member.nbd = None

    def revive(self, member, emergency=None):
        with self.pool.lock:
            hosts.revive(self.pool, member)
            member.emergency = emergency
        member.listener.restart()
        if member.nbd is None:
            self.start_nbd(member)

    def restart_toolstack(self, member, seconds):
        """xapi ends and starts: RPC and HTTP connections break, NBD ones go on."""
        with self.pool.lock:
            hosts.restart_toolstack(self.pool, member)
        member.listener.stop()
        if seconds > 0:
            self.stopped.wait(seconds)
        member.listener.restart()

    # ---- whole ----

    def ready(self):
        pool = self.pool
        members = [{"uuid": m.uuid, "name": m.name, "url": m.url(), "address": m.address,
                    "port": m.port, "nbd_port": m.nbd_port if m.nbd else 0,
                    "fingerprint_sha256": m.fingerprint, "certificate": self.public_pem(m)}
                   for m in pool.hosts.values()]
        master = pool.hosts[pool.coordinator()]
        return {"coordinator": master.url(), "hosts": members, "sim": self.control.url,
                "ca": self.bundle() if self.tls else None,
                "fingerprint_sha256": master.fingerprint,
                "guests": pool.guests, "pool": pool.db.get("pool", pool.pool_ref(), "uuid")}

    def public_pem(self, member):
        """A host's certificate without its key, as a file."""
        path = os.path.join(self.directory, "cert-%s.crt" % member.uuid)
        with open(path, "w", encoding="ascii") as out:
            out.write(hosts.certificate_text(member))
        return path

    def bundle(self):
        """All hosts' certificates in one PEM file: what a client has to trust."""
        path = os.path.join(self.directory, "ca.pem")
        with open(path, "w", encoding="ascii") as out:
            for member in self.pool.hosts.values():
                out.write(hosts.certificate_text(member))
        return path

    def write_ready(self, path):
        with open(path + ".new", "w", encoding="utf-8") as out:
            json.dump(self.ready(), out, indent=1)
            out.write("\n")
        os.rename(path + ".new", path)

    def stop(self):
        with self.pool.lock:
            self.pool.stopping = True
            self.pool.faults.clear()
        for member in self.pool.hosts.values():
            member.listener.stop()
            if member.nbd:
                member.nbd.stop()
        self.control.stop()
        self.pool.store.close()
        self.stopped.set()
