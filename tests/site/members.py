# SPDX-License-Identifier: LGPL-2.1-or-later
"""A site under test: a simulated pool, a repository, and members that are processes of `xvsa serve`.

`SiteCase` has a pool for a class of tests and a site for each test. A test starts members, submits
jobs, and does to members what happens to machines:

    class Losses(SiteCase):
        def test_owner(self):
            self.members("a", "b")              # xvsa serve, joined when this returns
            job = self.submit("--all")
            owner = self.owner(job, "web")      # waits until somebody moves data of "web"
            owner.kill()                        # SIGKILL; also terminate(), stop(), cont()
            report = self.ended(job)            # waits; the document "site-job"
            self.assert_done(job, "web")

Members are named as the proxies of the scenario without "proxy-" ("a" runs on VM "proxy-a"). The
store is SQLite unless a test passes `store=`, for example the URL of a `cluster.Cluster`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tests", "integration"))

import frozen  # noqa: E402
from deployment import Deployment, tool  # noqa: E402
from harness import OK, PoolCase  # noqa: E402

TTL_MS = 2000
CHECKPOINT_MS = 300
UNIT = 2 << 20
START_SECONDS = 60
JOB_SECONDS = int(os.environ.get("XVSA_JOB_SECONDS", "150"))


class Member:
    """One process of `xvsa serve`."""

    def __init__(self, site, name, pool=None, env=None, node=None, urls=None, **options):
        self.site, self.name, self.node, self.urls = site, name, node, urls
        self.log_path = os.path.join(site.folder, "member-%s.log" % name)
        self.config_path = os.path.join(site.folder, "member-%s.json" % name)
        self.pool, self.env, self.options = pool, env, options
        self.process = None
        self.address = None
        self.stopped = False

    def start(self):
        """Starts the process; does not wait until it serves."""
        config = json.loads(json.dumps(self.site.config))
        config["site"]["member"] = "proxy-" + self.name
        config["state"] = "state-%s.db" % self.name
        config["site"].update(self.options)
        if self.urls:
            config["pools"][0]["urls"] = self.urls
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        command = [tool(), "serve", "--config", self.config_path, "--log-level", "info"]
        if self.pool:
            command += ["--pool", self.pool]
        if self.node:
            command = self.node.command(command)
        self.address = None
        self.began = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env={**os.environ, **(self.env or {})})
        return self

    def log(self, since_start=False):
        """What it said."""
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            if since_start:
                file.seek(self.began)
            return file.read()

    def await_serving(self):
        """Waits until it has joined; remembers where its HTTP address is."""
        deadline = time.monotonic() + START_SECONDS
        said = None
        while said is None:
            said = re.search("health and metrics at http://([^/]+)/\n", self.log(since_start=True))
            if said is None and (self.process.poll() is not None or time.monotonic() > deadline):
                raise AssertionError("member %s does not serve:\n%s" % (self.name, self.log()))
            time.sleep(0.02)
        self.address = said.group(1)
        return self

    def get(self, path):
        """Status and text of a page of its HTTP address."""
        if self.node:
            return self.get_in_node(path)
        try:
            with urllib.request.urlopen("http://%s%s" % (self.address, path), timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def get_in_node(self, path):
        """The same, asked where it runs: that works though it is cut off."""
        argv = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "http://%s%s" % (self.address, path)]
        done = subprocess.run(self.node.command(argv), capture_output=True, check=True, text=True)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def status(self):
        """Its document "agent"."""
        return json.loads(self.get("/status")[1])

    def is_running(self):
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: what a power failure is to it."""
        self.process.kill()
        self.process.wait()
        self.stopped = False

    def stop(self):
        """SIGSTOP: it freezes, not while it holds the lock of a store that is a file."""
        store = self.site.config["site"]["store"]
        if store.startswith("sqlite:"):
            frozen.freeze_off(self.process, store[len("sqlite:"):])
        else:
            frozen.freeze(self.process)
        self.stopped = True

    def cont(self):
        """SIGCONT: it goes on as if nothing had happened."""
        self.process.send_signal(signal.SIGCONT)
        self.stopped = False

    def terminate(self):
        """SIGTERM: it drains."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds=JOB_SECONDS):
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("member %s still runs:\n%s" % (self.name, self.log())) from None

    def close(self):
        """Ends it, however it is."""
        if self.is_running():
            self.process.kill()
            self.process.wait()


class SiteDeployment(Deployment):
    """Configuration, repository and members."""

    def __init__(self, folder, pool, store=None, ttl_ms=TTL_MS, store_options=None, **options):
        super().__init__(folder, pool, **options)
        del self.config["state"]
        for entry in self.config["pools"][0]["proxies"]:
            entry["name"] = next(name for name in pool_proxies(pool)
                                 if pool.uuid("VM", name) == entry["vm_uuid"])
        self.config["site"] = {
            "store": store or "sqlite:" + os.path.join(folder, "site.db"), "name": "test",
            "lease_ttl_ms": ttl_ms, "checkpoint_ms": CHECKPOINT_MS, "unit_bytes": UNIT,
            **(store_options or {})}
        self.config["serve"] = {"listen": "127.0.0.1:0"}
        self.members = {}
        self.write_config()

    def member(self, name, **options):
        """A member, not started yet."""
        self.members[name] = Member(self, name, **options)
        return self.members[name]

    def close(self):
        """Ends all members."""
        for member in self.members.values():
            member.close()

    def logs(self):
        """What all members said, for messages of failures."""
        return "\n".join("--- %s\n%s" % (member.name, member.log()[-6000:])
                         for member in self.members.values() if member.process)


def pool_proxies(pool):
    """Names of the VMs that members run on."""
    return [vm["name"] for vm in pool.scenario["vms"] if vm["name"].startswith("proxy-")]


class SiteCase(PoolCase):
    """A pool for the class, a site for each test."""

    rate = 0  # bytes a second of each host's NBD link; 0: no limit
    ttl_ms = TTL_MS
    store = None

    def setUp(self):
        super().setUp()
        if self.rate:
            self.limit(self.rate)
        self.addCleanup(self.site.close)

    def deploy(self, name="site", init=None, **options):
        options.setdefault("store", self.store)
        options.setdefault("ttl_ms", self.ttl_ms)
        site = SiteDeployment(os.path.join(self.folder, name), self.pool,
                              proxies=pool_proxies(self.pool), **options)
        self.sites.append(site)
        return site.init() if (self.init if init is None else init) else site

    # ---- members ----

    def start_members(self, *names, nodes=None, **options):
        """Starts members one after the other, so that their order of addition is that of names."""
        return [self.site.member(name, node=(nodes or {}).get(name), **options)
                .start().await_serving() for name in names]

    def restart(self, member):
        """Starts a member that ended again."""
        return member.start().await_serving()

    def site_document(self):
        """The document "site"."""
        return self.run_tool("site", "show").document

    def coordinator(self, seconds=30):
        """The member that coordinates the pool; waits until there is one that runs."""
        def look():
            name = self.site_document()["pools"]
            name = name[0]["coordinator"] if name else None
            member = self.site.members.get((name or "").replace("proxy-", "", 1))
            return member if member and member.is_running() else None
        return self.eventually(look, "a coordinator", seconds)

    # ---- jobs ----

    def submit(self, *words, document=None):
        """Submits a backup with the tool's options, or a document; its id."""
        if document is not None:
            path = os.path.join(self.folder, "job.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(document, file)
            words = ("--document", path, *words)
        return self.run_tool("job", "submit", *words).document["job"]

    def job(self, job):
        """The document "site-job"."""
        return self.run_tool("job", "show", job).document

    def control(self, job, action, *words):
        """`xvsa job suspend|resume|cancel JOB`."""
        self.run_tool("job", action, job, *words)

    def task(self, job, name):
        """The entry of a VM in a job."""
        for entry in self.job(job)["vms"]:
            if name in (entry["name"], entry["uuid"]):
                return entry
        return None

    def ended(self, job, state="succeeded", seconds=JOB_SECONDS):
        """Waits for a job's end, which must be the one given; its document."""
        def look():
            result = self.site.run("job", "show", job)
            document = result.document if result.code == OK else {"ended_ms": 0}
            return document if document["ended_ms"] else None
        document = self.eventually(look, "the end of the job", seconds)
        self.assertEqual(document["state"], state,
                         "%s\n%s" % (json.dumps(document, indent=1)[-6000:], self.site.logs()))
        return document

    def moving(self, job, name, least=1 << 20, seconds=60):
        """Waits until data of a VM are moved; its entry."""
        def look():
            entry = self.task(job, name)
            if entry is None or entry["state"] != "running":
                return None
            progress = entry["progress"] or {}
            owner = self.member_of(entry["owner"])
            for task in owner.status()["tasks"] if owner and owner.is_running() else []:
                if task["subject"] == entry["uuid"] and not owner.stopped:
                    progress = task
            return entry if progress.get("bytes_done", 0) >= least else None
        return self.eventually(look, "data of %s to be moved" % name, seconds)

    def member_of(self, name):
        """The member with a name as the site knows it."""
        return self.site.members.get((name or "").replace("proxy-", "", 1))

    def owner(self, job, name, **options):
        """The member that moves data of a VM, once it does."""
        return self.member_of(self.moving(job, name, **options)["owner"])

    def eventually(self, look, what, seconds=60):
        """Looks again and again until it sees something."""
        deadline = time.monotonic() + seconds
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                self.fail("waited %d s for %s\n%s" % (seconds, what, self.site.logs()))
            time.sleep(0.05)

    # ---- facts ----

    def entry(self, document, name):
        """The entry of a VM in a document "site-job"."""
        return next(vm for vm in document["vms"] if vm["name"] == name)

    def assert_backed_up(self, document, *names):
        """Each VM has one restore point with its bytes; nothing is left in the pool."""
        for name in names:
            entry = self.entry(document, name)
            self.assertEqual(entry["state"], "succeeded", json.dumps(entry, indent=1))
            mine = [point for point in self.site.points() if point["vm"]["name"] == name]
            self.assertEqual([point["id"] for point in mine], [entry["point"]], name)
            self.assert_point(entry["point"], name)
        self.assert_clean()
        self.assert_verified()


__all__ = ["Member", "SiteCase", "SiteDeployment", "OK", "TTL_MS"]
