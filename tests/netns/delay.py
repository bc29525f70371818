"""A TCP relay that lets every byte wait, each way.

python tests/netns/delay.py LISTEN_PORT HOST:PORT SECONDS
"""

import asyncio
import sys
from contextlib import suppress


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float
) -> None:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, content = await queue.get()
            await asyncio.sleep(due - loop.time())
            if not content:
                writer.close()
                return
            writer.write(content)
            await writer.drain()

    writing = asyncio.create_task(write())
    with suppress(OSError):
        while content := await reader.read(65536):
            queue.put_nowait((loop.time() + wait_s, content))
    queue.put_nowait((loop.time() + wait_s, b""))
    with suppress(OSError):
        await writing


async def main(port: int, host: str, server_port: int, wait_s: float) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(host, server_port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pass_on(reader, up_writer, wait_s), pass_on(up_reader, writer, wait_s))

    server = await asyncio.start_server(relay, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    address, _, number = sys.argv[2].rpartition(":")
    asyncio.run(main(int(sys.argv[1]), address, int(number), float(sys.argv[3])))
