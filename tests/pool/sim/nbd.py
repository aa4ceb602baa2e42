# SPDX-License-Identifier: LGPL-2.1-or-later
"""An NBD server with the manners of the one that pool hosts run.

Fixed newstyle, EXPORT_NAME only, STARTTLS with TLS 1.2 where the pool asks for it, one request at
a time per connection, READ and DISC only, 512-byte alignment, sixteen connections per server. A
refusal closes the connection without a word.

The owner supplies a resolver:

    purpose()                  "nbd" (TLS), "insecure_nbd" (plain), None or "both" (all refused);
                               asked once per connection
    attach(exportname, peer)   a handle with ``path``, ``size`` and ``detach()``, or any exception,
                               which closes the connection; ``peer`` is the client's (host, port)

and ``tls_context_factory()``, which returns a server-side ssl.SSLContext with certificate and key;
the server narrows it to TLS 1.2.

``detach()`` is called exactly once per handle, when the connection has ended, unless the server is
stopped with ``detach=False`` (a killed daemon leaves its attachments behind).
"""

import collections
import contextlib
import dataclasses
import errno
import os
import select
import socket
import ssl
import struct
import threading
import time

NBD_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698

FIXED_NEWSTYLE = 1
EXPORT_FLAGS = 3  # HAS_FLAGS | READ_ONLY

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_STARTTLS = 5
REP_ACK = 1
REP_ERR_UNSUP = 0x80000001
REP_ERR_POLICY = 0x80000002
REP_ERR_INVALID = 0x80000003
REP_ERR_TLS_REQD = 0x80000005

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2

CONNECTION_LIMIT = 16
BACKLOG = 5
SECTOR = 512
PIECE = 512 * 1024  # the server reads the device in pieces of this size
OPTION_LIMIT = 64 * 1024
HEADER_ROOM = 16  # a reply header in front of the data, so that both leave in one call
TCP_ESTABLISHED = 1  # first byte of TCP_INFO

REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")


class Refused(Exception):
    """Ends a connection; the client sees a close and nothing else."""


@dataclasses.dataclass
class Faults:
    """Injected behaviour, read at every request; ``export`` limits it to names that contain it.

    refuse              close new connections at once
    close_after         close a connection after so many requests were answered (-1: never)
    cut_after           close after so many bytes of the next reply's data (-1: never)
    stall_after         stop answering after so many requests, until the fault is lifted (-1: never)
    delay               seconds before each answer
    attach_delay        seconds before an export is attached
    error_after         answer with EIO and close after so many requests (-1: never)
    rate                bytes a second of all connections together (0: no limit): the host's link
    """

    export: str = ""
    refuse: bool = False
    close_after: int = -1
    cut_after: int = -1
    stall_after: int = -1
    delay: float = 0.0
    attach_delay: float = 0.0
    error_after: int = -1
    rate: float = 0.0

    def applies(self, exportname):
        """Whether an export is meant."""
        return self.export in exportname


@dataclasses.dataclass
class Stats:
    """Counters since the server's start."""

    accepted: int = 0
    refused: int = 0
    attached: int = 0
    requests: int = 0
    bytes: int = 0
    peak: int = 0  # most connections at a time that no end had closed


