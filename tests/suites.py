#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the project in several ways and runs its suites; tests/run calls it.

Counts single test cases as the tools below report them: Check's "Checks: N", unittest's "Ran N
tests", the "ok" and "not ok" lines of gates, one for any other program. A suite that ends badly or
runs nothing counts as a failure. Logs are kept in the build folder.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.environ.get("XVSA_SHARED", os.path.join(SOURCE, "..", "shared"))
PYTHON = "/usr/bin/python3"
TAIL_LINES = 40
# Tests wait more than they compute.
AT_ONCE = (os.cpu_count() or 1) + 1

# Compiler and meson options of each build.
BUILDS = {
    "gcc": ("gcc", ["-Ddeveloper=true"]),
    "asan": ("clang", ["-Ddeveloper=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "tsan": ("clang", ["-Ddeveloper=true", "-Db_sanitize=thread", "-Db_lundef=false"]),
}

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:suppressions=" + os.path.join(SOURCE, "tests", "tsan.supp"),
}


class Count:
    """Outcome of a suite: single test cases."""

    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, other):
        """Adds another outcome."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def count_check(text):
    """Counts the cases that Check programs report in text; None when there is no report."""
    rows = re.findall(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", text, re.M)
    if not rows:
        return None
    total = sum(int(row[0]) for row in rows)
    failed = sum(int(row[1]) + int(row[2]) for row in rows)
    return Count(total - failed, failed)


def count_unittest(text):
    """Counts the cases that unittest reports in text; None when there is no report."""
    ran = re.findall(r"^Ran (\d+) tests? in ", text, re.M)
    if not ran:
        return None
    ended = re.findall(r"^(?:OK|FAILED)(?: \((.*)\))?$", text, re.M)
    numbers = dict(re.findall(r"(\w[\w ]*)=(\d+)", ended[-1] if ended else ""))
    failed = sum(int(numbers.get(key, 0))
                 for key in ("failures", "errors", "unexpected successes"))
    skipped = int(numbers.get("skipped", 0))
    return Count(int(ran[-1]) - failed - skipped, failed, skipped)


def count_lines(text):
    """Counts the "ok" and "not ok" lines of a gate; None when there are none."""
    passed = skipped = failed = 0
    for line in text.splitlines():
        if line.startswith("not ok "):
            failed += 1
        elif line.startswith("ok ") and " # SKIP" in line:
            skipped += 1
        elif line.startswith("ok "):
            passed += 1
    return Count(passed, failed, skipped) if passed + skipped + failed else None


def verdict(count, status):
    """Joins what a program reported with how it ended; no report means one test."""
    if status == 77:
        return Count(skipped=1)
    if count is None:
        return Count(1, 0) if status == 0 else Count(0, 1)
    if status != 0 and count.failed == 0:
        return Count(count.passed, 1, count.skipped)
    if count.passed + count.failed + count.skipped == 0:
        return Count(0, 1)
    return count


class Runner:
    """Runs suites, keeps their logs and sums up their outcome."""

    def __init__(self, build_root, env):
        self.root = build_root
        self.env = env
        self.total = Count()
        self.failures = []
        self.built = {}
        self.workers = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        self.waiting = []
        self.lock = threading.Lock()  # guards total, failures and the output
        os.makedirs(os.path.join(build_root, "logs"), exist_ok=True)

    def log_path(self, name):
        """Path of the log of a suite."""
        return os.path.join(self.root, "logs", re.sub(r"[^\w.-]+", "-", name) + ".log")

    def execute(self, name, command, timeout, env=None, cwd=None):
        """Runs a command into the log of name; returns its exit status and output."""
        path = self.log_path(name)
        with open(path, "w", encoding="utf-8", errors="replace") as log:
            log.write("$ " + shlex.join(command) + "\n")
            log.flush()
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, cwd=cwd or SOURCE,
                                       env={**self.env, **(env or {})}, start_new_session=True)
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                log.write(f"\nstopped: still running after {timeout} s\n")
                status = 124
            finally:
                stop_group(process)
        with open(path, encoding="utf-8", errors="replace") as log:
            return status, log.read()

    def note(self, name, count, seconds):
        """Prints the outcome of a suite and adds it to the sum."""
        with self.lock:
            self.note_locked(name, count, seconds)

    def note_locked(self, name, count, seconds):
        """The same, with the lock."""
        self.total.add(count)
        skipped = f", {count.skipped} skipped" if count.skipped else ""
        state = "FAIL" if count.failed else "ok" if count.passed else "skip"
        print(f"{state:4} {name:40} {count.passed:5} passed, {count.failed} failed{skipped}"
              f"  ({seconds:.0f} s)", flush=True)
        if count.failed:
            self.failures.append(name)
            self.print_tail(name)

    def print_tail(self, name):
        """Prints the end of a suite's log."""
        path = self.log_path(name)
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines()
        print(f"---- end of {path}")
        for line in lines[-TAIL_LINES:]:
            print("   | " + line)
        print("----", flush=True)

    def program(self, name, command, counter=None, timeout=600, env=None):
        """Runs one program as a suite."""
        begin = time.monotonic()
        status, text = self.execute(name, command, timeout, env)
        count = verdict(counter(text) if counter else None, status)
        self.note(name, count, time.monotonic() - begin)

    def later(self, *arguments, **options):
        """Runs one program as a suite beside others."""
        self.waiting.append(self.workers.submit(self.program, *arguments, **options))

    def wait(self):
        """Waits for everything that was begun with later."""
        for future in self.waiting:
            future.result()
        self.waiting = []

    def build(self, name):
        """Configures and builds; returns the folder or None. Noted as a test case of its own."""
        if name in self.built:
            return self.built[name]
        begin = time.monotonic()
        folder = os.path.join(self.root, name)
        compiler, options = BUILDS[name]
        setup = ["meson", "setup", folder, SOURCE, *options]
        if os.path.exists(os.path.join(folder, "build.ninja")):
            setup = ["meson", "setup", "--reconfigure", folder, SOURCE, *options]
        status, _ = self.execute(f"build {name}", setup, 300, {"CC": compiler})
        if status == 0:
            status, _ = self.execute(f"build {name}", ["ninja", "-C", folder, "-j2"], 900)
        self.note(f"build {name}", verdict(None, status), time.monotonic() - begin)
        self.built[name] = folder if status == 0 else None
        return self.built[name]

    def meson_suite(self, build, suite):
        """Runs the programs of a meson suite; each is noted with its own count."""
        folder = self.build(build)
        if folder is None:
            return
        name = f"{suite} {build}"
        base = f"log-{suite}"
        record = os.path.join(folder, "meson-logs", base + ".json")
        if os.path.exists(record):
            os.unlink(record)
        # Thread sanitizer of clang 14 wants the address space where older kernels put it.
        prefix = ["setarch", "-R"] if build == "tsan" else []
        self.execute(name, [*prefix, "meson", "test", "-C", folder, "--no-rebuild", "--suite",
                            suite, "--num-processes", str(AT_ONCE), "--logbase", base], 1200)
        if not os.path.exists(record):
            print(f"ok   {name:40}     0 passed: no such tests in this build", flush=True)
            return
        with open(record, encoding="utf-8", errors="replace") as rows:
            for row in rows:
                self.note_meson_test(name, json.loads(row))

    def note_meson_test(self, suite, test):
        """Notes one program of a meson suite from its record."""
        name = f"{suite} {test['name'].split(' / ')[-1].split(':')[-1]}"
        text = test.get("stdout", "") + test.get("stderr", "")
        with open(self.log_path(name), "w", encoding="utf-8") as log:
            log.write("$ " + shlex.join(test["command"]) + "\n" + text)
        status = {"OK": 0, "SKIP": 77}.get(test["result"], 1)
        self.note(name, verdict(count_check(text), status), test.get("duration", 0))


