# SPDX-License-Identifier: LGPL-2.1-or-later
"""HTTP export and import of single disks, with the pool's manners.

A 200 comes before the work begins; a later failure is a second HTTP message inside the body, and
the verdict is the task's. Both handlers answer everything themselves, set ``request.keep_alive`` to
False and return; the caller then closes the connection (every reply says so).

``export_raw_vdi(request, context)`` and ``import_raw_vdi(request, context)`` need of the request:

    method, path    "GET", "/export_raw_vdi"
    target          the request target as received, with its query
    query           dict of decoded parameters (cookies that carry session_id or task_id included)
    headers         dict, names in lower case
    rfile, wfile    binary streams of the connection
    sock            the connected socket (a plain one is served with sendfile)

and of the context, the owner's objects behind one connection to one host:

    authenticate(request)         raises ApiError: RBAC_PERMISSION_DENIED becomes 403, others 401
    find_vdi(ref_or_uuid)         record with ref, uuid, sr (ref), size, image_format
                                  ("vhd", "qcow2" or "raw"), or ApiError, which becomes 500
    find_sr(ref_or_uuid)          reference of a storage repository, or ApiError
    redirect_target(sr)           None if this host reaches it, else the base URL of one that does
                                  ("https://10.0.0.2"); ApiError (NO_HOSTS_AVAILABLE) becomes 500
    create_vdi(sr, size, task)    reference of a new disk "Imported VDI"
    attach(vdi_ref, mode, task)   mode "RO" or "RW"; handle with path, size, detach() and, for RW,
                                  write(offset, data); ApiError fails the transfer late
    task_start(request, label)    reference of the task: the one given as task_id, else a new one;
                                  ApiError becomes 500
    task_progress(task, done, total)
                                  called before each piece with bytes; may wait, raise ApiError
                                  (cancelled, injected: a late failure) or CutConnection
    task_complete(task, result)   result is plain text, a reference or ""
    task_fail(task, error)        error is an ApiError
"""

import contextlib
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.parse

from . import chunkdir, vhd
from .errors import ApiError, CutConnection
from .httpd import REASONS, error_page
from .sparse import data_extents
from .storage import StoreError

PIECE = 1 << 20
SECTOR = 512
NO_CACHE = "Cache-Control: no-cache, no-store"
CONTENT_TYPES = {"raw": "application/octet-stream", "vhd": "application/vhd",
                 "tar": "application/x-tar", "qcow2": "application/x-qemu-disk"}
RECORD_HEADER = 12
STORAGE_ERRORS = (OSError, StoreError, vhd.VhdError, chunkdir.ChunkError,
                  subprocess.SubprocessError)


def io_error():
    """What the pool makes of every failure of its copy tool."""
    return ApiError("VDI_IO_ERROR", "Device I/O errors")


class Aborted(OSError):
    """The client closed the connection before its upload was complete."""


# Replies

def send_head(request, status, *lines, version="1.1"):
    """Sends a status line and header lines."""
    text = "\r\n".join((f"HTTP/{version} {status}", "Connection: close", NO_CACHE) + lines)
    request.wfile.write(text.encode() + b"\r\n\r\n")
    request.wfile.flush()


def send_page(request, status, text="", *lines):
    """Sends an HTML error page."""
    data = error_page(status, text).encode()
    head = (f"HTTP/1.1 {status} {REASONS[status]}", f"content-length: {len(data)}",
            "content-type: text/html", "connection: close",
            "cache-control: no-cache, no-store") + lines
    request.wfile.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
    request.wfile.flush()


def send_internal_error(request, error):
    """The page for an unexpected failure; also the second message in a body."""
    send_page(request, 500, str(error))


def send_redirect(request, base):
    """Sends the client to a host that reaches the disk, with the same query."""
    query = urllib.parse.urlsplit(request.target).query
    location = f"{base}{request.path}" + (f"?{query}" if query else "")
    send_head(request, "302 Found", f"Location: {location}")


