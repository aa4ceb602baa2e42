# SPDX-License-Identifier: LGPL-2.1-or-later
"""The handlers of whole VMs: GET /export, /export_metadata, PUT /import, /import_metadata."""

import contextlib
import os
import re
import shutil
import subprocess
import threading

from . import archive, chunkdir, sr as srs, transfer, vdi as vdis, vm_checks
from .archive import Collector
from .errors import ApiError, CutConnection
from .metadata import Importer
from .model import NULL
from .vm import remove as remove_vm

SERVER = "Server: xapi/%s"


def short_version(pool):
    return ".".join(pool.options["version"].split(".")[:2])


def authenticated(request, context, realm):
    return transfer.authenticated(request, context, realm)


def find_vm(pool, request):
    """The VM named by `uuid` or `ref`."""
    if "uuid" in request.query:
        return pool.db.by_uuid("VM", request.query["uuid"])
    ref = request.query.get("ref")
    if ref is None:
        raise ApiError("INTERNAL_ERROR", "Not_found")
    pool.db.row("VM", ref)
    return ref


def head(request, context, task, *more):
    pool = context.pool
    transfer.send_head(request, "200 OK", "task-id: %s" % task, SERVER % short_version(pool),
                       "content-type: application/octet-stream", *more,
                       'Content-Disposition: attachment; filename="export.xva"', version="1.0")


# ---- export ----

def export_metadata(request, context):
    """GET /export_metadata: a tar with ova.xml, whose length is known."""
    if not authenticated(request, context, "get_export_metadata"):
        return
    pool = context.pool
    try:
        with pool.lock:
            data = archive.tar_entry("ova.xml", metadata_xml(pool, request)) + archive.TAR_END
            task = context.task_start(request, "VM.export_metadata")
    except ApiError as error:
        transfer.send_internal_error(request, error)
        return
    head(request, context, task, "Content-Length: %d" % len(data))
    try:
        request.wfile.write(data)
        request.wfile.flush()
    except OSError:
        context.task_fail(task, transfer.io_error())
        raise
    context.task_complete(task, "")


def metadata_xml(pool, request):
    excluded = request.query.get("excluded_device_types", "").split(",")
    collector = Collector(pool, excluded, request.query.get("include_vhd_parents") == "true")
    snapshots = request.query.get("export_snapshots", "true") == "true"
    if request.query.get("all") == "true":
        dom0 = request.query.get("include_dom0", "true") == "true"
        for vm in pool.db.refs("VM"):
            record = pool.db.record("VM", vm)
            if not record.get("is_default_template") and (dom0 or not record["is_control_domain"]):
                collector.add_vm(vm, snapshots)
    else:
        vm = find_vm(pool, request)
        vm_checks.check(pool, vm, "metadata_export")
        collector.add_vm(vm, snapshots)
    return collector.ova_xml()


def export(request, context):
    """GET /export: an XVA, ova.xml and the chunks of each disk."""
    if not authenticated(request, context, "get_export"):
        return
    pool = context.pool
    try:
        with pool.lock:
            try:
                vm = find_vm(pool, request)
            except ApiError as error:
                raise CutConnection() from error  # the server just closes
            vm_checks.check(pool, vm, "export")
            collector = Collector(pool)
            collector.add_vm(vm, False)
            disks = [(collector.numbers[v], v) for v in collector.found["VDI"]
                     if pool.db.get("VDI", v, "type") in ("user", "system", "suspend")
                     and pool.store.exists(pool.db.get("VDI", v, "uuid"))]
            document = collector.ova_xml()
            task = context.task_start(request, "VM.export")
    except ApiError as error:
        fail_given(request, context, error)
        transfer.send_internal_error(request, error)
        return
    head(request, context, task)
    try:
        with compressor(request) as write:
            send_disks(context, task, write, document, disks)
    except ApiError as error:
        transfer.fail_late(request, context, task, error)
    except OSError:
        context.task_fail(task, transfer.io_error())
    else:
        context.task_complete(task, "")


def fail_given(request, context, error):
    if "task_id" in request.query:
        with contextlib.suppress(ApiError):
            context.task_fail(request.query["task_id"], error)


