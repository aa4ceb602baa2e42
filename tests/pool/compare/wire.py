# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw HTTP exchanges and the two RPC encodings, as a recorded client used them.

Requests are sent byte for byte over a plain socket, because the record holds requests that
no HTTP library would send (no length, broken XML, unknown verbs).
"""

import json
import socket
import time
import xml.etree.ElementTree as ElementTree
from xml.sax.saxutils import escape


class DateTime(str):
    """A dateTime.iso8601 value; a type of its own, unlike in JSON where it is a string."""


class Reply:
    """One HTTP answer: version ("1.1"), status, lower-case header names, body."""

    def __init__(self, version="", status=0, headers=None, body=b""):
        self.version = version
        self.status = status
        self.headers = headers or {}
        self.body = body


def parse_head(head):
    """Parses a response head (str, no blank line at its end) into a Reply without body."""
    lines = head.split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        return Reply()
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Reply(words[0][5:], int(words[1]), headers)


def split_reply(data):
    """Splits received bytes into head and the body received so far; None: head incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    reply = parse_head(data[:end].decode("latin-1"))
    reply.body = bytes(data[end + 4:])
    return reply


def is_complete(data):
    """Tells whether data holds a whole answer of a connection that is kept open."""
    reply = split_reply(data)
    if reply is None or reply.headers.get("connection", "").lower() == "close":
        return False
    length = reply.headers.get("content-length")
    return length is not None and len(reply.body) >= int(length)


def send_body(sock, body):
    """Sends the body; a server may close before it has read everything, as the real one does."""
    try:
        sock.sendall(body)
    except (BrokenPipeError, ConnectionResetError):
        pass


def exchange(address, request, body=b"", timeout=20.0):
    """Sends one request and reads its answer until the end, a close or timeout seconds.

    Returns a Reply; its status is 0 when nothing that looks like HTTP came back.
    """
    data = bytearray()
    with socket.create_connection(address, timeout=timeout) as sock:
        sock.sendall(request)
        send_body(sock, body)
        deadline = time.monotonic() + timeout
        while not is_complete(data):
            sock.settimeout(max(0.05, deadline - time.monotonic()))
            try:
                piece = sock.recv(1 << 20)
            except (socket.timeout, ConnectionResetError):
                break
            if not piece:
                break
            data += piece
    return split_reply(data) or Reply()


def post(address, path, text, content_type="text/xml"):
    """POSTs an RPC request text to path and returns the Reply."""
    body = text.encode()
    head = (f"POST {path} HTTP/1.1\r\nHost: {address[0]}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    return exchange(address, head.encode(), body)


def decode_value(node):
    """Decodes a <value> element into str, bool, int, float, DateTime, None, list or dict."""
    if len(node) == 0:
        return node.text or ""
    child = node[0]
    text = child.text or ""
    decoders = {
        "string": lambda: text, "boolean": lambda: text.strip() == "1",
        "int": lambda: int(text), "i4": lambda: int(text), "i8": lambda: int(text),
        "double": lambda: float(text), "dateTime.iso8601": lambda: DateTime(text),
        "nil": lambda: None,
        "array": lambda: [decode_value(item) for item in child.find("data")],
        "struct": lambda: {member.findtext("name") or "": decode_value(member.find("value"))
                           for member in child},
    }
    return decoders[child.tag]()


def decode_request(text):
    """Returns (method, parameters) of an XML-RPC call."""
    root = ElementTree.fromstring(text)
    return (root.findtext("methodName"),
            [decode_value(item.find("value")) for item in root.iterfind("params/param")])


def encode_value(value):
    """Encodes a Python value as an XML-RPC <value>."""
    if isinstance(value, bool):
        inner = f"<boolean>{int(value)}</boolean>"
    elif isinstance(value, int):
        inner = f"<i4>{value}</i4>"
    elif isinstance(value, float):
        inner = f"<double>{value}</double>"
    elif isinstance(value, list):
        inner = f"<array><data>{''.join(map(encode_value, value))}</data></array>"
    elif isinstance(value, dict):
        members = "".join(f"<member><name>{escape(name)}</name>{encode_value(item)}</member>"
                          for name, item in value.items())
        inner = f"<struct>{members}</struct>"
    else:
        inner = f"<string>{escape(value)}</string>"
    return f"<value>{inner}</value>"


def encode_request(method, params):
    """Encodes an XML-RPC call."""
    items = "".join(f"<param>{encode_value(item)}</param>" for item in params)
    return (f'<?xml version="1.0"?><methodCall><methodName>{escape(method)}</methodName>'
            f"<params>{items}</params></methodCall>")


class Outcome:
    """What an RPC answer says: kind is Success, Failure, Fault, bare or unreadable.

    value is the result, or the error's code and parameters; count is how many parameters.
    """

    def __init__(self, kind, value=None, code="", count=0):
        self.kind = kind
        self.value = value
        self.code = code
        self.count = count

    def __str__(self):
        if self.kind == "Failure":
            return f"{self.code} with {self.count} parameters"
        return self.kind


def failure(description):
    """Outcome of a list that holds an error code and its parameters."""
    return Outcome("Failure", description, description[0], len(description) - 1)


def read_xml_outcome(text):
    """Reads an XML-RPC answer into an Outcome."""
    root = ElementTree.fromstring(text)
    if root.find("fault") is not None:
        return Outcome("Fault")
    value = decode_value(root.find("params/param/value"))
    if not isinstance(value, dict) or "Status" not in value:
        return Outcome("bare", value)
    if value["Status"] == "Success":
        return Outcome("Success", value.get("Value", ""))
    return failure(value["ErrorDescription"])


def read_json_outcome(text):
    """Reads a JSON-RPC answer (1.0 or 2.0) into an Outcome."""
    answer = json.loads(text)
    error = answer.get("error")
    if isinstance(error, list):
        return failure(error)
    if error is not None:
        return failure([error["message"], *(error.get("data") or [])])
    return Outcome("Success", answer["result"])


def read_outcome(text):
    """Reads an RPC answer of either encoding into an Outcome."""
    try:
        if text.lstrip().startswith("{"):
            return read_json_outcome(text)
        return read_xml_outcome(text)
    except (ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Outcome("unreadable")
