"""What tells a slow transfer from a hang: numbers that move while something moves."""

import asyncio
from pathlib import Path

from fedaq.codec.chunks import Chunk
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.cli.display import Display
from fedaq_client.session import Session
from fedaq_client.transport.connection import connect
from fedaq_server.cli.display import doing_of
from fedaq_server.transport.roster import Client, Phase, Roster, Stream
from system.live import PATIENCE_S, learner, live_server, settings_of


class Nowhere(Stream):
    """A stream on which nothing happens."""

    async def read(self) -> pb.ClientMessage | Chunk | None:
        return None

    async def write(self, frame: bytes) -> None:
        """Drop it."""

    def received_bytes(self) -> int:
        return 0


def test_a_client_tells_how_far_each_transfer_is(tmp_path: Path) -> None:
    told: list[tuple[bool, int, int]] = []

    async def main() -> None:
        settings = settings_of(1, rounds=2, scheme="fp32", network__chunk_bytes=16_384)
        async with (
            live_server(settings, tmp_path) as (_, address),
            connect(address, PATIENCE_S) as link,
        ):
            await Session(
                link, "one", learner(0, 2), None, lambda done: None,
                on_transfer=lambda *far: told.append(far),
            ).participate()  # fmt: skip

    asyncio.run(main())
    ways = [down for down, done, total in told if done == total]
    assert ways == [True, False, True, False]
    for way in (True, False):
        steps = [(done, total) for down, done, total in told if down is way]
        one_round = steps[: len(steps) // 2]
        assert len(one_round) > 3
        assert one_round == sorted(one_round)
        assert {total for _, total in one_round} == {4 * learner(0, 2).spec.parameters}


def test_a_server_shows_what_its_clients_do() -> None:
    async def main() -> None:
        roster = Roster()
        assert doing_of(roster) == ""
        phases = (Phase.SENDING, Phase.TRAINING, Phase.SENDING, Phase.WAITING)
        for number, phase in enumerate(phases):
            client = Client(f"client-{number}", 1, None, Nowhere())
            client.enter(phase)
            client.moved_bytes = 1_500 * (phase == Phase.SENDING)
            roster.add(client)
        assert doing_of(roster) == "1 training, 2 sending 3.00 kB"

    asyncio.run(main())


def test_what_a_client_shows_can_be_read() -> None:
    display = Display()
    with display:
        display.on_transfer(True, 1_000, 4_000)
        assert "receiving 1.00 kB of 4.00 kB" in str(display._progress.tasks[0].description)
        display.on_transfer(False, 4_000, 4_000)
        assert "sending 4.00 kB of 4.00 kB" in str(display._progress.tasks[0].description)
