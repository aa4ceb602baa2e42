#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the comparer itself: it must see each kind of difference it promises to see."""

import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "compare"))

import cassette  # noqa: E402
import golden  # noqa: E402
import wire  # noqa: E402
from references import References  # noqa: E402
from shape import differences, shape_of  # noqa: E402
from values import differing  # noqa: E402

ONE = "OpaqueRef:11111111-1111-1111-1111-111111111111"
TWO = "OpaqueRef:22222222-2222-2222-2222-222222222222"


def success(value):
    """Text of a successful answer."""
    return ("<methodResponse><params><param><value><struct><member><name>Status</name><value>"
            "Success</value></member><member><name>Value</name>" + value
            + "</member></struct></value></param></params></methodResponse>")


def outcome(kind, value=None, code="", count=0):
    """An Outcome with the given members."""
    return wire.Outcome(kind, value, code, count)


class Shapes(unittest.TestCase):
    """Types and member names."""

    def check(self, recorded, answered, text=None, **options):
        """Compares two values and expects one difference that holds text, or none."""
        found = differences(shape_of(recorded), shape_of(answered), **options)
        self.assertEqual(len(found), 0 if text is None else 1, found)
        if text is not None:
            self.assertIn(text, found[0])

    def test_data_is_no_difference(self):
        self.check({"uuid": "a", "n": "1"}, {"uuid": "b", "n": "2"})
        self.check({"x": "a"}, {"y": "b"})
        self.check([], ["a"])
        self.check({}, {"y": "b"})

    def test_types(self):
        self.check("1", 1, "recorded string, answered int")
        self.check(True, "true", "recorded boolean, answered string")
        self.check(1.0, "1", "recorded double, answered string")
        self.check([], {}, "recorded array, answered struct")
        self.check({"x": "a"}, {"x": True}, "value[]: recorded string, answered boolean")
        self.check(wire.DateTime("20260101T00:00:00Z"), "20260101T00:00:00Z", "dateTime")

    def test_members(self):
        record = {"uuid": "a", "tags": [], "size": "1"}
        self.check(record, {"uuid": "a", "tags": []}, "members missing: size")
        self.check(record, {**record, "new": ""}, "members added: new")
        self.check(record, {**record, "new": ""}, subset=True)
        self.check({ONE: record}, {TWO: {**record, "tags": {}}}, "tags: recorded array")

    def test_records_that_are_not_answered(self):
        self.check({ONE: {"uuid": "a"}}, {}, "recorded records, answered none")

    def test_events(self):
        event = {"class": "vm", "operation": "add", "ref": ONE, "snapshot": {"uuid": "a"}}
        other = {**event, "class": "vdi", "snapshot": {"uuid": "a", "SR": ONE}}
        self.check([event, other], [other, event])
        self.check([event, other], [event], "no event of class vdi")
        self.check([event], [{**event, "snapshot": {"uuid": "a", "x": ""}}], "members added: x")


