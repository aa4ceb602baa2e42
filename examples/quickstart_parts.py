# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the quickstart works with: a screen, the tool, the simulated pool, disks with real files."""

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHUNK = 64 << 10
MIB = 1 << 20
CONTENT_BYTES = 160 * MIB
SHARED_SR = "Shared storage"


class Failure(Exception):
    """Something that was to be shown did not come out."""


class Screen:
    """Says what is going on: headings, bars, and at the end what was proved."""

    def __init__(self, check):
        self.check = check
        self.terminal = sys.stdout.isatty()
        self.begin = time.monotonic()
        self.step = 0
        self.proofs = []

    def heading(self, text):
        """Begins a step."""
        self.step += 1
        print(f"\n[{self.step}] {text}", flush=True)

    def say(self, text):
        """One line about the step."""
        print(f"    {text}", flush=True)

    def bar(self, verb, done, total):
        """How far something is; on a terminal only."""
        if not self.terminal:
            return
        share = done / total if total else 1.0
        filled = int(share * 24)
        print(f"\r\033[K    {verb} [{'#' * filled}{'.' * (24 - filled)}] {share:4.0%}", end="",
              flush=True)
        if done >= total:
            print("\r\033[K", end="", flush=True)

    def prove(self, text, good):
        """Records something that was shown, or stops when it was not."""
        self.proofs.append((text, good))
        if self.check:
            print(f"{'ok' if good else 'not ok'} {text}", flush=True)
        else:
            self.say(f"{'proved' if good else 'NOT TRUE'}: {text}")
        if not good:
            raise Failure(text)

    def summary(self):
        """What was proved."""
        print(f"\nProved in {time.monotonic() - self.begin:.0f} s:")
        for text, _ in self.proofs:
            print(f"  - {text}")


def size_text(count):
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return str(count)


class Tool:
    """The command-line tool with the options of one pool and one repository."""

    def __init__(self, build, config, screen, password=None):
        self.program = os.path.join(build, "tools", "xvsa")
        self.config = config
        self.screen = screen
        self.password = password  # for commands that log in; None: the configuration names a file
        if not os.access(self.program, os.X_OK):
            raise Failure(f"{self.program} is not there; was it built?")

    def start(self, words, output, logs_in):
        """Starts a command; a password reaches it through a pipe."""
        command = [self.program, *words, "--config", self.config]
        if self.password is None or not logs_in:
            return subprocess.Popen(command, stdout=output)
        reader, writer = os.pipe()
        os.write(writer, self.password.encode())
        os.close(writer)
        try:
            return subprocess.Popen([*command, "--password-fd", str(reader)], stdout=output,
                                    pass_fds=(reader,))
        finally:
            os.close(reader)

    def run(self, *words):
        """Runs a command whose progress is shown; returns its document."""
        self.screen.say("$ xvsa " + " ".join(words))
        logs_in = words[0] in ("pool", "plan", "backup", "restore")
        process = self.start([*words, "--json"], subprocess.PIPE, logs_in)
        output = process.communicate()[0]
        if process.returncode != 0:
            text = output.decode(errors="replace")
            raise Failure(f"\"xvsa {' '.join(words)}\" ended with {process.returncode}: {text[:2000]}")
        return json.loads(output)

    def show_pool(self):
        """Prints the pool for people."""
        self.start(["pool", "show"], None, True).wait()

    def read_disk(self, point, device, path="-"):
        """Copies a disk of a restore point to a file, or starts doing so to a pipe."""
        words = ["disk", "read", point, device, "--output", path]
        process = self.start([*words, "--quiet"] if path == "-" else words,
                             subprocess.PIPE if path == "-" else None, False)
        if path != "-" and process.wait() != 0:
            raise Failure(f"disk {device} of {point} cannot be read")
        return process


