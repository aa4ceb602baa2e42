# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takes TLS off connections and puts it on again, so that what stands between sees plain HTTP.

One thread serves every relay: a TLS connection must not be read and written by two at a time.
"""

import asyncio
import ssl
import threading

PIECE = 1 << 18


def server_context(pem):
    """TLS with the certificate and key of a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def client_context():
    """TLS towards a server on this machine, whose certificate the real client checks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def pump(reader, writer):
    """Copies one direction until it ends, and then ends the other side's input."""
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, ssl.SSLError):
        pass


async def converse(reader, writer, target, context):
    """One connection: both directions, until the server's ends or the client is gone."""
    try:
        far_reader, far_writer = await asyncio.open_connection(*target, ssl=context)
    except (OSError, ssl.SSLError):
        writer.transport.abort()
        return
    up = asyncio.ensure_future(pump(reader, far_writer))
    down = asyncio.ensure_future(pump(far_reader, writer))
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done() and far_writer.can_write_eof():
            await asyncio.wait((down,))
    finally:
        up.cancel()
        down.cancel()
        for side in (writer, far_writer):
            side.close()


class Relays:
    """Relays of one process, in a thread of their own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def add(self, listen, target, listen_context=None, target_context=None):
        """Relays from one address to another; a context puts TLS on that side."""
        def serve(reader, writer):
            return converse(reader, writer, target, target_context)

        start = asyncio.start_server(serve, *listen, ssl=listen_context, limit=PIECE)
        asyncio.run_coroutine_threadsafe(start, self.loop).result(30)
