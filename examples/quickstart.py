#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Backs up a pool, changes it, backs up the changes, restores, and proves that every byte is back.

Without --pool a simulated pool is used: two hosts, one shared storage repository, three VMs, two of
which carry the proxies. examples/quickstart installs, builds and starts this.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile

from quickstart_parts import (CHUNK, MIB, Failure, Screen, Simulator, Tool, change_files,
                              changed_chunks, figures, gather_content, make_file_system,
                              same_bytes, scenario_of, size_text, write_changes, write_config,
                              write_secret)
from quickstart_pool import RealStory

READ_LIMIT = 1.1  # an incremental backup reads at most so many times what changed


class Story:
    """The simulated run; each method is a step of it."""

    def __init__(self, screen, folder, build, checked):
        self.screen, self.folder, self.build, self.checked = screen, folder, build, checked
        self.simulator = self.tool = self.restored = None
        self.new_files, self.unwanted = {}, []

    def path(self, name):
        """A file of the run."""
        return os.path.join(self.folder, name)

    def make_pool(self):
        """Makes a disk with real files and starts the pool."""
        screen = self.screen
        screen.heading("A disk of 1 GiB with an ext4 file system that holds files of this machine")
        content = self.path("content")
        names = gather_content(content, screen)
        self.unwanted = random.Random(5).sample(names, 20)
        make_file_system(self.path("files.img"), content, 1024 * MIB)
        shutil.rmtree(content)
        screen.say(f"{len(names)} files")
        screen.heading("A simulated pool: two hosts, one shared storage repository, three VMs")
        self.simulator = Simulator(self.folder, scenario_of(self.path("files.img")), self.checked)
        for host in self.simulator.facts["hosts"]:
            screen.say(f"{host['name']} at {host['url']}")

    def connect(self):
        """Describes pool, proxies and repository to the tool, and makes the repository."""
        screen, facts = self.screen, self.simulator.facts
        screen.heading("A proxy for each host, and a new encrypted repository")
        vms = {vm["name_label"]: vm for vm in self.simulator.ask("state")["vms"]}
        write_secret(self.path("password"), "password")
        write_secret(self.path("passphrase"), "correct horse battery staple")
        config = write_config(self.folder, {
            "name": "quickstart", "urls": [host["url"] for host in facts["hosts"]],
            "username": "root", "password_file": "password", "ca_file": facts["ca"],
            "proxies": [{"name": name, "vm_uuid": vms[name]["uuid"]}
                        for name in ("proxy-a", "proxy-b")]})
        self.tool = Tool(self.build, config, screen)
        self.tool.run("repo", "init")
        self.tool.show_pool()

    def disks(self, name):
        """Disks of a VM by device, as the pool has them now."""
        inventory = self.tool.run("pool", "show")
        for vm in inventory["vms"]:
            if vm["name"] == name:
                return {disk["device"]: disk for disk in vm["disks"]}
        raise Failure(f"the pool has no VM {name}")

    def back_up_all(self):
        """The first backup."""
        self.screen.heading("Full backup of every VM")
        report = self.tool.run("backup", "--all", "--name", "quickstart")
        self.screen.say(figures(report))
        self.screen.prove("all VMs were backed up: " + ", ".join(vm["name"] for vm in report["vms"]),
                          len(report["vms"]) == 3 and report["state"] == "succeeded")

    def change(self):
        """Changes files and blocks; returns how many 64 KiB chunks differ."""
        screen = self.screen
        screen.heading("A day of work: files come and go, blocks of a data disk change")
        disks = self.disks("files")
        image, changed = self.path("files.img"), self.path("changed.img")
        subprocess.run(["cp", "--sparse=always", image, changed], check=True)
        self.new_files = change_files(changed, self.folder, self.unwanted)
        before = {device: self.path(f"before-{device}") for device in disks}
        for device, disk in disks.items():
            subprocess.run(["cp", "--sparse=always", self.simulator.disk_path(disk["uuid"]),
                            before[device]], check=True)
        first, second = (disks[device]["uuid"] for device in sorted(disks))
        write_changes(self.simulator, first, image, changed)
        for number in range(48):
            self.simulator.ask("disk/write", vdi=second, length=CHUNK // 2, random_seed=number,
                               offset=number * 5 * MIB + 12345)
        chunks = sum(changed_chunks(before[device], self.simulator.disk_path(disk["uuid"]),
                                    disk["size"])
                     for device, disk in disks.items())
        for path in [*before.values(), changed, image]:
            os.unlink(path)
        screen.say(f"{len(self.new_files)} new files, {len(self.unwanted)} removed; {chunks} chunks of 64 KiB differ "
                   f"({size_text(chunks * CHUNK)})")
        return chunks

    def back_up_changes(self, chunks):
        """The second backup reads little more than what changed."""
        self.screen.heading("Incremental backup")
        report = self.tool.run("backup", "--all", "--name", "quickstart")
        self.screen.say(figures(report))
        read = report["summary"]["bytes_read"]
        ratio = read / (chunks * CHUNK)
        self.screen.prove(f"the incremental backup read {size_text(read)}, {ratio:.3f} times the "
                          f"{size_text(chunks * CHUNK)} that changed", 0.99 <= ratio <= READ_LIMIT)

    def restore(self):
        """Restores a VM under a new name and compares its disks."""
        screen = self.screen
        screen.heading("Restore to a new VM, compared byte by byte")
        report = self.tool.run("restore", "latest:files", "--name", "files restored")
        screen.say(figures(report))
        self.restored = report["vms"][0]["new_uuid"]
        original, restored = self.disks("files"), self.disks("files restored")
        screen.prove("the restored VM has the same disks",
                     sorted(original) == sorted(restored))
        for device in sorted(original):
            left = self.simulator.disk_path(original[device]["uuid"])
            right = self.simulator.disk_path(restored[device]["uuid"])
            screen.prove(f"disk {device} of {size_text(original[device]['size'])} is the same, "
                         "byte by byte",
                         same_bytes(screen, left, right, original[device]["size"]))
        self.check_files(self.simulator.disk_path(restored[sorted(restored)[0]]["uuid"]))

    def check_files(self, disk):
        """The restored file system is sound and holds the files written last."""
        sound = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False)
        self.screen.prove("the restored ext4 file system is sound (e2fsck)", sound.returncode == 0)
        same = 0
        for name, digest in self.new_files.items():
            data = subprocess.run(["debugfs", "-R", f"cat {name}", disk], capture_output=True,
                                  check=True).stdout
            same += hashlib.sha256(data).hexdigest() == digest
        self.screen.prove(f"the {same} files written last are in it, unchanged",
                          same == len(self.new_files) > 0)

    def check_repository(self):
        """What is stored is whole, a disk can be read without the pool, the pool is clean."""
        screen = self.screen
        screen.heading("The repository, and what is left in the pool")
        report = self.tool.run("repo", "verify")
        screen.prove("everything that is stored was read and is whole",
                     report["state"] == "succeeded")
        points = self.tool.run("points")
        screen.say(f"{len(points)} restore points")
        copy = self.path("disk.img")
        self.tool.read_disk("latest:files", "0", copy)
        disk = self.disks("files")["0"]
        live = self.simulator.disk_path(disk["uuid"])
        screen.prove("a disk read from the restore point alone is the same",
                     os.path.getsize(copy) == disk["size"]
                     and same_bytes(screen, live, copy, disk["size"]))
        stored = sum(os.path.getsize(os.path.join(base, name))
                     for base, _, names in os.walk(self.path("repository")) for name in names)
        screen.say(f"the repository takes {size_text(stored)}")
        left = self.leftovers()
        screen.prove("the pool holds nothing of ours but the restored VM and what changed block "
                     "tracking needs", not left)

    def leftovers(self):
        """What we made in the pool that has no business there any more."""
        state = self.simulator.ask("state")
        vdis = {vdi["uuid"]: vdi for sr in state["srs"] for vdi in sr["vdis"]}
        disks = {disk["uuid"] for disk in self.disks("files restored").values()}
        made = self.simulator.ask("made", originator="xvsa", leftovers=True)
        left = [entry for entry in made["entries"] if entry["field"] == "blocked_operations"]
        left += made["attachments"]
        vms = [row for row in made["objects"] if row["class"] == "VM"]
        vbds = [row for row in made["objects"] if row["class"] == "VBD"]
        left += vms if [row["uuid"] for row in vms] != [self.restored] else []
        left += vbds if len(vbds) != len(disks) else []
        for row in made["objects"]:
            vdi = vdis.get(row["uuid"])
            if vdi and vdi["managed"] and vdi["type"] != "cbt_metadata" and row["uuid"] not in disks:
                left.append(row)
        for row in left:
            self.screen.say(f"left: {row}")
        return left

    def run(self):
        """The whole story."""
        try:
            self.make_pool()
            self.connect()
            self.back_up_all()
            chunks = self.change()
            self.back_up_changes(chunks)
            self.restore()
            self.check_repository()
        finally:
            if self.simulator:
                self.simulator.stop()