class Answers(unittest.TestCase):
    """Status, error codes, tasks and heads."""

    def test_status(self):
        found = golden.compare_rpc(outcome("Success", ""), outcome("Failure", code="E"))
        self.assertEqual(found, ["recorded Success, answered E with 0 parameters"])

    def test_errors(self):
        recorded = outcome("Failure", code="HANDLE_INVALID", count=2)
        self.assertEqual(golden.compare_rpc(recorded, recorded), [])
        for other in (outcome("Failure", code="HANDLE_INVALID", count=1),
                      outcome("Failure", code="UUID_INVALID", count=2)):
            self.assertEqual(len(golden.compare_rpc(recorded, other)), 1)

    def test_task_ends(self):
        task = {"uuid": "a", "status": "success", "error_info": []}
        failed = {**task, "status": "failure", "error_info": ["IMPORT_ERROR", "x"]}
        self.assertEqual(golden.compare_tasks(task, task), [])
        self.assertEqual(len(golden.compare_tasks(task, failed)), 1)

    def test_heads(self):
        head = wire.parse_head("HTTP/1.1 200 OK\r\ntask-id:x\r\nConnection: close")
        self.assertEqual(golden.compare_head(head, head), [])
        other = wire.parse_head("HTTP/1.0 200 OK\r\nConnection: close\r\nServer: x")
        self.assertEqual(len(golden.compare_head(head, other)), 3)
        self.assertEqual(golden.compare_head(head, wire.Reply())[0],
                         "HTTP: recorded 1.1 200, answered no answer")

    def test_encodings(self):
        answer = wire.read_outcome(success("<value><array><data><value>1</value><value><boolean>1"
                                           "</boolean></value></data></array></value>"))
        self.assertEqual((answer.kind, answer.value), ("Success", ["1", True]))
        answer = wire.read_outcome('{"error": {"code": 1, "message": "E", "data": ["a"]}}')
        self.assertEqual((answer.code, answer.count), ("E", 1))
        self.assertEqual(wire.read_outcome("<oops").kind, "unreadable")
        text = wire.encode_request("VM.x", [{"a<": ["&", 1, True, 1.5]}])
        self.assertEqual(wire.decode_request(text), ("VM.x", [{"a<": ["&", 1, True, 1.5]}]))


class Names(unittest.TestCase):
    """The mapping of references."""

    def test_learning(self):
        names = References()
        names.learn({"VM": ONE, "x": [ONE]}, {"VM": TWO, "x": [TWO]})
        self.assertEqual(names.translate(f"<v>{ONE}</v>"), f"<v>{TWO}</v>")
        self.assertEqual(names.translate("vdi=OpaqueRef:........" + ONE[18:]), f"vdi={TWO}")

    def test_scene(self):
        def event(kind, ref, **record):
            return {"class": kind, "operation": "add", "ref": ref, "snapshot": record}
        names = References()
        missing = names.identify(
            [event("host", ONE, name_label="h"), event("sr", "OpaqueRef:x", name_label="gone")],
            [event("host", TWO, name_label="h")])
        self.assertEqual(names.known[ONE], TWO)
        self.assertEqual(missing, [("sr", "OpaqueRef:x")])


class Values(unittest.TestCase):
    """The notes on differing values."""

    def test_values(self):
        names = References()
        names.add(ONE, TWO)
        self.assertEqual(differing(names, {"a": ["x", "y"], "r": ONE}, {"a": ["y", "x"], "r": TWO}),
                         [])
        self.assertEqual(differing(names, {"a": "1"}, {"a": "2"}),
                         ["value.a: recorded '1', answered '2'"])
        self.assertEqual(differing(names, ["x"], ["y"]),
                         ['value: missing "x"', 'value: added "y"'])
        self.assertEqual(len(differing(names, {"r": ONE}, {"r": ONE})), 1)


class Cassettes(unittest.TestCase):
    """The reader of cassettes and the writer of databases."""

    def test_scalars(self):
        self.assertEqual(cassette.read_string('string: "a\\n\\"b\\"\n        c"\n  x: y'),
                         'a\n"b" c')
        self.assertEqual(cassette.read_string("string: |\n        <a>\n        </a>\n    next: 1"),
                         "<a>\n</a>")

    def test_columns(self):
        self.assertEqual(cassette.column_text({"a": "it's", "b": ""}), "(('a' 'it\\'s') ('b' ''))")
        self.assertEqual(cassette.column_text("a  b%\n"), "a%_%_b%%%n")


class RecordedAnswers(unittest.TestCase):
    """The simulator answers as the recorded servers did."""

    def test_replay(self):
        process = subprocess.run([sys.executable, os.path.join(HERE, "compare.py")],
                                 capture_output=True, text=True, check=False)
        if process.returncode == 77:
            print(process.stdout, end="", file=sys.stderr)
            self.skipTest("fixtures not present")
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)


if __name__ == "__main__":
    unittest.main()
