"""A live server, and peers that send it what they like: messages and streams.

All of them act beside one honest client that takes part in every round. Those that send bytes
are in `raw_bytes`.
"""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fedaq.codec import coding, headers
from fedaq.errors import FedaqError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Event, Sent
from fedaq_client.session import Session
from fedaq_client.training import Learner
from fedaq_client.transport.connection import connect
from fuzz.mutation import mutate, mutated_bytes
from fuzz.small_task import task
from system.commands import free_port
from system.raw_client import EndedError, FinishedError, RawClient, raw_client

TESTS = Path(__file__).parents[1]
PATIENCE_S = 60.0
ANSWER_S = 0.1
PEERS = 16
BURST = 20
CHUNK_BYTES = 1024
# Which of its messages a peer changes, and how many of those to bytes that are no message.
CHANGED, BROKEN = 0.15, 0.1
TRAINING_S = 0.005


class FindingError(Exception):
    """The server did what no peer may make it do."""


@cache
def _learner() -> Learner:
    return Learner(task, task.train_data(None), 1)


@dataclass
class Count:
    """What was sent."""

    messages: int = 0


@dataclass
class Server:
    """A server process under a limit of memory."""

    process: "subprocess.Popen[bytes]"
    port: int
    metrics_port: int
    said: IO[bytes]

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def refusals(self) -> dict[str, int]:
        """Return how often it refused what for which reason."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        return {
            next(iter(sample.labels.values())): int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in {"fedaq_refusals_total", "fedaq_join_refusals_total"} and sample.value
        }

    def rss_mb(self) -> float:
        """Return its resident memory."""
        return self._pages(1) * resource.getpagesize() / 2**20

    def limit(self, more_mb: int) -> None:
        """Let it have so much more address space than now, and no more."""
        most = self._pages(0) * resource.getpagesize() + more_mb * 2**20
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (most, most))

    def check(self) -> None:
        """Raise a `FindingError` if it has ended, or said that something went wrong."""
        self.said.seek(0)
        text = self.said.read().decode(errors="replace")
        if self.process.poll() is not None:
            raise FindingError(f"the server ended with {self.process.returncode}: {text[-4000:]}")
        for sign in ("Traceback", "exception", "this is a bug"):
            at = text.find(sign)
            if at >= 0:
                raise FindingError(f"the server said: {text[max(0, at - 200) : at + 4000]}")

    def _pages(self, part: int) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[part])


@dataclass
class Honest:
    """A client that does its part; `rounds` are those in which its update counted."""

    rounds: int = 0
    last: int = 0
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, event: Event) -> None:
        """Take note of a round."""
        if isinstance(event, Sent):
            self.rounds += 1
            self.last = event.round
            self._more.set()

    async def completes_rounds(self, count: int) -> None:
        """Wait for so many more rounds.

        Raises
        ------
        FindingError
            If they do not come.
        """
        due = self.rounds + count
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self.rounds < due:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise FindingError(f"no round was completed within {PATIENCE_S:g} s") from None


@asynccontextmanager
async def beset(scheme: str, limit_mb: int, folder: Path) -> AsyncIterator[tuple[Server, Honest]]:
    """Run a server and its honest client; on leaving, check that both still do their part."""
    port, metrics_port = free_port(), free_port()
    said = TemporaryFile()  # noqa: SIM115
    process = subprocess.Popen(  # noqa: ASYNC220
        [
            sys.executable, "-P", "-m", "fedaq", "server", "--quiet",
            "--task", "fuzz.small_task:task", "--scheme", scheme, "--clients", "1",
            "--rounds", "1000000", "--port", str(port), "--out", str(folder),
            "--metrics-port", str(metrics_port),
            "--set", f"network.chunk_bytes={CHUNK_BYTES}", "--set", "network.round_deadline_s=2",
            "--set", "network.heartbeat_interval_s=2", "--set", "network.return_wait_s=0.05",
            # Whoever is shut out gets no further than its join.
            "--set", "limits.strikes=1000000",
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS), "FEDAQ_TRACEBACK": "1"},
        stdin=subprocess.DEVNULL, stdout=said, stderr=said,
    )  # fmt: skip
    server, honest = Server(process, port, metrics_port, said), Honest()
    part = asyncio.create_task(_take_part(server.address, honest))
    try:
        await honest.completes_rounds(3)
        server.limit(limit_mb)
        try:
            yield server, honest
        finally:
            # Before what its peers saw: of a server that has ended they only know that it is gone.
            server.check()
        await honest.completes_rounds(2)
        server.check()
        process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(process.wait, PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise FindingError("the server does not stop") from None
        if code != 128 + signal.SIGTERM:
            raise FindingError(f"the server ended with {code} when it was told to stop")
    finally:
        part.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        with suppress(asyncio.CancelledError, FedaqError):
            await part


async def _take_part(address: str, honest: Honest) -> None:
    learner = Learner(task, task.train_data(None), 1)
    train = learner.train

    def slowly(*arguments: Any, **options: Any) -> float:
        time.sleep(TRAINING_S)
        return train(*arguments, **options)

    learner.train = slowly  # type: ignore[method-assign]
    async with connect(address, PATIENCE_S) as link:
        await Session(link, "honest", learner, None, honest.on_event).participate()


# ---- Peers ------------------------------------------------------------------


class Mutant(RawClient):
    """A client of which some messages are changed before they are sent.

    Parameters
    ----------
    right : RawClient
        Whose stream it takes over.
    name : str
    count : Count
        Of messages that were sent.
    change : callable
        Returns what is sent instead of a message: itself, another one or bytes.
    """

    def __init__(
        self,
        right: RawClient,
        name: str,
        count: Count,
        change: Callable[[pb.ClientMessage], pb.ClientMessage | bytes],
    ) -> None:
        vars(self).update(vars(right))
        self.name, self.count, self.change, self.changed = name, count, change, False

    async def send(self, message: pb.ClientMessage | bytes) -> None:
        """Send a message, perhaps changed."""
        assert not isinstance(message, bytes)
        sent = self.change(message)
        self.changed = self.changed or sent is not message
        if not self.ended:
            self.count.messages += 1
            await super().send(sent)

    async def take_part(self, rounds: int) -> None:
        """Join and do a client's part; once a message was changed, do not wait long."""
        await self.join(client=self.name)
        for _ in range(rounds):
            number = (await self._answer("plan")).plan.round
            async with asyncio.timeout(ANSWER_S if self.changed else PATIENCE_S):
                await self.report(number)
            grant = (await self._answer("grant", "refusal")).grant
            bits = tuple(grant.uplink_bits)
            if len(bits) != len(self.spec.tensors):
                continue
            header = self.header(number, bits, tuple(grant.uplink_steps))
            await self.announce(header)
            update = headers.from_message(self.spec, header)
            for offset, length in update.chunks(CHUNK_BYTES):
                # Mostly zeros, so that the entropy coder has something to do.
                codes = b"".join((bytes(31), os.urandom(1))) * (length // 32 + 1)
                data = np.frombuffer(codes[:length], np.uint8)
                content = coding.packed_content(update, offset, data)
                chunk = coding.to_chunk(content, offset, length, number)
                await self.send(pb.ClientMessage.FromString(chunk.frame(pb.ClientMessage)))
            await self._answer("receipt", "refusal")

    async def _answer(self, *kinds: str) -> pb.ServerMessage:
        async with asyncio.timeout(ANSWER_S if self.changed else PATIENCE_S):
            return await self.receive(*kinds)


@asynccontextmanager
async def mutant(
    address: str,
    name: str,
    count: Count,
    change: Callable[[pb.ClientMessage], pb.ClientMessage | bytes],
) -> AsyncIterator[Mutant]:
    """Open a stream whose messages go through `change`."""
    learner = _learner()
    async with raw_client(address, learner.spec, learner.held) as right:
        yield Mutant(right, name, count, change)


async def until_it_ends(act: Awaitable[None]) -> None:
    """Let a peer act until the server has enough of it, or has nothing to say."""
    with suppress(EndedError, FinishedError, TimeoutError):
        await act


async def stream(address: str, name: str, random: Random, count: Count) -> None:
    """Take part with changed messages, then send many at once, then hang up."""

    def change(message: pb.ClientMessage) -> pb.ClientMessage | bytes:
        if random.random() > CHANGED:
            return message
        if random.random() < BROKEN:
            return mutated_bytes(message.SerializeToString(), random)
        other = pb.ClientMessage()
        other.CopyFrom(message)
        mutate(other, random)
        return other

    async with mutant(address, name, count, change) as client:
        await until_it_ends(client.take_part(random.choice((1, 1, 1, 3))))
        number = client.plan.round
        for _ in range(BURST):
            if client.ended:
                break
            message = random.choice(_kinds(number, client))
            mutate(message, random)
            count.messages += 1
            await RawClient.send(client, message)
            if message.WhichOneof("kind") == "leave":
                break


def _kinds(number: int, client: RawClient) -> list[pb.ClientMessage]:
    bits = (4,) * len(client.spec.tensors)
    return [
        pb.ClientMessage(heartbeat=pb.Heartbeat()),
        pb.ClientMessage(range_report=pb.RangeReport(round=number, ranges=[pb.TensorRange()] * 3)),
        pb.ClientMessage(update=client.header(number, bits)),
        pb.ClientMessage(chunk=pb.Chunk(round=number, data=bytes(64))),
        pb.ClientMessage(join=pb.Join(client="again")),
    ]


async def streams(address: str, messages: int, seed: int, count: Count) -> None:
    """Let peers open streams, one after another, until so many messages were sent."""

    async def peer(number: int) -> None:
        random = Random(f"{seed}-{number}")
        while count.messages < messages:
            await stream(address, f"mutant-{number}", random, count)

    async with asyncio.TaskGroup() as group:
        for number in range(PEERS):
            group.create_task(peer(number))


# ---- Conversations ----------------------------------------------------------


async def conversations(server: Server, honest: Honest, examples: int, start: int) -> Count:
    """Let hypothesis change a conversation here and there; rounds go on after each."""
    loop, count = asyncio.get_running_loop(), Count()

    @seed(start)
    @hypothesis_settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    # Seeds, for what hypothesis draws may not depend on how soon a server answers.
    @given(st.dictionaries(st.integers(0, 5), st.integers(0, 2**32 - 1), min_size=1, max_size=3))
    def rounds_go_on(seeds: dict[int, int]) -> None:
        changes = {number: Random(seed) for number, seed in seeds.items()}
        asyncio.run_coroutine_threadsafe(
            _conversation(server, honest, changes, count), loop
        ).result()

    await asyncio.to_thread(rounds_go_on)
    return count


async def _conversation(
    server: Server, honest: Honest, changes: dict[int, Random], count: Count
) -> None:
    sent = 0

    def change(message: pb.ClientMessage) -> pb.ClientMessage:
        nonlocal sent
        sent += 1
        if sent - 1 not in changes:
            return message
        other = pb.ClientMessage()
        other.CopyFrom(message)
        mutate(other, changes[sent - 1])
        return other

    async with mutant(server.address, "changeling", count, change) as client:
        await until_it_ends(client.take_part(1))
    await honest.completes_rounds(2)
    server.check()
