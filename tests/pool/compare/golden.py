# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replays the golden record: what xapi 24.11 answered, call by call, in the recorded order."""

import json
import re
import time

from references import References
from shape import differences, shape_of
from values import differing
from wire import encode_request, exchange, parse_head, post, read_outcome

TASK_TIMEOUT = 60.0  # seconds a task of the story may take
TASK_RESULT = re.compile(r"<value>(OpaqueRef:[^<]*)</value>")
PATTERN = bytes(range(256)) * 4096  # content of uploaded disks, 1 MiB


class Result:
    """One compared call: its source and number in the record, its name and what differed."""

    def __init__(self, source, number, name, method, found):
        self.source = source
        self.number = number
        self.name = name
        self.method = method
        self.found = found


def read_lines(path):
    """Reads a file of one JSON document a line."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def compare_rpc(recorded, answered, subset=False):
    """Lists the differences between two RPC outcomes."""
    if recorded.kind != answered.kind:
        return [f"recorded {recorded}, answered {answered}"]
    if recorded.kind == "Failure":
        if (recorded.code, recorded.count) != (answered.code, answered.count):
            return [f"recorded {recorded}, answered {answered}"]
        return []
    return (compare_tasks(recorded.value, answered.value)
            + differences(shape_of(recorded.value), shape_of(answered.value), subset))


def compare_tasks(recorded, answered):
    """Compares how two tasks ended; nothing is found when they are not task records."""
    for record in (recorded, answered):
        if not isinstance(record, dict) or "error_info" not in record:
            return []
    ends = []
    for record in (recorded, answered):
        info = record["error_info"]
        end = record["status"]
        ends.append(f"{end}: {info[0]} with {len(info) - 1} parameters" if info else end)
    return [] if ends[0] == ends[1] else [f"task: recorded {ends[0]}, answered {ends[1]}"]


def compare_head(recorded, answered):
    """Compares version, status and header names of two HTTP heads."""
    found = []
    ends = [f"{reply.version} {reply.status}" if reply.status else "no answer"
            for reply in (recorded, answered)]
    if ends[0] != ends[1]:
        found.append(f"HTTP: recorded {ends[0]}, answered {ends[1]}")
    missing = sorted(recorded.headers.keys() - answered.headers.keys())
    extra = sorted(answered.headers.keys() - recorded.headers.keys())
    if missing:
        found.append(f"headers missing: {' '.join(missing)}")
    if extra:
        found.append(f"headers added: {' '.join(extra)}")
    return found


def body_kind(body, size):
    """Names what a body of size bytes is, from its first bytes."""
    if not size:
        return "an empty body"
    if body.startswith(b"HTTP/1."):
        return "a second answer in the body"
    for mark, name in ((b"<html", "a page"), (b"<?xml", "an RPC answer")):
        if body.startswith(mark):
            return name
    return "data"


class Story:
    """Replays the record against the simulator at address (host, port) and compares."""

    def __init__(self, folder, steps, address):
        self.calls = read_lines(f"{folder}/calls.jsonl")
        self.lines = read_lines(f"{folder}/http.jsonl")
        self.steps = steps
        self.address = address
        self.names = References()
        self.session = ""
        self.archives = {}
        self.unidentified = []
        self.notes = []

    def run(self):
        """Replays everything; returns a list of Result in the order of the record."""
        self.session = self.own_session()
        self.identify_scene()
        results = []
        for number, call in enumerate(self.calls):
            results += self.take_steps(number)
            results.append(self.replay_call(number, call))
        return results + self.take_steps(len(self.calls))

    def request(self, method, *params):
        """Makes a call of the comparer's own; returns its Outcome."""
        reply = post(self.address, "/RPC2", encode_request(method, list(params)))
        return read_outcome(reply.body.decode("utf-8", "replace"))

    def own_session(self):
        """Logs in; this session carries the steps that the record leaves out."""
        outcome = self.request("session.login_with_password", "root",
                               self.steps["password"]["sent"], "1.0", "compare")
        if outcome.kind != "Success":
            raise SystemExit(f"compare: login at the simulator failed: {outcome}")
        return outcome.value

    def identify_scene(self):
        """Maps the objects that were there when the record began."""
        recorded = read_outcome(self.calls[self.steps["scene"]]["response"]).value
        answered = self.request("event.from", self.session, ["*"], "", 1.0)
        if answered.kind != "Success":
            raise SystemExit(f"compare: event.from failed at the simulator: {answered}")
        self.unidentified = self.names.identify(recorded["events"], answered.value["events"])

    def replay_call(self, number, call):
        """Sends one recorded call and compares its answer."""
        password = self.steps["password"]
        text = self.names.translate(call["request"]).replace(password["recorded"],
                                                              password["sent"])
        json_call = call["path"] == "/jsonrpc"
        reply = post(self.address, call["path"], text,
                     "application/json" if json_call else "text/xml")
        recorded = read_outcome(call["response"])
        answered = read_outcome(reply.body.decode("utf-8", "replace"))
        head = "\r\n".join([f"HTTP/1.1 {call['status']} OK"]
                           + [f"{name}: {value}" for name, value in call["headers"].items()])
        found = compare_head(parse_head(head), reply) + compare_rpc(recorded, answered)
        self.names.learn(recorded.value, answered.value)
        self.notes += [f"calls {number}: {call['name']} [{call['method']}] {text}"
                       for text in differing(self.names, recorded.value, answered.value)]
        if call["method"].startswith("Async.") and answered.kind == "Success":
            self.wait(answered.value)
        return Result("calls", number, call["name"], call["method"], found)

    def wait(self, task):
        """Waits for a task to end; returns its record, or an empty one when it is gone."""
        deadline = time.monotonic() + TASK_TIMEOUT
        while time.monotonic() < deadline:
            outcome = self.request("task.get_record", self.session, task)
            if outcome.kind != "Success":
                return {}
            if outcome.value["status"] != "pending":
                return outcome.value
            time.sleep(0.05)
        return {}

    def take_steps(self, number):
        """Takes the steps that come before a recorded call; returns the compared ones."""
        results = []
        for step in self.steps["steps"]:
            if step["before"] != number:
                continue
            if "call" in step:
                self.make_call(step)
            elif "put" in step:
                self.transfer("PUT", self.names.translate(step["put"]), {},
                              self.archives.get(step["body"], b""))
                self.wait_for_task(self.names.translate(step["put"]))
            else:
                results += [self.replay_line(line) for line in step["lines"]]
        return results

    def make_call(self, step):
        """Makes a call that the record leaves out and maps what it made."""
        params = json.loads(self.names.translate(json.dumps(step["params"])))
        outcome = self.request(step["call"], self.session, *params)
        if outcome.kind != "Success":
            print(f"compare: step {step['call']} before call {step['before']}: {outcome}")
            return
        made = outcome.value
        if step["call"].startswith("Async."):
            self.names.add(step.get("task"), made)
            found = TASK_RESULT.fullmatch(self.wait(made).get("result", ""))
            made = found.group(1) if found else ""
        self.names.add(step.get("result"), made)

    def transfer(self, method, target, headers, body, version="1.1", length=True):
        """Sends one request that is no RPC; returns the Reply."""
        lines = [f"{method} {target} HTTP/{version}", f"Host: {self.address[0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length and (body or method == "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines) + "\r\n\r\n"
        return exchange(self.address, head.encode(), body)

    def replay_line(self, number):
        """Sends one recorded HTTP request and compares head and kind of body."""
        line = self.lines[number]
        name = line["name"].split(" (")[0]
        headers = {key: value for key, value in line["request_headers"].items()
                   if key not in ("Host", "Content-Length")}
        target = self.names.translate(line["target"])
        reply = self.transfer(line["method"], target, headers, self.body_of(name, line["sent"]),
                              "1.0" if "HTTP/1.0" in name else "1.1",
                              "Content-Length" in line["request_headers"])
        if name in ("export", "export_metadata"):
            self.archives[name] = reply.body
        self.wait_for_task(target)
        recorded = parse_head(line["response_head"])
        found = compare_head(recorded, reply)
        kinds = [body_kind(line["body_start"].encode(), line["body_bytes"]),
                 body_kind(reply.body, len(reply.body))]
        if kinds[0] != kinds[1]:
            found.append(f"recorded {kinds[0]}, answered {kinds[1]}")
        elif "export_raw_vdi" in name and kinds[0] == "data":
            found += self.compare_sizes(line["body_bytes"], len(reply.body))
        return Result("http", number, name, line["method"], found)

    @staticmethod
    def compare_sizes(recorded, answered):
        """Compares the lengths of two disk images."""
        if recorded == answered:
            return []
        return [f"recorded {recorded} bytes, answered {answered}"]

    def wait_for_task(self, target):
        """Waits for the task that a request target names, if it names one."""
        found = re.search(r"[?&]task_id=(OpaqueRef:[^&]*)", target)
        if found:
            self.wait(found.group(1))

    def body_of(self, name, size):
        """Returns the body to send with a recorded HTTP request."""
        if name in self.steps["bodies"]:
            return self.steps["bodies"][name].encode()
        if name in self.steps["zeros"]:
            return bytes(size)
        archive = self.steps["archives"].get(name, "")
        body = self.archives.get(archive.removeprefix("damaged "), b"")
        if archive.startswith("damaged "):
            return body.replace(b"<value>", b"<walue>", 1)
        return body or (PATTERN * (size // len(PATTERN) + 1))[:size]