def authenticated(request, context, realm):
    """Whether the client may go on; if not, it has been told, and so has its task."""
    try:
        context.authenticate(request)
        return True
    except ApiError as error:
        if "task_id" in request.query:
            with contextlib.suppress(ApiError):
                context.task_fail(request.query["task_id"], error)
        if error.code == "RBAC_PERMISSION_DENIED":
            send_page(request, 403)
        else:
            send_page(request, 401, "", f'WWW-Authenticate: Basic realm="{realm}"')
        return False


def disk_format(request):
    """The requested format in lower case, or None when this host can't do it."""
    name = request.query.get("format", "raw").lower()
    if name not in CONTENT_TYPES or name == "qcow2" and shutil.which("qemu-img") is None:
        return None
    return name


def fail(context, task, *error):
    """Fails a task with an error code and its parameters."""
    context.task_fail(task, ApiError(*error))


def fail_late(request, context, task, error, *messages):
    """Fails the task of a transfer whose 200 is out, and says so inside the body."""
    context.task_fail(task, error)
    with contextlib.suppress(OSError):
        for message in messages:
            send_head(request, message)
        send_internal_error(request, error)


# Export

def export_raw_vdi(request, context):
    """Serves GET /export_raw_vdi."""
    request.keep_alive = False
    if not authenticated(request, context, "get_export_raw_vdi"):
        return
    try:
        if "vdi" not in request.query:
            raise ApiError("INTERNAL_ERROR", 'Failure("Missing vdi query")')
        vdi = context.find_vdi(request.query["vdi"])
        base = context.find_vdi(request.query["base"]) if "base" in request.query else None
        base_url = context.redirect_target(vdi.sr)
        if base_url is not None:
            send_redirect(request, base_url)
            return
        task = context.task_start(request, "Exporting raw VDI")
    except ApiError as error:
        send_internal_error(request, error)
        return
    kind = disk_format(request)
    if kind is None:
        fail(context, task, "INTERNAL_ERROR", f"Unknown format {request.query['format']}")
        send_head(request, "404 Not Found", version="1.0")
        return
    try:
        send_head(request, "200 OK", f"task-id:{task}", f"content-type:{CONTENT_TYPES[kind]}",
                  f'content-disposition: attachment; filename="{vdi.uuid}.{kind}"')
        with Export(request, context, task, vdi, base) as export:
            getattr(export, f"send_{kind}")()
    except ApiError as error:
        fail_late(request, context, task, error)
    except CutConnection:
        context.task_fail(task, io_error())
        raise
    except STORAGE_ERRORS:
        fail_late(request, context, task, io_error())
    else:
        context.task_complete(task, "")