class Connection:
    """One client, served by one thread."""

    def __init__(self, server, sock, peer):
        self.server = server
        self.sock = sock
        self.peer = peer
        self.tls = False
        self.exportname = ""
        self.answered = 0
        self._buffer = bytearray(4096)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def is_open(self):
        """Whether neither end closed it: that the client did is noticed when its thread gets to it."""
        try:
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED
        except OSError:
            return False

    # Bytes

    def _take(self, count):
        """The next ``count`` bytes (at most the buffer's size); valid until the next call."""
        while self._end - self._start < count:
            if self._start:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start:self._end]
                self._start, self._end = 0, rest
            got = self.sock.recv_into(self._view[self._end:])
            if got == 0:
                raise Refused("client closed the connection")
            self._end += got
        begin, self._start = self._start, self._start + count
        if self._start == self._end:
            self._start = self._end = 0
        return self._view[begin:begin + count]

    def _take_bytes(self, count):
        parts = []
        while count:
            part = bytes(self._take(min(count, 1024)))
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    # Negotiation

    def _reply(self, option, kind):
        self.sock.sendall(OPTION_REPLY.pack(REPLY_MAGIC, option, kind, 0))

    def _next_option(self):
        magic, option, length = OPTION.unpack(self._take(OPTION.size))
        if magic != OPTION_MAGIC or length > OPTION_LIMIT:
            raise Refused(f"bad option header: {magic!r}, {length} bytes")
        return option, self._take_bytes(length)

    def _start_tls(self):
        if self._end != self._start:
            raise Refused("client sent more after STARTTLS")
        context = self.server.tls_context_factory()
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.server.replace_socket(
            self, lambda: context.wrap_socket(self.sock, server_side=True,
                                              do_handshake_on_connect=False))
        self.sock.do_handshake()
        self.tls = True

    def negotiate(self, want_tls):
        """Runs the option phase and returns the export name the client chose."""
        self.sock.sendall(NBD_MAGIC + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE))
        flags, = struct.unpack(">I", self._take(4))
        if want_tls and not flags & FIXED_NEWSTYLE:
            raise Refused("client can't do fixed newstyle, which TLS needs")
        while want_tls and not self.tls:
            option, _ = self._next_option()
            if option in (OPT_EXPORT_NAME, OPT_ABORT):
                raise Refused("option before TLS")
            if option == OPT_STARTTLS:
                self._reply(option, REP_ACK)
                self._start_tls()
            else:
                self._reply(option, REP_ERR_TLS_REQD)
        while True:
            option, payload = self._next_option()
            if option == OPT_EXPORT_NAME:
                return payload.decode("utf-8")
            if option == OPT_ABORT:
                self._reply(option, REP_ACK)
                raise Refused("client aborted")
            if option == OPT_STARTTLS:
                self._reply(option, REP_ERR_INVALID if self.tls else REP_ERR_POLICY)
            elif option == OPT_LIST:
                self._reply(option, REP_ERR_POLICY)
            else:
                self._reply(option, REP_ERR_UNSUP)

    # Transmission

    def serve(self, handle):
        """Answers requests until the client leaves or breaks the rules."""
        self.sock.sendall(struct.pack(">QH124x", handle.size, EXPORT_FLAGS))
        fd = os.open(handle.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answer = self._read_tls if self.tls else self._read_plain
            while self._request(fd, handle.size, answer):
                pass
        finally:
            os.close(fd)

    def _request(self, fd, size, answer):
        magic, _, command, cookie, offset, length = REQUEST.unpack(self._take(REQUEST.size))
        if magic != REQUEST_MAGIC or command == CMD_DISC:
            return False
        if command == CMD_WRITE:
            return self._error(cookie, errno.EPERM)
        if command != CMD_READ or offset % SECTOR or length % SECTOR:
            return self._error(cookie, errno.EINVAL)
        self.server.pace(length)
        cut = self._inject(cookie)
        # Past the end the header still announces success; the data stops at the end of the disk.
        available = max(0, min(length, size - offset))
        answer(fd, cookie, offset, available if cut < 0 else min(cut, available))
        self.answered += 1
        self.server.count(requests=1, bytes=available)
        return available == length and cut < 0

    def _error(self, cookie, code):
        self.sock.sendall(REPLY.pack(SIMPLE_REPLY_MAGIC, code, cookie))
        return False

    def _inject(self, cookie):
        """Applies the faults; returns after how many bytes to cut this reply, or -1."""
        faults = self.server.faults
        if not faults.applies(self.exportname):
            return -1
        if 0 <= faults.close_after <= self.answered:
            raise Refused("injected close")
        if 0 <= faults.error_after <= self.answered:
            self._error(cookie, errno.EIO)
            raise Refused("injected error")
        if faults.delay:
            self.server.stopping.wait(faults.delay)
        while 0 <= self.server.faults.stall_after <= self.answered:
            if self.server.stopping.wait(0.05):
                raise Refused("server stops")
        return faults.cut_after

    def _read_plain(self, fd, cookie, offset, length):
        more = socket.MSG_MORE if length else 0
        self.sock.sendall(REPLY.pack(SIMPLE_REPLY_MAGIC, 0, cookie), more)
        sock, end = self.sock.fileno(), offset + length
        while offset < end:
            sent = os.sendfile(sock, fd, offset, end - offset)
            if sent == 0:
                raise Refused("the disk's file is shorter than the disk")
            offset += sent

    def _read_tls(self, fd, cookie, offset, length):
        buffer, view = self.server.buffer()
        REPLY.pack_into(buffer, 0, SIMPLE_REPLY_MAGIC, 0, cookie)
        room = HEADER_ROOM
        while True:
            piece = min(length, PIECE)
            if piece and os.preadv(fd, [view[room:room + piece]], offset) != piece:
                raise Refused("the disk's file is shorter than the disk")
            self.sock.sendall(view[:room + piece])
            offset, length, room = offset + piece, length - piece, 0
            if not length:
                return


class NbdServer:
    """Listens on an address; a thread accepts, and one more serves each connection.

    ``port`` 0 chooses a free one; ``self.port`` tells it. ``faults`` may be replaced or changed at
    any time from any thread. ``limit`` is the number of simultaneous connections.
    """

    def __init__(self, address, port, tls_context_factory, resolver, limit=CONNECTION_LIMIT):
        self.tls_context_factory = tls_context_factory
        self.resolver = resolver
        self.limit = limit
        self.faults = Faults()
        self.closed = collections.deque(maxlen=100)  # why the last connections were closed
        self.stopping = threading.Event()
        self._stats = Stats()
        # Guards the two sets below, the counters, and the exchange of a connection's socket.
        self._lock = threading.Lock()
        self._connections = set()
        self._threads = set()
        self._link_free = 0.0  # instant until which the link is taken; guarded by _lock
        self._detach = True
        self._local = threading.local()
        self._listener = socket.create_server((address, port), backlog=BACKLOG)
        self.address, self.port = self._listener.getsockname()[:2]
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._acceptor = threading.Thread(target=self._accept, name=f"nbd {address}", daemon=True)

    def start(self):
        """Begins to accept connections; returns the server."""
        self._acceptor.start()
        return self

    def stop(self, detach=True):
        """Closes the listener and every connection.

        With ``detach`` the connections' threads are awaited, so the caller may hold no lock that
        the resolver's handles want. Without, as after the kill of a daemon, the handles stay
        attached and nothing is awaited.
        """
        self._detach = detach
        self.stopping.set()
        os.write(self._waker, b"x")
        self._acceptor.join()
        self.drop_connections()
        with self._lock:
            threads = list(self._threads) if detach else []
        for thread in threads:
            thread.join()
        os.close(self._wake)
        os.close(self._waker)

    def drop_connections(self):
        """Cuts every connection; the clients see a reset or an end of stream."""
        with self._lock:
            for connection in self._connections:
                # Not SSLSocket's own shutdown, which would let its thread go on in the clear.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def pace(self, length):
        """Waits for the turn of so many bytes on the host's link, when that is limited."""
        rate = self.faults.rate
        if rate <= 0:
            return
        now = time.monotonic()
        with self._lock:
            self._link_free = max(self._link_free, now) + length / rate
            wait = self._link_free - now
        self.stopping.wait(wait)

    def active(self):
        """Number of connections being served."""
        with self._lock:
            return len(self._connections)

    def stats(self):
        """A copy of the counters."""
        with self._lock:
            return dataclasses.replace(self._stats)

    def count(self, **increments):
        """Adds to counters of ``Stats``."""
        with self._lock:
            for name, increment in increments.items():
                setattr(self._stats, name, getattr(self._stats, name) + increment)

    def buffer(self):
        """This thread's transfer buffer, as bytearray and memoryview."""
        local = self._local
        if not hasattr(local, "buffer"):
            local.buffer = bytearray(HEADER_ROOM + PIECE)
            local.view = memoryview(local.buffer)
        return local.buffer, local.view

    def replace_socket(self, connection, wrap):
        """Exchanges a connection's socket for a wrapped one; a stop always cuts the live one."""
        with self._lock:
            if self.stopping.is_set():
                raise Refused("server stops")
            connection.sock = wrap()
            return connection.sock

    def _accept(self):
        with self._listener:
            while not self.stopping.is_set():
                ready, _, _ = select.select([self._listener, self._wake], [], [])
                if self._listener not in ready or self.stopping.is_set():
                    continue
                try:
                    sock, peer = self._listener.accept()
                except OSError:
                    continue  # the client left before it was accepted
                self._admit(sock, peer)

    def _admit(self, sock, peer):
        with self._lock:
            full = len(self._connections) >= self.limit
            if full or self.faults.refuse:
                self._stats.refused += 1
                sock.close()
                return
            self._stats.accepted += 1
            connection = Connection(self, sock, peer)
            self._connections.add(connection)
            here = sum(connection.is_open() for connection in self._connections)
            self._stats.peak = max(self._stats.peak, here)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True,
                                      name=f"nbd client {peer}")
            self._threads.add(thread)
        thread.start()

    def _run(self, connection):
        try:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._converse(connection)
        except (Refused, OSError, UnicodeDecodeError) as error:
            # The client only sees the close; who runs the simulator can look here.
            self.closed.append(f"{connection.peer}: {type(error).__name__}: {error}")
        finally:
            self._finish(connection)

    def _converse(self, connection):
        purpose = self.resolver.purpose()
        if purpose not in ("nbd", "insecure_nbd"):
            raise Refused("no network of the pool, or networks of both kinds, serve NBD")
        connection.exportname = connection.negotiate(purpose == "nbd")
        handle = self._attach(connection)
        try:
            self.count(attached=1)
            connection.serve(handle)
        finally:
            self._close_socket(connection)
            if self._detach or not self.stopping.is_set():
                handle.detach()

    def _attach(self, connection):
        faults = self.faults
        if faults.attach_delay and faults.applies(connection.exportname):
            self.stopping.wait(faults.attach_delay)
        try:
            return self.resolver.attach(connection.exportname, connection.peer)
        except Exception as error:
            raise Refused(f"can't attach: {type(error).__name__}: {error}") from error

    def _close_socket(self, connection):
        with self._lock, contextlib.suppress(OSError):
            connection.sock.close()

    def _finish(self, connection):
        self._close_socket(connection)
        with self._lock:
            self._connections.discard(connection)
            self._threads.discard(threading.current_thread())
