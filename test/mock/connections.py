"""The connections: numbered, counted, and ended the rough way if asked."""

import asyncio
import socket
import struct

from aiohttp import web

RESET = struct.pack("ii", 1, 0)


class Connection:
    """One TCP connection of a client."""

    def __init__(self, number, transport):
        self.number = number
        self.transport = transport
        self.requests = 0
        self.control = False
        self.entry = None
        self.ended_here = False
        self.writer = None
        self.lost = asyncio.get_running_loop().create_future()

    @property
    def gone(self):
        """Tell whether nothing can be sent any more."""
        return self.lost.done() or self.transport.is_closing()

    async def drain(self):
        """Wait until there is room for more to be sent."""
        try:
            await self.writer.drain()
        except ConnectionError:
            pass
        await asyncio.sleep(0)

    def close(self):
        """Send what is written, then end the connection."""
        self.ended_here = True
        self.transport.close()

    def abort(self):
        """End the connection at once, whatever is unread or unsent."""
        self.ended_here = True
        self.transport.abort()

    def reset(self):
        """End the connection with a TCP reset."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.abort()


class Server(web.Server):
    """aiohttp's server that knows its connections."""

    def __init__(self, handler, ledger, **options):
        super().__init__(handler, **options)
        self.ledger = ledger
        self.by_protocol = {}
        self.number = 0
        self.opened = 0

    def connection_made(self, handler, transport):
        """Number a new connection."""
        super().connection_made(handler, transport)
        self.number += 1
        self.opened += 1
        self.by_protocol[handler] = Connection(self.number, transport)
        self.ledger.changed()

    def connection_lost(self, handler, exc=None):
        """Note the end of a connection, and a request that it cuts off."""
        super().connection_lost(handler, exc)
        connection = self.by_protocol.pop(handler, None)
        if connection is None:
            return
        if not connection.lost.done():
            connection.lost.set_result(True)
        entry = connection.entry
        if entry and not entry.reply_completed and not connection.ended_here:
            self.ledger.client_left(entry)
        self.ledger.changed()

    def mark_control(self, connection):
        """Leave a connection of the control side out of the counts."""
        if not connection.control and not connection.requests:
            connection.control = True
            self.opened -= 1

    def open_count(self):
        """Return how many connections of the service side are open."""
        return sum(not connection.control
                   for connection in self.by_protocol.values())

    def end(self, idle_only):
        """End connections from this side and return how many."""
        ended = [connection for connection in self.by_protocol.values()
                 if not connection.control
                 and not (idle_only and connection.entry)]
        for connection in ended:
            connection.close() if idle_only else connection.abort()
        return len(ended)