class Export:
    """A disk, and maybe a base, attached for the time of one export."""

    def __init__(self, request, context, task, vdi, base):
        self.request, self.context, self.task = request, context, task
        self.vdi, self.base = vdi, base
        self._stack = contextlib.ExitStack()
        self._sent = 0

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.handle, self.fd = self._attach(stack, self.vdi)
            self.base_handle, self.base_fd = None, None
            if self.base is not None:
                self.base_handle, self.base_fd = self._attach(stack, self.base)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def _attach(self, stack, vdi):
        handle = self.context.attach(vdi.ref, "RO", self.task)
        stack.callback(handle.detach)
        fd = os.open(handle.path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        return handle, fd

    def _writer(self, total):
        def write(data):
            self.context.task_progress(self.task, self._sent, total)
            self.request.wfile.write(data)
            self._sent += len(data)
        return write

    def send_raw(self):
        """Every byte of the disk, holes as zeros."""
        self._send_file(self.fd, self.handle.size)

    def _send_file(self, fd, size):
        self.request.wfile.flush()
        sock = self.request.sock
        direct = not isinstance(sock, ssl.SSLSocket)
        while self._sent < size:
            self.context.task_progress(self.task, self._sent, size)
            count = min(PIECE, size - self._sent)
            if direct:
                count = os.sendfile(sock.fileno(), fd, self._sent, count)
            else:
                data = os.pread(fd, count, self._sent)
                sock.sendall(data)
                count = len(data)
            if count == 0:
                raise OSError("the disk's file is shorter than the disk")
            self._sent += count

    def send_vhd(self):
        """A dynamic VHD of the blocks that hold data, or a differencing one against the base."""
        size = self.handle.size
        if size > vhd.MAX_SIZE:
            raise ApiError("VDI_TOO_LARGE", self.vdi.ref, vhd.MAX_SIZE)
        if self.base is None:
            blocks, parent = list(vhd.blocks_of(data_extents(self.fd, 0, size))), None
        else:
            blocks, parent = self._changed_blocks(), self.base.uuid
        write = self._writer(vhd.stream_size(size, len(blocks)))
        vhd.write_stream(write, self.fd, size, blocks, self.vdi.uuid, parent)
        self.request.wfile.flush()

    def _changed_blocks(self):
        """The blocks that differ from the base: what a chain of VHDs would tell, or less."""
        if "vhd" not in (self.vdi.image_format, self.base.image_format) \
                or self.vdi.image_format != self.base.image_format:
            raise ApiError("VDI_IO_ERROR", "cannot compute differences: both disks must be VHD")
        extents = [list(data_extents(fd, 0, self.handle.size)) for fd in (self.fd, self.base_fd)]
        candidates = set(vhd.blocks_of(extents[0])) | set(vhd.blocks_of(extents[1]))
        return [block for block in sorted(candidates) if self._differs(block)]

    def _differs(self, block):
        offset = block * vhd.BLOCK_SIZE
        own = os.pread(self.fd, vhd.BLOCK_SIZE, offset)
        return own != os.pread(self.base_fd, vhd.BLOCK_SIZE, offset).ljust(len(own), b"\0")

    def send_tar(self):
        """The chunk directory that XVA archives also hold."""
        write = self._writer(chunkdir.archive_size(self.fd, self.handle.size))
        chunkdir.write_archive(write, "vdi", self.fd, self.handle.size)
        self.request.wfile.flush()

    def send_qcow2(self):
        """A qcow2 image; with a base, of the differing clusters only."""
        with tempfile.NamedTemporaryFile(suffix=".qcow2") as image:
            against = ["-B", self.base_handle.path, "-F", "raw"] if self.base is not None else []
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *against,
                            self.handle.path, image.name], check=True, capture_output=True)
            self._send_file(image.fileno(), os.stat(image.name).st_size)


# Import

def import_raw_vdi(request, context):
    """Serves PUT /import_raw_vdi."""
    request.keep_alive = False
    if not authenticated(request, context, "put_import_raw_vdi"):
        return
    try:
        vdi = context.find_vdi(request.query["vdi"]) if "vdi" in request.query else None
        sr = vdi.sr if vdi is not None else import_sr(request, context)
        base_url = context.redirect_target(sr) if sr is not None else None
        if base_url is not None:
            send_redirect(request, base_url)
            return
        task = context.task_start(request, "Importing raw VDI")
    except ApiError as error:
        send_internal_error(request, error)
        return
    try:
        vdi_ref = vdi.ref if vdi is not None else None
        receive = prepare_import(request, context, task, vdi_ref, sr)
        if receive is None:
            return
        result = receive()
    except ApiError as error:
        fail_late(request, context, task, error, "400 Bad Request")
    except CutConnection:
        context.task_fail(task, io_error())
        raise
    except STORAGE_ERRORS:
        fail_late(request, context, task, io_error(), "400 Bad Request")
    else:
        context.task_complete(task, result)


def import_sr(request, context):
    """The storage repository for a disk to be created, or None if none is named."""
    for name in ("sr_id", "sr_uuid"):
        if name in request.query:
            return context.find_sr(request.query[name])
    return None


def prepare_import(request, context, task, vdi_ref, sr):
    """Refuses what can't be taken and returns None, or a function that takes the body."""
    chunked = "chunked" in request.query
    kind = disk_format(request)
    encoding = request.headers.get("transfer-encoding")
    length = content_length(request)
    refusal = None
    if encoding is not None:
        refusal = f"Cannot handle encoding: {encoding}"
    elif kind is None:
        refusal = f"Unknown format {request.query['format']}"
    elif chunked and kind != "raw":
        refusal = f"Cannot import a {kind} using chunked encoding"
    if refusal is not None:
        fail(context, task, "INTERNAL_ERROR", refusal)
        send_head(request, "404 Not Found", version="1.0")
        return None
    if vdi_ref is None and (sr is None or kind != "raw" or chunked or length is None):
        if sr is None:
            fail(context, task, "VDI_MISSING")
        else:
            fail(context, task, "INTERNAL_ERROR", "Can't import without a VDI and a known length")
        send_head(request, "400 Bad Request")
        return None
    if vdi_ref is None:
        vdi_ref = context.create_vdi(sr, length, task)
    send_head(request, "200 OK", f"task-id:{task}", "content-type: application/octet-stream")
    return lambda: receive_into(request, context, task, vdi_ref, "chunked" if chunked else kind)


