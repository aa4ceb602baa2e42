# SPDX-License-Identifier: LGPL-2.1-or-later
"""The HTTP server of one host, with the real server's limits and manners.

A request head may have 1024 bytes, an RPC body 300 KiB and must announce its length; chunked
requests are not understood and "100 Continue" is never sent.
"""

import contextlib
import socket
import ssl
import threading
import time
import urllib.parse

from .errors import CutConnection

HEAD_LIMIT = 1024
BODY_LIMIT = 300 * 1024
HEAD_READ_TIMEOUT, HEAD_TOTAL_TIMEOUT = 10.0, 60.0
REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorised", 403: "Forbidden",
           404: "Not Found", 408: "Request timeout", 431: "Request Header Fields Too Large",
           500: "Internal Error", 501: "Method not implemented"}
CORS = [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "X-Requested-With")]


class HttpError(Exception):
    """Answer with this status and close."""

    def __init__(self, status, body="", headers=()):
        super().__init__(status, body)
        self.status, self.body, self.headers = status, body, list(headers)


def error_page(status, text=""):
    """The server's error pages."""
    if status == 500:
        return ("<html><body><h1>HTTP 500 internal server error</h1>An unexpected error occurred; "
                "please wait a while and try again. If the problem persists, please contact your "
                "support representative.<h1> Additional information </h1>%s</body></html>" % text)
    if status == 501:
        return ("<html><body><h1>HTTP 501 Method Not Implemented</h1><p>%s not supported.<br />"
                "</p></body></html>" % text)
    return {
        400: "<html><body><h1>HTTP 400 bad request</h1>%s</body></html>" % text,
        401: "<html><body><h1>HTTP 401 unauthorised</h1>Please check your credentials and retry."
             "</body></html>",
        403: "<html><body><h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden."
             "</body></html>",
        404: "<html><body><h1>HTTP 404 not found</h1>The requested resource was not found."
             "</body></html>",
        408: "<html><body><h1>HTTP 408 request timeout</h1>Timed out waiting for the request."
             "</body></html>",
        431: "<html><body><h1>HTTP 431 request header fields too large</h1>Exceeded the maximum "
             "header size.</body></html>",
    }.get(status, "")


class Request:
    """One request: head parsed, body still to be read from `rfile`."""

    def __init__(self, connection, head):
        self.connection = connection
        self.rfile, self.wfile = connection.rfile, connection.wfile
        self.peer, self.sock = connection.peer, connection.sock
        lines = head.split("\r\n") if "\r\n" in head else head.split("\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/"):
            raise HttpError(500, "Bad request line")
        self.method, self.target, self.version = parts
        self.path, _, query = self.target.partition("?")
        self.path = urllib.parse.unquote(self.path)
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        self.query_text = query
        self.headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()
        wish = self.headers.get("connection", "").lower()
        self.keep_alive = wish != "close" if self.version == "HTTP/1.1" else wish == "keep-alive"

    @property
    def length(self):
        """Announced body length or None."""
        text = self.headers.get("content-length")
        return int(text) if text and text.isdigit() else None

    @property
    def cookies(self):
        text = self.headers.get("cookie", "").replace("&", ";")
        pairs = (p.partition("=") for p in text.split(";"))
        return {k.strip(): urllib.parse.unquote(v.strip()) for k, _, v in pairs if k.strip()}

    def reply(self, status, body, headers=(), content_type=None, close=False):
        """Send a whole response with its length; golden header order."""
        data = body.encode() if isinstance(body, str) else body
        keep = self.keep_alive and not close
        lines = ["%s %d %s" % (self.version if status == 200 else "HTTP/1.1", status,
                               REASONS.get(status, "")), "content-length: %d" % len(data)]
        if status != 200:
            lines.append("content-type: text/html")
        lines += ["connection: %s" % ("keep-alive" if keep else "close"),
                  "cache-control: no-cache, no-store"]
        if content_type:
            lines.append("content-type: " + content_type)
        lines += ["%s: %s" % h for h in headers]
        self.wfile.write(("\r\n".join(lines) + "\r\n\r\n").encode() + data)
        self.wfile.flush()
        self.keep_alive = keep

    def fail(self, status, text="", headers=()):
        self.reply(status, error_page(status, text), headers, close=True)

    def read_body(self):
        """The whole body of an RPC."""
        if self.length is None:
            raise HttpError(500, "Http.Client_requested_size_over_limit"
                            if "transfer-encoding" in self.headers else
                            "Failure(\"content length not specified\")")
        if self.length > BODY_LIMIT:
            raise HttpError(500, "Http.Client_requested_size_over_limit")
        data = self.rfile.read(self.length)
        if len(data) < self.length:
            raise CutConnection()
        return data


