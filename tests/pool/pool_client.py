# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small XenAPI client for the simulator's own tests, written without the simulator's code."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree


class XenError(Exception):
    """A failure: args[0] is the list of code and parameters."""

    @property
    def code(self):
        return self.args[0][0]

    @property
    def params(self):
        return self.args[0][1:]


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def encode(value):
    if isinstance(value, bool):
        return "<value><boolean>%d</boolean></value>" % value
    if isinstance(value, int):
        return "<value><string>%d</string></value>" % value
    if isinstance(value, float):
        return "<value><double>%r</double></value>" % value
    if isinstance(value, str):
        return "<value><string>%s</string></value>" % escape(value)
    if isinstance(value, (list, tuple)):
        return "<value><array><data>%s</data></array></value>" % "".join(map(encode, value))
    return "<value><struct>%s</struct></value>" % "".join(
        "<member><name>%s</name>%s</member>" % (escape(k), encode(v)) for k, v in value.items())


def decode(element):
    if len(element) == 0:
        return element.text or ""
    child = element[0]
    if child.tag == "struct":
        return {m[0].text or "": decode(m[1]) for m in child}
    if child.tag == "array":
        return [decode(v) for v in child[0]]
    if child.tag == "boolean":
        return child.text == "1"
    if child.tag == "double":
        return float(child.text)
    if child.tag == "i4":
        return int(child.text)
    return child.text or ""


def method_call(method, params):
    return ("<?xml version=\"1.0\"?><methodCall><methodName>%s</methodName><params>%s</params>"
            "</methodCall>" % (method, "".join("<param>%s</param>" % encode(p) for p in params)))


class Client:
    """One connection and one session."""

    def __init__(self, url, user="root", password="password", originator="test", login=True,
                 ca=None):
        parts = urllib.parse.urlsplit(url)
        self.address = parts.hostname, parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            self.connection = http.client.HTTPSConnection(*self.address, timeout=30,
                                                          context=context)
        else:
            self.connection = http.client.HTTPConnection(*self.address, timeout=30)
        self.session = None
        if login:
            self.session = self.raw("session.login_with_password", user, password, "1.0",
                                    originator)

    def __del__(self):
        self.connection.close()

    def body(self, method, *params):
        """The bytes of an answer."""
        self.connection.request("POST", "/", method_call(method, params).encode())
        return self.connection.getresponse().read()

    def raw(self, method, *params):
        value = decode(ElementTree.fromstring(self.body(method, *params)).find(
            "params/param/value"))
        if isinstance(value, dict) and value.get("Status") == "Failure":
            raise XenError(value["ErrorDescription"])
        return value["Value"] if isinstance(value, dict) else value

    def __call__(self, method, *params):
        return self.raw(method, self.session, *params)

    def fails(self, method, *params):
        """The error description of a call that must fail."""
        try:
            value = self(method, *params)
        except XenError as error:
            return error.args[0]
        raise AssertionError("%s did not fail but answered %r" % (method, value))

    def wait(self, method, *params):
        """The finished record of an Async call's task."""
        return self.finish(self("Async." + method, *params))

    def finish(self, task, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self("task.get_record", task)
            if record["status"] != "pending":
                return record
            time.sleep(0.02)
        raise AssertionError("task is still pending")

    def named(self, cls, name):
        return self(cls + ".get_by_name_label", name)[0]

    def http(self, method, path, body=None, headers=None, **query):
        """(status, headers, body) of a bulk request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path + "?" + urllib.parse.urlencode(query), body,
                               headers or {})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()


def control(url, action, **arguments):
    """One request of the control interface."""
    request = urllib.request.Request(url + action, json.dumps(arguments).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["error"]) from error
