"""A server and three devices in one process: ``python -m embedded``."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import fedaq
from embedded.device import Device
from embedded.machine import task
from fedaq_server.records.record import RoundRecord

DEVICES, ROUNDS = 3, 12
# Rounds that follow one another at once would be over before a device is busy.
PAUSE_S = 0.5


async def main(out: Path) -> fedaq.Result:
    """Run the federation, and return what came of it."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = fedaq.Server(
        task, out=out, clients=DEVICES, rounds=ROUNDS, port=0,
        network={"heartbeat_interval_s": 1.0},
        on_listening=address.set_result, on_round=shown, after_round=pause,
    )  # fmt: skip
    serving = asyncio.create_task(server.arun())
    either: set[asyncio.Future[Any]] = {serving, address}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        return await serving
    devices = [Device(number) for number in range(1, DEVICES + 1)]
    await asyncio.gather(*(device.live(address.result()) for device in devices))
    return await serving


def pause(end: object) -> None:
    """Let some time pass between two rounds; called on a thread of the server."""
    time.sleep(PAUSE_S)


def shown(record: RoundRecord) -> None:
    """Show a round."""
    declined = ", ".join(f"{count} {reason}" for reason, count in record.declined.items())
    print(
        f"round {record.round}: accuracy {record.test_accuracy:.3f}, {record.clients} updates"
        + (f"; declined: {declined}" if declined else "")
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(main(Path(folder))))
