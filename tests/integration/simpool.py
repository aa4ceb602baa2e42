# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running pool simulator and what tests do behind the back of its clients."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POOLSIM = os.environ.get("XVSA_POOLSIM",
                         os.path.join(SOURCE, "tests", "pool", "poolsim-checked"))
PYTHON = "/usr/bin/python3"
START_SECONDS = 60


class SimPool:
    """One simulator process, started in a folder of its own."""

    def __init__(self, folder, scenario=None, xapi_db=None, tls=True):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.scenario, self.tls = folder, scenario, tls
        self.log_path = os.path.join(folder, "poolsim.log")
        ready = os.path.join(folder, "ready.json")
        command = [PYTHON, POOLSIM, "--data", os.path.join(folder, "data"), "--ready-file", ready]
        if xapi_db:
            command += ["--xapi-db", xapi_db]
        else:
            path = os.path.join(folder, "scenario.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(scenario, file)
            command += ["--scenario", path]
        if tls:
            command.append("--tls")
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.ready = self._await(ready)

    def _await(self, ready):
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(ready):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError("the simulator did not start: " + self.log())
            time.sleep(0.02)
        with open(ready, encoding="utf-8") as file:
            return json.load(file)

    def log(self):
        """What the simulator printed."""
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:]

    def stop(self):
        """Ends the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def sim(self, action, **arguments):
        """One request of the control interface."""
        request = urllib.request.Request(self.ready["sim"] + action,
                                         json.dumps(arguments).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError("%s: %s" % (action, json.load(error)["error"])) from error

    @property
    def urls(self):
        """URLs of all members, the first coordinator first."""
        return [host["url"] for host in self.ready["hosts"]]

    @property
    def fingerprints(self):
        """SHA-256 of every member's certificate."""
        return [host["fingerprint_sha256"] for host in self.ready["hosts"]]

    # ---- objects by name ----

    def record(self, cls, name):
        """Fields of an object named by uuid, reference or unique name."""
        return self.sim("record/get", cls=cls, name=name)["record"]

    def set(self, cls, name, **fields):
        """Overwrites fields of an object."""
        self.sim("record/set", cls=cls, name=name, fields=fields)

    def uuid(self, cls, name):
        """The uuid of an object with a unique name."""
        return self.record(cls, name)["uuid"]

    def host(self, name):
        """The ready file's entry of a host."""
        return next(host for host in self.ready["hosts"] if host["name"] == name)

    def vms(self, name):
        """Uuids of the VMs (no snapshots or templates) with a name."""
        return [vm["uuid"] for vm in self.sim("state")["vms"]
                if vm["name_label"] == name and not vm["is_a_snapshot"]]

    def devices(self, vm):
        """Position and uuid of a VM's disks, in order."""
        found = []
        for one in self.sim("state")["vms"]:
            if vm in (one["uuid"], one["name_label"]) and not one["is_a_snapshot"]:
                found += [(int(disk["device"]), disk["vdi"]) for disk in one["disks"]
                          if disk["type"] == "Disk" and disk["vdi"]]
        return sorted(found)

    def disks(self, vm):
        """Uuids of a VM's disks in the order of their positions."""
        return [vdi for _, vdi in self.devices(vm)]

    # ---- disks ----

    def write(self, vdi, offset, length, seed=7):
        """Writes random bytes, as the guest would."""
        self.sim("disk/write", vdi=vdi, offset=offset, length=length, random_seed=seed)

    def content(self, vdi):
        """All bytes of a small disk; the file behind it may be shorter than the disk."""
        place = self.sim("disk/path", vdi=vdi)
        with open(place["path"], "rb") as file:
            return file.read().ljust(place["size"], b"\0")

    # ---- faults ----

    def fault(self, method, **rule):
        """Adds a fault; returns its id."""
        return self.sim("fault/add", method=method, **rule)["id"]

    def hits(self, fault):
        """How often a fault struck."""
        rules = self.sim("fault/list")["faults"]
        return next((rule["hits"] for rule in rules if rule["id"] == fault), 0)

    def nbd(self, host, **faults):
        """Sets faults of a host's NBD server."""
        return self.sim("nbd", host=host, **faults)

    def calm(self):
        """Takes every fault away, wakes every host, and starts what ran there."""
        self.sim("fault/clear")
        state = self.sim("state")
        for host in state["hosts"]:
            if not host["alive"]:
                self.sim("host/revive", host=host["uuid"])
            if host["emergency"]:
                self.sim("host/emergency", host=host["uuid"])
            if host["nbd"] or not host["alive"]:
                self.nbd(host["uuid"], export="", refuse=False, close_after=-1, cut_after=-1,
                         stall_after=-1, delay=0.0, attach_delay=0.0, error_after=-1)
        halted = {vm["name_label"] for vm in state["vms"] if vm["power_state"] == "Halted"}
        for vm in self.scenario["vms"] if self.scenario else []:
            if vm.get("power_state") == "Running" and vm["name"] in halted:
                self.sim("vm/power", vm=vm["name"], operation="start", host=vm["host"])

    def called(self, method):
        """How often clients called a method."""
        return len(self.sim("calls", method=method)["calls"])

    def await_call(self, method, count=1, seconds=60):
        """Waits until a method was called so often."""
        deadline = time.monotonic() + seconds
        while self.called(method) < count:
            if time.monotonic() > deadline:
                raise AssertionError("%s was not called" % method)
            time.sleep(0.02)
