"""How models and updates flow through the server: coded once, piecewise, off its event loop."""

import asyncio
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedaq import PROTOCOL_VERSION
from fedaq.codec import coding, kernels, model, payload
from fedaq.codec.chunks import Chunk, parse
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Range
from fedaq.settings import load_settings
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.ledger import Ledger
from fedaq_server.rounds.aggregation import Contribution
from fedaq_server.run import Run
from fedaq_server.schemes.fixed import Fixed
from fedaq_server.transport.client import INBOX
from fedaq_server.transport.service import serve_client
from fedaq_server.transport.tcp_counter import NoWire

PATIENCE_S = 60.0
CHUNK_BYTES = 1024


@dataclass
class Peer:
    """A client in memory, as the server's end of its stream sees it."""

    name: str
    spec: ModelSpec
    to_server: "asyncio.Queue[pb.ClientMessage]" = field(default_factory=asyncio.Queue)
    to_client: "asyncio.Queue[bytes]" = field(default_factory=asyncio.Queue)
    chunks: list[bytes] = field(default_factory=list)

    async def read(self) -> pb.ClientMessage | Chunk:
        return parse((await self.to_server.get()).SerializeToString(), pb.ClientMessage)

    async def write(self, frame: bytes) -> None:
        message = pb.ServerMessage.FromString(frame)
        if message.WhichOneof("kind") == "chunk":
            self.chunks.append(frame)
        await self.to_client.put(frame)

    def received_bytes(self) -> int:
        return 0

    def say(self, **kind: Any) -> None:
        self.to_server.put_nowait(pb.ClientMessage(**kind))

    async def hear(self, kind: str) -> pb.ServerMessage:
        while True:
            message = pb.ServerMessage.FromString(await self.to_client.get())
            if message.WhichOneof("kind") == kind:
                return message

    async def join(self) -> None:
        self.say(
            join=pb.Join(
                protocol_version=PROTOCOL_VERSION,
                client=self.name,
                examples=1,
                model=model.to_message(self.spec),
            )
        )
        await self.hear("welcome")

    async def announce(self) -> Payload:
        """Take part in a round up to the header of the update."""
        number = (await self.hear("plan")).plan.round
        ranges = [pb.TensorRange(lo=-1, hi=1, deviation=1) for _ in self.spec.tensors]
        self.say(range_report=pb.RangeReport(round=number, ranges=ranges, train_loss=1))
        bits = tuple((await self.hear("grant")).grant.uplink_bits)
        update = payload.plan_payload(self.spec, bits, [Range(-1, 1)] * len(bits))
        self.say(update=payload.to_message(update, number))
        return update

    def send_chunks(self, update: Payload, chunk_bytes: int = CHUNK_BYTES) -> int:
        spans = list(update.chunks(chunk_bytes))
        for offset, length in spans:
            self.say(chunk=pb.Chunk(round=1, offset=offset, data=bytes(length)))
        return len(spans)

    async def take_part(self) -> None:
        await self.join()
        self.send_chunks(await self.announce())
        await self.hear("receipt")


def federate(
    folder: Path, acts: dict[str, Callable[[Peer], Coroutine[Any, Any, None]]], **settings: Any
) -> Run:
    """Let the peers act in one round and return the run."""

    flags = {
        "task": "system.idle_model:task",
        "clients": len(acts),
        "rounds": 1,
        "scheme": "fixed",
        "fixed.uplink_bits": 4,
        "fixed.downlink_bits": 4,
        "network.chunk_bytes": CHUNK_BYTES,
        **settings,
    }
    run = Run(load_settings(environment={}, flags=flags), Ledger(folder), lambda record: None)

    async def main() -> None:
        peers = {name: Peer(name, run.spec) for name in acts}
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            streams = [
                group.create_task(serve_client(run.admission, peer)) for peer in peers.values()
            ]
            for name, act in acts.items():
                group.create_task(act(peers[name]))
            await run.rounds(NoWire())
            for stream in streams:
                stream.cancel()

    asyncio.run(main())
    return run


def watch(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, before: Callable[..., object]
) -> None:
    """Call `before` with the arguments of every call of a function."""
    original = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        before(*arguments)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, watched)