def stop_group(process):
    """Ends whatever a test left running in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def python_tests(runner, folder, builds, timeout):
    """Runs each test_*.py of a folder of tests against each of the builds."""
    path = os.path.join(SOURCE, "tests", folder)
    names = sorted(name for name in os.listdir(path)
                   if re.fullmatch(r"test_\w+\.py", name)) if os.path.isdir(path) else []
    for build in builds:
        build_folder = runner.build(build) if build else None
        if build and build_folder is None:
            continue
        for name in names:
            env = {"XVSA_BUILD": build_folder, "XVSA_SHARED": SHARED} if build else {
                "XVSA_SHARED": SHARED}
            label = f"{folder} {name[5:-3]}" + (f" {build}" if len(builds) > 1 else "")
            runner.later(label, [PYTHON, "-m", "unittest", "discover", "-v", "-s", path, "-p",
                                   name], count_unittest, timeout, env)
    runner.wait()


def suite_unit(runner, options):
    """Unit tests (Check), in every build."""
    for build in ("gcc",) if options.quick else ("gcc", "asan", "tsan"):
        runner.meson_suite(build, "unit")


def suite_fuzz(runner, options):
    """Fuzz corpora replayed, with the address sanitizer unless quick."""
    runner.meson_suite("gcc" if options.quick else "asan", "fuzz")


def suite_pool(runner, _options):
    """The pool simulator's own tests and its comparison with recorded answers."""
    python_tests(runner, "pool", [None], 600)
    compare = os.path.join(SOURCE, "tests", "pool", "compare.py")
    if os.path.exists(compare):
        runner.program("pool comparison", [PYTHON, compare, "--min", "95"], None, 600,
                       {"XVSA_SHARED": SHARED})