class Connection:
    """A client's connection; requests are served one after the other."""

    def __init__(self, server, sock, peer):
        self.server, self.sock, self.peer = server, sock, peer
        self.rfile = self.wfile = None

    def serve(self):
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server.tls:
                self.sock.settimeout(HEAD_TOTAL_TIMEOUT)
                self.sock = self.server.tls().wrap_socket(self.sock, server_side=True)
            self.rfile = self.sock.makefile("rb", 65536)
            self.wfile = self.sock.makefile("wb", 65536)
            first = True
            while self.serve_one(first):
                first = False
        except CutConnection as cut:
            self.last_words(cut.data)
        except (OSError, ssl.SSLError, ValueError):
            pass  # the client is gone or was cut off on purpose
        finally:
            self.close()

    def last_words(self, data):
        with contextlib.suppress(OSError, ValueError):
            self.wfile.write(data)
            self.wfile.flush()

    def serve_one(self, first):
        try:
            head = self.read_head(first)
            if head is None:
                return False
            request = Request(self, head)
        except HttpError as error:
            data = error_page(error.status, error.body).encode()
            self.wfile.write(("HTTP/1.1 %d %s\r\ncontent-length: %d\r\ncontent-type: text/html\r\n"
                              "connection: close\r\ncache-control: no-cache, no-store\r\n\r\n"
                              % (error.status, REASONS[error.status], len(data))).encode() + data)
            self.wfile.flush()
            return False
        try:
            self.server.handler(request)
            self.wfile.flush()
        except HttpError as error:
            request.fail(error.status, error.body, error.headers)
        return request.keep_alive

    def read_head(self, first):
        """Text up to the empty line, or None at the end of the connection."""
        deadline = time.monotonic() + HEAD_TOTAL_TIMEOUT
        self.sock.settimeout(HEAD_READ_TIMEOUT if first else None)
        head = b""
        try:
            while True:
                line = self.rfile.readline(HEAD_LIMIT + 1 - len(head))
                if not line:
                    return None
                if line in (b"\r\n", b"\n"):
                    if head:
                        break
                    continue
                head += line
                if len(head) + 2 > HEAD_LIMIT:
                    raise HttpError(431)
                if first and time.monotonic() > deadline:
                    raise HttpError(408)
        except TimeoutError as error:
            raise HttpError(408) from error
        self.sock.settimeout(None)
        return head.decode("latin-1").rstrip("\r\n")

    def close(self):
        for item in (self.rfile, self.wfile, self.sock):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                item.close()
        self.server.forget(self)

    def abort(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Server:
    """Listens at one address. `tls` is a function that makes a context, or None."""

    def __init__(self, address, port, handler, tls=None):
        self.handler, self.tls = handler, tls
        self.address = address
        self.lock = threading.Lock()
        self.connections = set()
        self.sock = None
        self.port = port
        self.listen()

    def listen(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self.address, self.port))
        except OSError:
            sock.close()
            raise
        sock.listen(128)
        self.sock, self.port = sock, sock.getsockname()[1]

    def start(self):
        threading.Thread(target=self.accept, args=(self.sock,), daemon=True,
                         name="http-%s" % self.address).start()

    def accept(self, sock):
        while True:
            try:
                client, peer = sock.accept()
            except OSError:
                return
            connection = Connection(self, client, "%s:%d" % peer[:2])
            with self.lock:
                self.connections.add(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def forget(self, connection):
        with self.lock:
            self.connections.discard(connection)

    def stop(self):
        """Close the port and cut every connection, as a dead host does."""
        sock, self.sock = self.sock, None
        if sock:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        with self.lock:
            victims = list(self.connections)
        for connection in victims:
            connection.abort()

    def restart(self):
        if self.sock is None:
            self.listen()
            self.start()