def content_length(request):
    """The announced length, or None."""
    try:
        length = int(request.headers["content-length"])
    except (KeyError, ValueError):
        return None
    return length if length >= 0 else None


def receive_into(request, context, task, vdi_ref, kind):
    """Attaches the disk, writes the body to it and returns the task's result."""
    handle = context.attach(vdi_ref, "RW", task)
    try:
        getattr(Import(request, context, task, handle), f"take_{kind}")()
    finally:
        handle.detach()
    return vdi_ref


class Import:
    """The body of one import, and the disk it goes to."""

    def __init__(self, request, context, task, handle):
        self.request, self.context, self.task, self.handle = request, context, task, handle
        self._length = content_length(request)
        self._taken = 0
        self._limit = self._length

    def _read(self, count):
        """Exactly ``count`` bytes of the body."""
        if self._limit is not None and self._taken + count > self._limit:
            raise OSError(f"the stream goes on after the announced {self._limit} bytes")
        parts, left = [], count
        while left:
            self.context.task_progress(self.task, self._taken, self._length or self.handle.size)
            part = self.request.rfile.read(min(left, PIECE))
            if not part:
                raise Aborted(f"the client closed after {self._taken} bytes")
            parts.append(part)
            left -= len(part)
            self._taken += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write(self, offset, data):
        if offset + len(data) > self.handle.size:
            raise OSError(f"write beyond the end of the disk: {len(data)} bytes at {offset}")
        self.handle.write(offset, data)

    def take_raw(self):
        """The disk from its beginning on, as many bytes as announced, else the whole disk."""
        total = self.handle.size if self._length is None else self._length
        offset = 0
        while offset < total:
            data = self._read(min(PIECE, total - offset))
            self._write(offset, data[:max(0, self.handle.size - offset)])
            offset += len(data)
            if offset > self.handle.size:
                raise OSError(f"{total} bytes don't fit into a disk of {self.handle.size}")

    def take_chunked(self):
        """Records of offset, length and data; ends at a record of offset 0 and length 0."""
        self._limit = None
        while True:
            head = self._read(RECORD_HEADER)
            offset = int.from_bytes(head[:8], "little")
            length = int.from_bytes(head[8:], "little")
            if offset == 0 and length == 0:
                return
            if offset % SECTOR or length % SECTOR or offset + length > self.handle.size:
                raise OSError(f"can't write {length} bytes at {offset}")
            while length:
                data = self._read(min(PIECE, length))
                self._write(offset, data)
                offset, length = offset + len(data), length - len(data)

    def take_vhd(self):
        """A VHD stream of exactly the announced length."""
        if self._length is None:
            raise OSError("the place of a VHD's footer follows from the length, which is missing")
        vhd.Stream(self._read).apply(self._write, self._length)

    def take_tar(self):
        """A chunk directory."""
        chunkdir.read_archive(self._read, self._write)

    def take_qcow2(self):
        """A qcow2 image, unpacked beside and then copied."""
        with tempfile.TemporaryDirectory() as directory:
            image, raw = os.path.join(directory, "qcow2"), os.path.join(directory, "raw")
            with open(image, "wb") as file:
                while self._length is None or self._taken < self._length:
                    left = PIECE if self._length is None else self._length - self._taken
                    file.write(self._read(min(PIECE, left)))
            subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw],
                           check=True, capture_output=True)
            with open(raw, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                for offset, length in data_extents(file.fileno(), 0, size):
                    self._copy_extent(file.fileno(), offset, length)

    def _copy_extent(self, fd, offset, length):
        while length:
            data = os.pread(fd, min(PIECE, length), offset)
            self._write(offset, data)
            offset, length = offset + len(data), length - len(data)