def suite_integration(runner, options):
    """The library and the tool against the simulator and real servers."""
    python_tests(runner, "integration", ["gcc"] if options.quick else ["gcc", "asan"], 900)


def suite_faults(runner, options):
    """Processes killed at random moments, damaged objects, disturbed connections."""
    if not options.quick:
        python_tests(runner, "faults", ["gcc"], 900)


def suite_site(runner, options):
    """Sites: several processes that work together and are lost, over SQLite and real etcd servers."""
    if options.quick:
        return
    python_tests(runner, "tasks", ["gcc", "asan"], 1200)
    python_tests(runner, "site", ["gcc"], 2400)


def suite_others(runner, _options):
    """Every other folder of tests with test_*.py, such as the independent reader of the format."""
    known = ("pool", "integration", "faults", "site", "tasks")
    for folder in sorted(os.listdir(os.path.join(SOURCE, "tests"))):
        path = os.path.join(SOURCE, "tests", folder)
        if folder not in known and os.path.isdir(path) and any(
                re.fullmatch(r"test_\w+\.py", name) for name in os.listdir(path)):
            python_tests(runner, folder, ["gcc"], 600)


def suite_gates(runner, _options):
    """Rules about the header, the symbols, the layers and the sources."""
    folder = runner.build("gcc")
    if folder is None:
        return
    path = os.path.join(SOURCE, "tests", "gates")
    for name in sorted(os.listdir(path)):
        if name.endswith(".py") and name != "gate.py":
            runner.later(f"gate {name[:-3]}", [PYTHON, os.path.join(path, name), "--source",
                                               SOURCE, "--build", folder], count_lines, 600)
    runner.wait()


def suite_examples(runner, options):
    """The examples, run to their end."""
    folder = runner.build("gcc")
    program = os.path.join(SOURCE, "examples", "quickstart")
    if folder is None or options.quick or not os.path.exists(program):
        return
    runner.program("example quickstart", [program, "--check", "--build", folder], count_lines, 600,
                   {"XVSA_SHARED": SHARED})


def suite_conversations(runner, _options):
    """What the suites before said to simulated pools, held against the published data model."""
    checked = os.path.join(SOURCE, "tests", "pool", "poolsim-checked")
    if not os.path.exists(os.path.join(SHARED, "tools", "xapi_check.py")):
        print("skip conversations: the checker is not among the shared test material", flush=True)
        return
    if os.listdir(runner.env["XVSA_CHECK_DIR"]):
        runner.program("conversations", [PYTHON, checked, "--judge",
                                         runner.env["XVSA_CHECK_DIR"]], None, 300)


SUITES = {name[6:]: function for name, function in list(globals().items())
          if name.startswith("suite_")}


def parse_options(arguments):
    """Reads the command line."""
    suites = "\n".join(f"  {name:12} {function.__doc__}" for name, function in SUITES.items())
    parser = argparse.ArgumentParser(
        prog="tests/run", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Builds the project and runs its tests. The last line is \"N passed, N failed\".",
        epilog="suites:\n" + suites)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="run only these suites")
    parser.add_argument("--quick", action="store_true",
                        help="one build, no sanitizers, no fault runs, no quickstart")
    parser.add_argument("--build", default=os.path.join(SOURCE, "build", "tests"), metavar="DIR",
                        help="folder of builds and logs (build/tests)")
    parser.add_argument("--no-install", action="store_true",
                        help="do not look for missing packages")
    parser.add_argument("--list", action="store_true", help="print the names of the suites")
    options = parser.parse_args(arguments)
    for name in options.suites:
        if name not in SUITES:
            parser.error(f"no suite \"{name}\"; there are: {', '.join(SUITES)}")
    return options


def main():
    """Runs the chosen suites; ends with 1 on any failure or when nothing ran."""
    options = parse_options(sys.argv[1:])
    if options.list:
        print("\n".join(SUITES))
        return 0
    environment = {**os.environ, **SANITIZERS, "LC_ALL": "C.UTF-8",
                   "PYTHONDONTWRITEBYTECODE": "1", "NINJA_STATUS": "[%f/%t] "}
    begin = time.monotonic()
    conversations = os.path.join(os.path.abspath(options.build), "conversations")
    shutil.rmtree(conversations, ignore_errors=True)
    os.makedirs(conversations)
    environment["XVSA_CHECK_DIR"] = conversations
    runner = Runner(os.path.abspath(options.build), environment)
    for name in options.suites or SUITES:
        SUITES[name](runner, options)
    total = runner.total
    if total.passed + total.failed == 0:
        print("no test ran")
        total.failed = 1
    print(f"{time.monotonic() - begin:.0f} s, {total.skipped} skipped, logs in "
          f"{os.path.join(runner.root, 'logs')}")
    for name in runner.failures:
        print(f"failed: {name}")
    sys.stdout.flush()
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
