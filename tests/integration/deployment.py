# SPDX-License-Identifier: LGPL-2.1-or-later
"""A deployment of the tool: configuration, state file, secrets and a repository in one folder."""

import json
import os
import subprocess

from scenes import PROXIES

PASSPHRASE = "correct horse battery staple"
RUN_SECONDS = 180


def tool():
    """Path of the tool under test."""
    build = os.environ.get("XVSA_BUILD")
    if not build:
        raise AssertionError("XVSA_BUILD must name the build folder")
    return os.path.join(build, "tools", "xvsa")


class Result:
    """How a command ended: exit code, texts, and the document it printed."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __str__(self):
        return "xvsa %s ended with %s\n--- output\n%s\n--- messages\n%s" % (
            " ".join(self.command), self.code, self.out[-6000:], self.err[-6000:])

    @property
    def document(self):
        """The JSON document of the output."""
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise AssertionError("no JSON document: %s\n%s" % (error, self)) from error

    def vm(self, name):
        """The entry of a VM in a plan or report, by name or uuid."""
        for entry in self.document["vms"]:
            if name in (entry["name"], entry["uuid"]):
                return entry
        raise AssertionError("VM %s is not in the document\n%s" % (name, self))

    def disk(self, vm, index=0):
        """The entry of a VM's disk."""
        return self.vm(vm)["disks"][index]

    def reasons(self, vm, index=None):
        """Codes of the reasons of a VM, of its disk `index`, or of VM and all disks."""
        entry = self.vm(vm)
        places = [entry] + entry["disks"] if index is None else [entry["disks"][index]]
        places += entry.get("vifs", []) if index is None else []
        return {reason["code"] for place in places for reason in place.get("reasons", [])}

    def detail(self, vm, code):
        """The detail text of a VM's or its disks' reason."""
        entry = self.vm(vm)
        for place in [entry] + entry["disks"] + entry.get("vifs", []):
            for reason in place.get("reasons", []):
                if reason["code"] == code:
                    return reason["detail"]
        raise AssertionError("VM %s has no reason %s\n%s" % (vm, code, self))

    def point(self, vm):
        """Id of the restore point that a backup made of a VM."""
        return self.vm(vm)["point"]


class Running:
    """A command under way."""

    def __init__(self, command, process):
        self.command, self.process = command, process

    def wait(self, seconds=RUN_SECONDS):
        """The command's result."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError("still running after %d s: %s" % (
                seconds, Result(self.command, None, out, err))) from None
        return Result(self.command, self.process.returncode, out, err)

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def kill(self):
        """Ends it at once, wherever it is."""
        self.process.kill()
        self.process.communicate()


class Deployment:
    """Configuration of a pool, or more, and one repository; runs the tool with it."""

    def __init__(self, folder, pool, proxies=PROXIES, name="pool", **pool_members):
        os.makedirs(folder)
        self.folder, self.pool = folder, pool
        self.repo = os.path.join(folder, "repo")
        self.secret("password", "password")
        self.secret("passphrase", PASSPHRASE)
        self.config = {
            "state": "state.db",
            "pools": [],
            "repositories": [{"name": "repo", "url": "file://" + self.repo,
                              "passphrase_file": "passphrase", "kdf_log_n": 10}]}
        self.add_pool(name, pool, proxies, **pool_members)

    def add_pool(self, name, pool, proxies, **members):
        """Adds a pool and proxies on VMs of it, given by name, to the configuration."""
        trust = {"fingerprints": pool.fingerprints} if pool.tls else {"allow_plain_http": True}
        self.config["pools"].append({
            "name": name, "urls": pool.urls, "username": "root", "password_file": "password", **trust,
            "proxies": [{"name": proxy, "vm_uuid": pool.uuid("VM", proxy)} for proxy in proxies],
            **members})
        self.write_config()

    def secret(self, name, text):
        """Writes a file that only its owner reads."""
        path = os.path.join(self.folder, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="utf-8") as file:
            file.write(text + "\n")
        return path

    def write_config(self):
        """Writes the configuration after a change."""
        with open(os.path.join(self.folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def start(self, *words, **options):
        """Starts a command in the background."""
        command = [*words, "--config", os.path.join(self.folder, "config.json"), "--json",
                   "--quiet"]
        process = subprocess.Popen([tool(), *command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   errors="replace", **options)
        return Running(command, process)

    def run(self, *words, seconds=RUN_SECONDS, **options):
        """Runs a command to its end."""
        return self.start(*words, **options).wait(seconds)

    def init(self):
        """Makes the repository."""
        result = self.run("repo", "init")
        if result.code != 0:
            raise AssertionError(str(result))
        return self

    def points(self, vm=None):
        """Restore points, oldest first."""
        result = self.run("points", *(["--vm", vm] if vm else []))
        if result.code != 0:
            raise AssertionError(str(result))
        return result.document

    def read_disk(self, point, disk="0"):
        """Bytes of a disk of a restore point."""
        path = os.path.join(self.folder, "disk.out")
        result = self.run("disk", "read", point, str(disk), "--output", path, "--force")
        if result.code != 0:
            raise AssertionError(str(result))
        with open(path, "rb") as file:
            return file.read()

    def objects(self, below=""):
        """Names of the stored objects under a folder of the repository."""
        names = []
        for folder, _, files in os.walk(os.path.join(self.repo, below)):
            names += [os.path.relpath(os.path.join(folder, name), self.repo) for name in files]
        return sorted(names)
