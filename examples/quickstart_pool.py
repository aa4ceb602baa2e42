# SPDX-License-Identifier: LGPL-2.1-or-later
"""The quickstart with a real pool: asks for what it must know, and changes nothing in existing VMs.

The restored VM is proved by backing it up again: what the pool then delivers must equal, byte by
byte, the restore point it was made from.
"""

import getpass
import os
import re
import subprocess

from quickstart_parts import MIB, Failure, Tool, figures, size_text, write_config, write_secret


def ask(question, default=None):
    """One answer of the user."""
    suffix = f" [{default}]" if default else ""
    answer = input(f"    {question}{suffix}: ").strip()
    return answer or default or ask(question)


class RealStory:
    """The run with a real pool; each method is a step of it."""

    def __init__(self, screen, options, folder):
        self.screen, self.options, self.folder = screen, options, folder
        self.pool = {"name": "quickstart", "urls": options.pool, "username": options.user}
        self.tool = self.inventory = None

    def find_trust(self, password):
        """How the pool's certificate is to be verified."""
        if self.options.ca_file:
            self.pool["ca_file"] = os.path.abspath(self.options.ca_file)
        elif self.options.fingerprint:
            self.pool["fingerprints"] = [self.options.fingerprint]
        else:
            self.pool["fingerprints"] = [self.ask_fingerprint(password)]

    def ask_fingerprint(self, password):
        """Fetches the certificate's fingerprint and lets the user confirm it."""
        tool = Tool(self.options.build, "", self.screen)
        reader, writer = os.pipe()
        os.write(writer, password.encode())
        os.close(writer)
        command = [tool.program, "pool", "show", "--trust-first", "--user", self.options.user,
                   "--password-fd", str(reader)]
        for url in self.options.pool:
            command += ["--pool", url]
        result = subprocess.run(command, pass_fds=(reader,), capture_output=True, text=True,
                                check=False)
        os.close(reader)
        found = re.search(r"--fingerprint ([0-9a-f]{64})", result.stderr)
        if not found:
            raise Failure(result.stderr.strip())
        self.screen.say(f"the pool's certificate has the SHA-256 fingerprint {found.group(1)}")
        if ask("Is it the right one? (yes/no)", "no") != "yes":
            raise Failure("the pool's certificate is not trusted")
        return found.group(1)

    def find_vm(self, name):
        """A VM of the pool by name or uuid."""
        found = [vm for vm in self.inventory["vms"] if name in (vm["uuid"], vm["name"])]
        if len(found) != 1:
            raise Failure(f"{len(found)} VMs of the pool are called {name}; give the uuid")
        return found[0]

    def connect(self):
        """Logs in, chooses VMs and proxies, makes the repository."""
        screen = self.screen
        screen.heading("The pool")
        password = getpass.getpass(f"    Password of {self.options.user}: ")
        self.find_trust(password)
        target = os.path.abspath(self.options.target or ask("Folder for the repository"))
        os.makedirs(target, exist_ok=True)
        passphrase = os.path.join(target, "passphrase")
        if not os.path.exists(passphrase):
            write_secret(passphrase, os.urandom(24).hex())
            screen.say(f"a new passphrase was written to {passphrase}; keep it safe")
        self.tool = Tool(self.options.build, write_config(target, self.pool), screen, password)
        self.inventory = self.tool.run("pool", "show")
        self.tool.show_pool()
        proxies = self.options.proxy or ask(
            "Running VMs that carry a proxy, best one on each host (names or uuids, comma between)"
        ).split(",")
        self.pool["proxies"] = [{"vm_uuid": self.find_vm(name.strip())["uuid"]}
                                for name in proxies]
        write_config(target, self.pool)
        if not os.path.exists(os.path.join(target, "repository")):
            self.tool.run("repo", "init")

    def choose_vms(self):
        """VMs to back up, by uuid."""
        names = self.options.vm or ask("VMs to back up (names or uuids, comma between)").split(",")
        return [self.find_vm(name.strip()) for name in names]

    def back_up(self, uuids, kind):
        """One backup."""
        self.screen.heading(f"{kind} backup")
        report = self.tool.run("backup", *uuids)
        self.screen.say(figures(report))
        self.screen.prove(f"{kind.lower()} backup of {len(uuids)} VMs",
                          report["state"] == "succeeded")
        return report

    def restore(self, vm):
        """Restores a VM under a new name; returns the new one."""
        name = f"{vm['name']} (quickstart)"
        self.screen.heading(f"Restore to a new VM \"{name}\"")
        words = ["--sr", self.options.sr] if self.options.sr else []
        report = self.tool.run("restore", f"latest:{vm['uuid']}", "--name", name, *words)
        self.screen.say(figures(report))
        known = {row["uuid"] for row in self.inventory["vms"]}
        self.inventory = self.tool.run("pool", "show")
        made = [row for row in self.inventory["vms"]
                if row["uuid"] not in known and row["name"] == name]
        self.screen.prove("the pool has the new VM", len(made) == 1)
        return made[0]

    def compare(self, left, right, device):
        """Compares a disk of two restore points while both are read."""
        total = 0
        first, second = (self.tool.read_disk(point, device) for point in (left, right))
        try:
            while True:
                one, other = first.stdout.read(4 * MIB), second.stdout.read(4 * MIB)
                if one != other:
                    return False
                if not one:
                    break
                total += len(one)
        finally:
            for process in (first, second):
                process.stdout.close()
                process.wait()
        self.screen.say(f"disk {device}: {size_text(total)} compared")
        return first.returncode == second.returncode == 0

    def run(self):
        """The whole story."""
        self.connect()
        vms = self.choose_vms()
        uuids = [vm["uuid"] for vm in vms]
        self.back_up(uuids, "Full")
        self.back_up(uuids, "Incremental")
        made = self.restore(vms[0])
        self.back_up([made["uuid"]], "Full")
        self.screen.heading("The restored VM against the restore point, byte by byte")
        for disk in made["disks"]:
            self.screen.prove(f"disk {disk['device']} is the same",
                              self.compare(f"latest:{uuids[0]}", f"latest:{made['uuid']}",
                                           disk["device"]))
        self.screen.say(f"\"{made['name']}\" stays in the pool; remove it when you like")
