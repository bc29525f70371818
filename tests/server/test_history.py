"""What clients are sent who missed models, and that it leads where it should."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import chunks, coding, headers, holding, model, payload
from fedaq.codec.given import Past
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload, plan_payload
from fedaq.codec.quantizer import RAW_BITS, Floats, value_range
from fedaq.errors import UserError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.sent import Sent
from fedaq_server.rounds.differences import LEAST_CHUNK_BYTES, CatchUp, History
from wire import oracle

SPEC = ModelSpec(
    (TensorSpec("w", (30, 7)), TensorSpec("none", (0,)), TensorSpec("b", (7,)), TensorSpec("s", ()))
)
CHUNK_BYTES = 64
UNKNOWN = b"unknown!"


@dataclass
class Server:
    """A history with a record of what was held, round by round."""

    history: History
    models: list[Floats] = field(default_factory=list)
    pasts: list[Past] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        self._keep()

    def _keep(self) -> None:
        self.models.append(self.history.held.copy())
        self.pasts.append(Past(self.history.past.noted.copy()))
        self.digests.append(self.history.digest)

    def advance(self, bits: tuple[int, ...], step: float, cost: int = 1) -> None:
        """Go on by a random difference, its last tensor with a step, unless it has no bits."""
        flat = self.rng.normal(0, 0.1, SPEC.parameters).astype(np.float32)
        header = plan_payload(SPEC, bits, map(value_range, SPEC.split(flat)), (0.0, 0.0, 0.0, step))
        self.history.advance(header, list(self._frames(header, flat)), cost)
        self._keep()

    def _frames(self, header: Payload, flat: Floats) -> Iterator[bytes]:
        number = len(self.models)
        message = payload.to_message(header, number, self.history.digest)
        yield pb.ServerMessage(model=message).SerializeToString()
        keys = payload.transfer_keys(SPEC, 1, "test", number)
        for offset, length in header.chunks(CHUNK_BYTES):
            codes = packed_codes.encode_chunk(
                header, flat.__getitem__, keys, offset, length, nearest=True
            )
            chunk = packed_codes.to_chunk(header, number, offset, codes, squeeze=True)
            self.history.add(header, coding.decode(header, chunk, self.history.past))
            yield chunk.frame(pb.ServerMessage)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    history = beginning(tmp_path)
    yield Server(history)
    history.close()


def beginning(spool: Path) -> History:
    held = np.random.default_rng(0).normal(0, 1, SPEC.parameters).astype(np.float32)
    return History(SPEC, held, spool)


def listened(messages: AsyncIterator[bytes]) -> list[pb.ServerMessage]:
    async def listen() -> list[pb.ServerMessage]:
        return [pb.ServerMessage.FromString(message) async for message in messages]

    return asyncio.run(listen())


def added(held: Floats, past: Past, messages: list[pb.ServerMessage]) -> tuple[Floats, bytes]:
    """Apply differences as docs/reference/wire-format.md says, with arithmetic of our own.

    Return what is held then, and its digest.
    """
    held, before = held.copy(), past.noted.copy()
    header, noted = None, before.copy()
    for message in messages:
        if message.WhichOneof("kind") == "model":
            before = before if header is None or not header.code_bytes else noted
            noted = BEFORE_LAST[before]
            assert message.model.base == model.digest(held, before)
            header = headers.from_message(SPEC, message.model)
            continue
        assert header is not None
        codes = packed_codes.codes_of(header, chunks.read(message.chunk), Past(before))
        for piece in header.pieces(message.chunk.offset, len(codes)):
            values = [
                np.float32(v) for v in decoded(header, piece.tensor, bytes(codes[piece.data]))
            ]
            start = SPEC.slices[piece.tensor].start + piece.first
            for i, value in enumerate(values[: piece.values]):
                held[start + i] = held[start + i] + value
                code = header.codes[piece.tensor]
                if code.step:
                    distance = round(float(value) / code.step)
                    noted[start + i] += min(distance, 2) if distance > 0 else 0
                    noted[start + i] += 2 + min(-distance, 2) if distance < 0 else 0
    assert header is not None or not messages
    last = noted if header is not None and header.code_bytes else before
    return held, model.digest(held, last)


# What a past becomes with a code that stands for 0.
BEFORE_LAST = np.array([0, 5, 5, 10, 10] * 3 + [0], np.uint8)


def decoded(header: Payload, tensor: int, data: bytes) -> list[float]:
    code = header.codes[tensor]
    if code.bits == RAW_BITS:
        return oracle.raw(data)
    codes = oracle.unpack(data, code.bits, 8 * len(data) // code.bits)
    if code.step:
        return [oracle.binary32(code.step * (c - code.zero)) for c in codes]
    assert code.bounds is not None
    return [oracle.value(c, code.bounds.lo, code.bounds.hi, code.bits) for c in codes]


BITS = st.tuples(*[st.one_of(st.integers(1, 16), st.just(RAW_BITS))] * 3, st.integers(0, 1))
STEPS = st.floats(2.0**-10, 1.0, width=32)


@given(st.lists(st.tuples(BITS, STEPS), min_size=1, max_size=6), st.data())
def test_missed_differences_lead_to_the_held_model_bit_for_bit(
    rounds: list[tuple[tuple[int, ...], float]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as spool, ThreadPoolExecutor(1) as worker:
        server = Server(beginning(Path(spool)))
        for bits, step in rounds:
            server.advance(bits, step)
        behind = data.draw(st.integers(0, len(rounds)))
        catch_up = server.history.catch_up(server.digests[behind], len(rounds))
        messages = listened(server.history.frames(catch_up.missed, worker))
        got, digest = added(server.models[behind], server.pasts[behind], messages)
        server.history.close()
    assert not catch_up.whole
    assert got.tobytes() == server.history.held.tobytes()
    assert digest == server.history.digest
    assert all(message.ByteSize() < 2 * CHUNK_BYTES + 60 for message in messages)


@pytest.mark.parametrize("chunk_bytes", [16, 100, 2**20])
def test_the_whole_model_leads_to_the_held_model_bit_for_bit(
    chunk_bytes: int, server: Server
) -> None:
    server.advance((3, 3, 3, 1), 0.01)
    with ThreadPoolExecutor(1) as worker:
        frames = server.history.whole_frames(9, chunk_bytes, worker)
        announced, *parts = listened(message async for message, _ in frames)
    header = headers.from_message(SPEC, announced.model)
    assert (announced.model.round, announced.model.base) == (9, b"")
    assert header.bits == (RAW_BITS,) * 4
    assert {part.chunk.round for part in parts} == {9}
    assert all(0 < len(part.chunk.data) <= chunk_bytes for part in parts)
    data = b"".join(part.chunk.data for part in parts)
    assert data == server.history.held.astype("<f4").tobytes()
    past = Past.none(SPEC.parameters)
    for part in parts:
        holding.take_past(header, chunks.read(part.chunk), past)
    assert past.noted.tobytes() == server.history.past.noted.tobytes()
    assert past.noted.any()
    sent = 4 * 6 + sum(chunks.read(part.chunk).cost_bytes for part in parts)
    server.history.chunk_bytes = min(chunk_bytes, LEAST_CHUNK_BYTES)
    assert len(data) + 4 * 6 < sent <= server.history.whole_bytes


def test_the_digest_is_that_of_the_held_model(server: Server) -> None:
    for _ in range(3):
        server.advance((3, 3, 3, 1), 0.01)
        content = server.history.held.astype("<f4").tobytes() + server.history.past.noted.tobytes()
        assert server.history.digest == blake2b(content, digest_size=8).digest()
    assert len(set(server.digests)) == 4


def test_a_difference_of_zeros_is_no_other_model(server: Server) -> None:
    before = server.history.digest
    server.advance((0, 0, 0, 0), 0.0)
    assert server.history.digest == before
    assert server.history.catch_up(before, 1) == CatchUp()


# ---- The cheaper way ---------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 500), st.booleans()), max_size=8),
    st.integers(0, 8),
)
def test_who_is_behind_is_sent_the_cheaper_of_what_it_missed_and_the_whole(
    rounds: list[tuple[int, bool]], behind: int
) -> None:
    """Some differences change nothing; who missed only those has missed nothing."""
    with TemporaryDirectory() as spool:
        server = Server(beginning(Path(spool)))
        for cost, changes in rounds:
            server.advance((3, 3, 3, 1) if changes else (0, 0, 0, 0), 0.01, cost)
        history, digests = server.history, server.digests
        history.close()
    holds = digests[min(behind, len(rounds))]
    # It may be ahead of where it says it is, if nothing changed in between.
    place = max(i for i, digest in enumerate(digests) if digest == holds)
    missed = [cost for cost, _ in rounds[place:]]
    catch_up = history.catch_up(holds, len(rounds))
    if sum(missed) < history.whole_bytes:
        assert [difference.payload_bytes for difference in catch_up.missed] == missed
        assert (catch_up.whole, catch_up.payload_bytes) == (False, sum(missed))
    else:
        assert (catch_up.missed, catch_up.whole) == ((), True)
        assert catch_up.payload_bytes == history.whole_bytes


@pytest.mark.parametrize("holds", [b"", UNKNOWN, bytes(1000)])
@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_who_holds_nothing_that_is_known_is_sent_the_whole_model(
    rounds: int, holds: bytes, server: Server
) -> None:
    for _ in range(rounds):
        server.advance((3, 3, 3, 1), 0.01)
    assert server.history.catch_up(holds, rounds) == CatchUp(
        whole=True, payload_bytes=server.history.whole_bytes
    )


def test_what_is_ahead_of_the_held_model_is_given_by_slices(server: Server) -> None:
    ahead = server.history.held + np.float32(0.5)
    for part in (slice(0, 10), slice(50, 100, 7), slice(0, 0)):
        expected = ahead[part] - server.history.held[part]
        np.testing.assert_array_equal(server.history.gain(ahead)[part], expected)


# ---- After a restart ---------------------------------------------------------


def again(server: Server, folder: Path) -> History:
    server.history.settle()
    first = server.models[0].copy()
    return History(SPEC, first, folder, Sent(server.history.sent.differences[:2]))


def test_it_goes_on_where_it_was_committed(tmp_path: Path) -> None:
    server = Server(beginning(tmp_path))
    for _ in range(3):
        server.advance((3, 3, 3, 1), 0.01)
    history = again(server, tmp_path)
    assert history.held.tobytes() == server.models[2].tobytes()
    assert history.digest == server.digests[2]
    with ThreadPoolExecutor(1) as worker:
        missed = history.catch_up(server.digests[0], 2).missed
        got, _ = added(server.models[0], server.pasts[0], listened(history.frames(missed, worker)))
    assert got.tobytes() == server.models[2].tobytes()
    # The third difference was not committed, and is not in the file any more.
    assert (tmp_path / "differences-000000.bin").stat().st_size == history.sent.end


def test_another_file_is_noticed(tmp_path: Path) -> None:
    server = Server(beginning(tmp_path))
    for _ in range(2):
        server.advance((3, 3, 3, 1), 0.01)
    server.models[0] += 1
    with pytest.raises(UserError, match="other differences than the ledger"):
        again(server, tmp_path)


def test_who_returns_to_a_round_is_brought_to_where_it_began(server: Server) -> None:
    for _ in range(3):
        server.advance((3, 3, 3, 1), 0.01)
    history, digests = server.history, server.digests
    assert history.catch_up(digests[2], 2) == CatchUp()
    # It has had this round's difference, and a second one does not disturb it.
    assert history.catch_up(digests[3], 2) == CatchUp()
    assert history.catch_up(digests[1], 2).missed == (history.sent.differences[1],)