class Simulator:
    """The pool simulator as a child process."""

    def __init__(self, folder, scenario, checked):
        path = os.path.join(folder, "scenario.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(scenario, file, indent=1)
        ready = os.path.join(folder, "ready.json")
        program = os.path.join(SOURCE, "tests", "pool",
                               "poolsim-checked" if checked else "poolsim")
        self.log = open(os.path.join(folder, "simulator.log"), "wb")
        self.process = subprocess.Popen(
            [sys.executable, program, "--scenario", path, "--data", os.path.join(folder, "pool"),
             "--tls", "--ready-file", ready], stdout=self.log, stderr=self.log)
        for _ in range(600):
            if os.path.exists(ready):
                break
            if self.process.poll() is not None:
                self.log.flush()
                with open(self.log.name, encoding="utf-8", errors="replace") as log:
                    raise Failure("the simulated pool did not start:\n" + log.read()[-2000:])
            time.sleep(0.1)
        else:
            raise Failure("the simulated pool did not start within a minute")
        with open(ready, encoding="utf-8") as file:
            self.facts = json.load(file)

    def ask(self, action, **arguments):
        """Calls the control interface."""
        request = urllib.request.Request(self.facts["sim"] + action,
                                         json.dumps(arguments).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def disk_path(self, vdi):
        """File with the bytes of a disk."""
        return self.ask("disk/path", vdi=vdi)["path"]

    def stop(self):
        """Ends the simulator."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def real_files():
    """Files of this machine that anybody may read, in a stable order."""
    for root in ("/usr/share/doc", "/usr/include", "/usr/share", "/usr/lib", "/usr/bin"):
        for base, names, files in os.walk(root):
            names.sort()
            for name in sorted(files):
                path = os.path.join(base, name)
                if not os.path.islink(path) and os.path.isfile(path) and os.access(path, os.R_OK):
                    yield path


def gather_content(folder, screen):
    """Copies real files, CONTENT_BYTES of them; returns their names in the folder."""
    taken = 0
    names = {}
    for path in real_files():
        size = os.path.getsize(path)
        if size > 8 * MIB or path in names:
            continue
        target = folder + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)
        names[path] = size
        taken += size
        if len(names) % 200 == 0:
            screen.bar("copying files", min(taken, CONTENT_BYTES - 1), CONTENT_BYTES)
        if taken >= CONTENT_BYTES:
            break
    screen.bar("copying files", 1, 1)
    return list(names)


def make_file_system(path, content, size):
    """An ext4 file system in a file, holding the files of a folder."""
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", content, path], check=True)


def scenario_of(image):
    """Two hosts, one shared storage repository, three VMs."""
    network = "Pool-wide network"
    disk = {"sr": SHARED_SR, "size": "128 MiB"}
    vms = [
        {"name": "files", "power_state": "Running", "host": "host1", "memory": "1 GiB",
         "tags": ["quickstart"], "vifs": [{"network": network, "mac": "02:00:00:00:00:10"}],
         "disks": [{"sr": SHARED_SR, "size": "1 GiB", "name": "files root", "source": image},
                   {"sr": SHARED_SR, "size": "256 MiB", "name": "files data",
                    "generate": {"seed": 7, "bytes": 64 * MIB}}]},
        {"name": "proxy-a", "power_state": "Running", "host": "host1", "memory": "1 GiB",
         "disks": [{**disk, "generate": {"seed": 8, "bytes": 24 * MIB}}],
         "vifs": [{"network": network}]},
        {"name": "proxy-b", "power_state": "Running", "host": "host2", "memory": "1 GiB",
         "disks": [{**disk, "generate": {"seed": 9, "bytes": 24 * MIB}}],
         "vifs": [{"network": network}]},
    ]
    return {"name": "quickstart", "hosts": [{"name": "host1"}, {"name": "host2"}],
            "srs": [{"name": SHARED_SR, "type": "nfs", "shared": True, "size": "1 TiB",
                     "default": True}],
            "networks": [{"name": network, "bridge": "xenbr0", "purpose": ["nbd"]}], "vms": vms}


def write_secret(path, text):
    """A file that only its owner reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def write_config(folder, pool, name="config.json"):
    """The tool's configuration: one pool, one repository in folder."""
    config = {
        "state": "state.db",
        "pools": [pool],
        "repositories": [{"name": "quickstart", "url": f"file://{folder}/repository",
                          "passphrase_file": "passphrase", "kdf_log_n": 14}],
    }
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    return path


def pieces(path, size):
    """The bytes of a disk's file, MIB by MIB; what the file lacks at its end are zeros."""
    with open(path, "rb") as file:
        for position in range(0, size, MIB):
            length = min(MIB, size - position)
            yield file.read(length).ljust(length, b"\0")


def changed_chunks(before, after, size):
    """Number of 64 KiB chunks in which two files of disks of a size differ."""
    return sum(left[i:i + CHUNK] != right[i:i + CHUNK]
               for left, right in zip(pieces(before, size), pieces(after, size)) if left != right
               for i in range(0, len(left), CHUNK))


def change_files(image, folder, unwanted):
    """Writes files into an ext4 image and removes some; returns the digests of the new ones."""
    rng = random.Random(11)
    commands = ["mkdir /documents"]
    new = {}
    for number in range(48):
        data = rng.randbytes(rng.randrange(200_000, 900_000))
        if number % 2:
            data = base64.b64encode(data)
        path = os.path.join(folder, f"new-{number}")
        with open(path, "wb") as file:
            file.write(data)
        new[f"/documents/document-{number}"] = hashlib.sha256(data).hexdigest()
        commands.append(f"write {path} /documents/document-{number}")
    commands += [f"rm \"{name}\"" for name in unwanted]
    script = os.path.join(folder, "changes.debugfs")
    with open(script, "w", encoding="utf-8") as file:
        file.write("\n".join(commands) + "\n")
    result = subprocess.run(["debugfs", "-w", "-f", script, image], capture_output=True, text=True,
                            check=True)
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("debugfs 1.")]
    if complaints:
        raise Failure("debugfs: " + "; ".join(complaints[:3]))
    return new


def differing_runs(left, right):
    """Offsets and lengths of the 4 KiB aligned runs in which two pieces differ."""
    begin = None
    for position in range(0, len(right), 4096):
        if left[position:position + 4096] != right[position:position + 4096]:
            begin = position if begin is None else begin
        elif begin is not None:
            yield begin, position - begin
            begin = None
    if begin is not None:
        yield begin, len(right) - begin


def write_changes(simulator, vdi, before, after):
    """Writes to a disk whatever differs between two images of it, as its guest would have."""
    size = os.path.getsize(after)
    for number, (left, right) in enumerate(zip(pieces(before, size), pieces(after, size))):
        for offset, length in differing_runs(left, right) if left != right else ():
            simulator.ask("disk/write", vdi=vdi, offset=number * MIB + offset,
                          data=base64.b64encode(right[offset:offset + length]).decode())


def same_bytes(screen, left, right, size):
    """True when two files of disks of a size hold the same bytes."""
    for number, (one, other) in enumerate(zip(pieces(left, size), pieces(right, size)), 1):
        if one != other:
            return False
        if number % 16 == 0:
            screen.bar("comparing", number * MIB, size)
    screen.bar("comparing", size, size)
    return True


def figures(report):
    """One line of figures of a job's report."""
    summary = report["summary"]
    seconds = (report["ended_ms"] - report["started_ms"]) / 1000
    return (f"{size_text(summary['bytes_read'])} read, {size_text(summary['bytes_stored'])} "
            f"written, {seconds:.1f} s")