def parse_options():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="examples/quickstart", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", metavar="DIR", help="use this build instead of making one")
    parser.add_argument("--check", action="store_true",
                        help="print \"ok\" lines, as tests read them")
    parser.add_argument("--keep", action="store_true", help="keep the simulated pool's files")
    real = parser.add_argument_group("a real pool; what is not given is asked for")
    real.add_argument("--pool", action="append", metavar="URL", help="a member; may be repeated")
    real.add_argument("--user", default="root", metavar="NAME", help="account (root)")
    real.add_argument("--ca-file", metavar="FILE", help="CA of the members' certificates")
    real.add_argument("--fingerprint", metavar="SHA256", help="of the pool's certificate")
    real.add_argument("--vm", action="append", metavar="VM", help="VM to back up; may be repeated")
    real.add_argument("--proxy", action="append", metavar="VM",
                      help="running VM that carries a proxy; may be repeated")
    real.add_argument("--sr", metavar="SR", help="where the restored VM's disks go")
    real.add_argument("--target", metavar="DIR", help="folder for the repository")
    return parser.parse_args()


def main():
    """Tells the story; ends with 1 when something was not as promised."""
    options = parse_options()
    os.umask(0o077)
    screen = Screen(options.check)
    folder = tempfile.mkdtemp(prefix="xvsa-quickstart-")
    try:
        if options.pool:
            RealStory(screen, options, folder).run()
        else:
            Story(screen, folder, options.build, options.check).run()
        screen.summary()
        return 0
    except (Failure, subprocess.CalledProcessError, OSError) as error:
        print(f"\nquickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquickstart: stopped", file=sys.stderr)
        return 130
    finally:
        if options.keep:
            print(f"files are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
