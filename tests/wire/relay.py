"""A TCP relay that counts what passes: a second opinion on the bytes on the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_READ_BYTES = 65_536


@dataclass
class Relay:
    """Bytes that passed so far, per direction, and where to connect."""

    port: int
    address: str = ""
    uplink: int = 0
    downlink: int = 0
    connections: int = 0
    _carriers: list["asyncio.Task[None] | None"] = field(default_factory=list)

    async def carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Relay one connection until both ends have closed it."""
        self.connections += 1
        self._carriers.append(asyncio.current_task())
        server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(
            self._pump(client, to_server, "uplink"), self._pump(server, to_client, "downlink")
        )
        to_server.close()
        to_client.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        with suppress(OSError):  # the other end is gone; what had passed is counted
            while data := await reader.read(_READ_BYTES):
                setattr(self, direction, getattr(self, direction) + len(data))
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def drained(self) -> None:
        """Wait until every connection is closed."""
        await asyncio.gather(*filter(None, self._carriers))


@asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    """Relay connections to a port of 127.0.0.1, and count both directions to their end."""
    relay = Relay(port)
    listener = await asyncio.start_server(relay.carry, "127.0.0.1", 0)
    host, own_port = listener.sockets[0].getsockname()
    relay.address = f"{host}:{own_port}"
    async with listener:
        yield relay
        await relay.drained()