@contextlib.contextmanager
def compressor(request):
    """A write function, through gzip or zstd where the client asks for it."""
    wanted = request.query.get("use_compression", "")
    program = {"true": "gzip", "gzip": "gzip", "zstd": "zstd"}.get(wanted)
    if program is None:
        yield request.wfile.write
        request.wfile.flush()
        return
    if shutil.which(program) is None:
        raise ApiError("INTERNAL_ERROR", "no %s here" % program)
    request.wfile.flush()
    with subprocess.Popen([program, "-1", "-c"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        pump = threading.Thread(target=copy_stream, args=(process.stdout, request.wfile))
        pump.start()
        try:
            yield process.stdin.write
        finally:
            process.stdin.close()
            pump.join()
    request.wfile.flush()


def copy_stream(source, target):
    with contextlib.suppress(OSError, ValueError):
        while data := source.read(1 << 16):
            target.write(data)


def send_disks(context, task, write, document, disks):
    write(archive.tar_entry("ova.xml", document))
    pool = context.pool
    total = sum(pool.db.get("VDI", v, "virtual_size") for _, v in disks) or 1
    done = 0
    for folder, vdi in disks:
        handle = context.attach(vdi, "RO", task)
        fd = os.open(handle.path, os.O_RDONLY)
        try:
            for number, data in chunkdir.chunks(fd, handle.size):
                context.task_progress(task, done + number * chunkdir.CHUNK, total)
                name = "%s/%08d" % (folder, number)
                write(archive.tar_entry(name, data)
                      + archive.tar_entry(name + ".xxhash", chunkdir.checksum(data)))
            done += handle.size
        finally:
            os.close(fd)
            handle.detach()
    write(archive.TAR_END)


# ---- import ----

def import_metadata(request, context):
    """PUT /import_metadata: a tar with ova.xml; disks are looked up in the pool."""
    def work(read, task):
        objects = read_document(read, context.pool)
        mapping = {k[4:]: v for k, v in request.query.items() if k.startswith("vdi:")}
        with context.pool.lock, acting(context):
            return Importer(context.pool, objects, request.query, mapping).run()

    receive(request, context, "put_import_metadata", "VM.metadata_import", work)


def import_(request, context):
    """PUT /import: an XVA; disks are created in the given or default SR."""
    def work(read, task):
        objects = read_document(read, context.pool)
        return import_disks(request, context, task, objects, read)

    receive(request, context, "put_import", "VM.import", work)


def acting(context):
    return context.pool.acting_as(context.session.originator, "import")


def receive(request, context, realm, label, work):
    """The manners all imports share: 200 before the body, the verdict in the task."""
    if not authenticated(request, context, realm):
        return
    if "transfer-encoding" in request.headers:
        fail_given(request, context, ApiError("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"))
        transfer.send_page(request, 403)
        return
    try:
        if context.pool.options["rolling_upgrade"]:
            fail_given(request, context, ApiError("NOT_SUPPORTED_DURING_UPGRADE"))
            transfer.send_page(request, 400)
            return
        task = context.task_start(request, label)
    except ApiError as error:
        transfer.send_internal_error(request, error)
        return
    transfer.send_head(request, "200 OK", "task-id:" + task,
                       "content-type: application/octet-stream")
    try:
        refs = work(exact_reader(request), task)
    except ApiError as error:
        transfer.fail_late(request, context, task, error)
    except EOFError:
        transfer.fail_late(request, context, task, ApiError("IMPORT_ERROR_PREMATURE_EOF"))
    except OSError:
        context.task_fail(task, transfer.io_error())
    else:
        items = "".join("<value>%s</value>" % r for r in refs)
        context.task_complete(task, "<array><data>%s</data></array>" % items)


def exact_reader(request):
    """read(count) that raises EOFError before the announced or real end of the body."""
    left = [request.length if request.length is not None else 1 << 62]

    def read(count):
        data = request.rfile.read(min(count, left[0]))
        left[0] -= len(data)
        if len(data) < count:
            raise EOFError
        return data
    return read


def read_document(read, pool):
    entry = archive.read_entry(read)
    if entry is None:
        raise EOFError
    name, data = entry
    if name != "ova.xml":
        raise ApiError("IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", name)
    return archive.parse_ova(data, pool)


def import_disks(request, context, task, objects, read):
    pool = context.pool
    with pool.lock, acting(context):
        target = target_sr(pool, request)
        # Refuse before any disk is made, as the server's checks do.
        Importer(pool, objects, {**request.query, "dry_run": "true"}, disks={}).run()
        made = {}
        for cls, id_, record in objects:
            if cls == "VDI":
                values = archive.typed("VDI", record, pool.model)
                size = vdis.rounded(pool, target, values["virtual_size"])
                srs.assert_space(pool, target, size)
                made[id_] = vdis.make(pool, target, size, {
                    k: values[k] for k in vdis.INHERITED if k in values})
        refs = Importer(pool, objects, request.query, disks=made).run()
        if pool.db.has("task", task):
            pool.db.map_add("task", task, "other_config", "object_creation", "complete", True)
    try:
        read_chunks(context, task, read, made)
    except (ApiError, EOFError):
        if request.query.get("force") != "true":
            with pool.lock:
                undo(pool, refs, made)
        raise
    return refs


def target_sr(pool, request):
    if "sr_uuid" in request.query:
        sr = pool.db.by_uuid("SR", request.query["sr_uuid"])
    else:
        sr = request.query.get("sr_id") or pool.db.get("pool", pool.pool_ref(), "default_SR")
    pool.db.row("SR", sr)
    if pool.db.get("SR", sr, "content_type") == "iso":
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", sr)
    return sr


def read_chunks(context, task, read, made):
    """The disks' chunks in whatever order of folders; a wrong checksum fails the import."""
    pending = handle = None
    folder = ""
    try:
        while (entry := archive.read_entry(read)) is not None:
            name, data = entry
            match = re.fullmatch(r"(Ref:\d+)/(\d{8,})(\.xxhash|\.checksum)?", name)
            if not match or match.group(1) not in made:
                raise ApiError("IMPORT_ERROR_UNEXPECTED_FILE", "a chunk", name)
            if match.group(1) != folder:
                if handle:
                    handle.detach()
                folder = match.group(1)
                handle = context.attach(made[folder], "RW", task)
            if match.group(3) is None:
                pending = data
                context.task_progress(task, 0, 0)
                if data:
                    handle.write(int(match.group(2)) * chunkdir.CHUNK, data)
            elif match.group(3) == ".xxhash" and pending is not None \
                    and data != chunkdir.checksum(pending):
                raise ApiError("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")
    finally:
        if handle:
            handle.detach()


def undo(pool, refs, made):
    for ref in refs:
        if pool.db.has("VM", ref):
            remove_vm(pool, ref)
    for vdi in made.values():
        if vdi != NULL and pool.db.has("VDI", vdi):
            vdis.remove(pool, vdi)