def test_a_broadcast_is_coded_once_for_all_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded: list[int] = []
    watch(monkeypatch, coding, "encode", lambda *call: coded.append(call[3]))
    received: list[list[bytes]] = []

    async def act(peer: Peer) -> None:
        await peer.take_part()
        received.append(peer.chunks)

    run = federate(tmp_path, {f"client-{number}": act for number in range(5)})
    assert run.records[0].clients == 5
    assert len(coded) > 10
    assert len(coded) == len(set(coded)) == len(received[0])
    for chunks in received[1:]:
        assert all(mine is first for mine, first in zip(chunks, received[0], strict=True))


def test_a_model_is_on_its_way_while_the_rest_is_coded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Event()

    def wait_for_the_first(*call: Any) -> None:
        if call[3] == CHUNK_BYTES:  # the second
            assert arrived.wait(PATIENCE_S / 2), "nothing was sent before all was coded"

    watch(monkeypatch, coding, "encode", wait_for_the_first)

    async def act(peer: Peer) -> None:
        await peer.join()
        await peer.hear("plan")
        await peer.hear("chunk")
        arrived.set()

    run = federate(tmp_path, {"client": act}, **{"network.round_deadline_s": 1.0})
    assert run.records[0].left_out == 1


def an_event_loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("bits", [4, 32])
def test_no_kernel_runs_on_the_event_loop(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, set[bool]] = {}
    names = ("statistics", "quantize_pack", "unpack_dequantize", "unpack_accumulate",
             "accumulate_raw", "add_scaled")  # fmt: skip
    for name in names:
        on_loop = called.setdefault(name, set())
        watch(
            monkeypatch, kernels, name, lambda *_, o=on_loop: o.add(_get_running_loop() is not None)
        )
    widths = {"fixed.uplink_bits": bits, "fixed.downlink_bits": bits}
    federate(tmp_path, {f"client-{n}": Peer.take_part for n in range(3)}, **widths)
    raw_only, coded_only = {"accumulate_raw"}, {*names[1:4]}
    assert {n for n in names if called[n]} == {*names} - (coded_only if bits == 32 else raw_only)
    assert set().union(*called.values()) == {False}


def test_a_scheme_plans_and_learns_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop: dict[str, set[bool]] = {"plan": set(), "grant": set(), "learn": set()}
    for name, seen in on_loop.items():
        watch(monkeypatch, Fixed, name, lambda *_, s=seen: s.add(_get_running_loop() is not None))
    federate(tmp_path, {f"client-{n}": Peer.take_part for n in range(3)})
    assert on_loop == {"plan": {False}, "grant": {True}, "learn": {False}}


def test_clients_are_served_while_a_round_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, welcomed = threading.Event(), threading.Event()

    def wait_for_a_newcomer(*_: Any) -> None:
        begun.set()
        assert welcomed.wait(PATIENCE_S / 2), "nobody was served while the round was planned"

    watch(monkeypatch, Fixed, "plan", wait_for_a_newcomer)

    async def come_late(peer: Peer) -> None:
        await asyncio.to_thread(begun.wait, PATIENCE_S / 2)
        await peer.join()
        welcomed.set()

    acts = {"client": Peer.take_part, "newcomer": come_late}
    run = federate(tmp_path, acts, clients=1)
    assert run.records[0].clients == 1


def test_a_client_cannot_pile_up_chunks_in_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While folding stands still, no more is read from a client than its inbox holds."""
    proceed = threading.Event()
    watch(monkeypatch, Contribution, "add", lambda *_: proceed.wait(PATIENCE_S / 2))
    unread: list[int] = []

    async def act(peer: Peer) -> None:
        await peer.join()
        count = peer.send_chunks(await peer.announce())
        for _ in range(1000):  # everything that can be read has been
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        unread.append(count - peer.to_server.qsize())
        proceed.set()
        await peer.hear("receipt")

    federate(tmp_path, {"client": act})
    # One is being folded, and one waits in the inbox.
    assert unread == [INBOX + 1]


def test_a_chunk_larger_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    async def act(peer: Peer) -> None:
        await peer.join()
        peer.send_chunks(await peer.announce(), chunk_bytes=CHUNK_BYTES + 4)
        refusal = (await peer.hear("refusal")).refusal
        assert refusal.reason == pb.REFUSAL_REASON_WRONG_SIZE
        assert f"at most {CHUNK_BYTES} are accepted" in refusal.message

    run = federate(tmp_path, {"client": act, "honest": Peer.take_part})
    assert (run.records[0].clients, run.records[0].left_out) == (1, 1)
