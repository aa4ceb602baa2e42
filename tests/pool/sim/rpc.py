# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a host answers over HTTP: the two RPC encodings and the way to the bulk handlers."""

from . import codec
from .errors import ApiError
from .httpd import CORS, HttpError


class HostHandler:
    """Routes the requests of one host; `bulk` maps (method, path) to functions(request, host)."""

    def __init__(self, pool, host, dispatcher, bulk):
        self.pool, self.host, self.dispatcher, self.bulk = pool, host, dispatcher, bulk

    def __call__(self, request):
        if request.method in ("GET", "PUT", "POST"):
            handler = self.find_bulk(request)
            if handler:
                request.keep_alive = False
                handler(request, self.host)
                return
        if request.method == "POST":
            if request.path.startswith("/jsonrpc") and self.pool.newer("falcon"):
                self.json(request)
            else:
                self.xml(request)
        elif request.method == "OPTIONS":
            request.reply(200, "", CORS + [("Access-Control-Allow-Methods", "PUT")])
        elif request.method == "GET" and request.path == "/":
            request.reply(200, "<html><body>XenServer</body></html>", content_type="text/html")
        elif request.method == "GET":
            request.fail(404)
        elif request.method == "PUT":
            request.fail(403)
        else:
            request.fail(501, "Unknown " + request.method)

    def find_bulk(self, request):
        """The handler with the longest matching path."""
        found = [path for method, path in self.bulk
                 if method == request.method and request.path.startswith(path)]
        return self.bulk[(request.method, max(found, key=len))] if found else None

    def call(self, request, method, params):
        return self.dispatcher.run(self.host, method, params, request.peer)

    def xml(self, request):
        body = request.read_body()
        try:
            method, params = codec.parse_call(body)
        except codec.ParseError as error:
            raise HttpError(500, str(error)) from error
        model = self.pool.model
        try:
            type_, value = self.call(request, method, params)
            with self.pool.lock:
                if method.replace("_", ".", 1) == "system.listMethods":  # the one bare answer
                    reply = codec.method_response(codec.encode(type_, value, model))
                else:
                    reply = codec.success(self.encode(type_, value, model))
        except ApiError as error:
            reply = codec.failure(error.description())
        request.reply(200, reply, CORS, "text/xml")

    def encode(self, type_, value, model):
        if value is None or type_.kind == "V":
            return "<value></value>"
        return codec.encode(type_, value, model)

    def json(self, request):
        body = request.read_body()
        try:
            method, params, id_, version = codec.parse_json_call(body)
        except codec.ParseError as error:
            raise HttpError(500, str(error)) from error
        model = self.pool.model
        try:
            type_, value = self.call(request, method, params)
            with self.pool.lock:
                result = "" if value is None or type_.kind == "V" else \
                    codec.json_value(type_, value, model)
            reply = codec.json_response(id_, version, result)
        except ApiError as error:
            reply = codec.json_response(id_, version, error=error.description())
        request.reply(200, reply, CORS, "application/json")
