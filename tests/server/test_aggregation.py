"""The running sum against exact fractions, in any order, with updates that break off."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec import payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import LARGEST_VALUE, Range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.aggregation import Aggregate, Contribution
from packed_codes import to_chunk
from wire import oracle
from wire.cases import CHUNK_BYTES, SPECS, Sent, payloads, ranges_of

SPEC = ModelSpec((TensorSpec("weight", (3, 7)), TensorSpec("bias", (5,))))


@dataclass(frozen=True)
class Update:
    """A client's update, its weight, how it is cut, and whether it is entropy-coded."""

    sent: Sent
    examples: int
    chunk_bytes: int
    squeeze: bool = False

    @property
    def chunks(self) -> list[Chunk]:
        header = self.sent.header
        return [
            to_chunk(header, 1, offset, data, squeeze=self.squeeze)
            for offset, data in self.sent.chunks(self.chunk_bytes)
        ]


@st.composite
def rounds(draw: st.DrawFn) -> list[Update]:
    """Draw updates of one model, of weights from 1 to the most a server admits."""
    spec = draw(SPECS)
    weights = st.one_of(st.integers(1, 1000), st.integers(1, 2**40))
    # The scale and the centre of a tensor each reach 2**15, so together 2**16.
    return [
        Update(draw(payloads(st.just(spec))), draw(weights), draw(CHUNK_BYTES))
        for _ in range(draw(st.integers(1, 4)))
    ]


def aggregate_for(updates: Sequence[Update], spool: Path) -> Aggregate:
    spec = updates[0].sent.header.spec
    return empty(spec, sum(update.examples for update in updates), spool)


def empty(spec: ModelSpec, examples: int, spool: Path) -> Aggregate:
    return Aggregate(spec, examples, spool, np.zeros(spec.parameters, np.int64))


def fold_all(aggregate: Aggregate, updates: Sequence[Update]) -> None:
    for update in updates:
        contribution = Contribution(aggregate, update.sent.header, update.examples)
        for chunk in update.chunks:
            contribution.add(chunk)
        assert contribution.complete
        contribution.commit()


def fold_interleaved(
    aggregate: Aggregate, updates: Sequence[Update], broken: Sequence[Update], random: Any
) -> None:
    """Fold chunks in a random order across clients; `broken` ones stop somewhere."""
    waiting = []
    for update in (*updates, *broken):
        chunks = update.chunks
        if any(update is one for one in broken):
            chunks = chunks[: random.randint(0, len(chunks))]
        contribution = Contribution(aggregate, update.sent.header, update.examples)
        waiting.append((update, contribution, chunks))
    while waiting:
        number = random.randrange(len(waiting))
        update, contribution, chunks = waiting[number]
        if chunks:
            contribution.add(chunks.pop(0))
            continue
        del waiting[number]
        if any(update is one for one in broken):
            contribution.undo()
        else:
            contribution.commit()


def exact_tensors(sent: Sent) -> Iterator[tuple[list[Fraction], float]]:
    """Yield what the codes of each tensor stand for, before any rounding, and its width."""
    data = b"".join(data for _, data in sent.chunks(2**20))
    for code, elements, start in zip(
        sent.header.codes, sent.header.spec.elements, sent.header.starts, strict=False
    ):
        if code.bounds is None:
            values = oracle.raw(data[start : start + 4 * elements])
            yield [Fraction(value) for value in values], 2 * max(map(abs, values), default=0)
            continue
        lo, hi = code.bounds.lo, code.bounds.hi
        step = Fraction(oracle.step(lo, hi, code.bits))
        codes = oracle.unpack(data[start:], code.bits, elements)
        yield [Fraction(lo) + step * c for c in codes], hi - lo


@given(rounds())
def test_the_sum_is_the_exact_one_to_two_units_a_client(updates: list[Update]) -> None:
    """Half a unit for the origin and half for the product, and the rounding of the slope.

    The slope keeps 30 fractional bits, of which a code makes 16 useless; of a range wider
    than 2**31 units it keeps 61 bits in all, so 2**-45 of the width are lost.
    """
    with TemporaryDirectory() as spool:
        aggregate = aggregate_for(updates, Path(spool))
        fold_all(aggregate, updates)
    unit = Fraction(2) ** -aggregate.exponent
    totals = iter(aggregate.total.tolist())
    for clients in zip(*(exact_tensors(update.sent) for update in updates), strict=True):
        weighted = [(update.examples, *one) for update, one in zip(updates, clients, strict=True)]
        allowed = sum(2 * unit + w * Fraction(width) / 2**45 for w, _, width in weighted)
        for values in zip(*(values for _, values, _ in weighted), strict=True):
            exact = sum(w * value for (w, *_), value in zip(weighted, values, strict=True))
            assert abs(next(totals) * unit - exact) <= allowed
    assert next(totals, None) is None


@given(rounds())
def test_the_mean_is_the_sum_rounded_once(updates: list[Update]) -> None:
    with TemporaryDirectory() as spool:
        aggregate = aggregate_for(updates, Path(spool))
        fold_all(aggregate, updates)
    got = np.empty(aggregate.spec.parameters, np.float32)
    aggregate.apply(np.zeros_like(got), got)
    scale = Fraction(2) ** -aggregate.exponent / sum(update.examples for update in updates)
    for mean, total in zip(got.tolist(), aggregate.total.tolist(), strict=True):
        # Half a unit in the last place of a float32, and of the float64 on the way to it.
        exact = total * scale
        allowed = abs(exact) * Fraction(1001, 1000) / 2**24 + Fraction(1, 2**149)
        assert abs(Fraction(mean) - exact) <= allowed


@given(rounds(), st.randoms(use_true_random=False), CHUNK_BYTES, st.booleans())
def test_the_sum_is_the_same_in_any_order_and_however_it_is_cut(
    updates: list[Update], random: Any, chunk_bytes: int, squeeze: bool
) -> None:
    with TemporaryDirectory() as spool:
        plain = aggregate_for(updates, Path(spool))
        fold_all(plain, updates)
        mixed = aggregate_for(updates, Path(spool))
        recut = [Update(u.sent, u.examples, chunk_bytes, squeeze) for u in updates]
        fold_interleaved(mixed, random.sample(recut, len(recut)), [], random)
    assert mixed.total.tobytes() == plain.total.tobytes()
    assert mixed.examples == plain.examples


@given(rounds(), st.randoms(use_true_random=False))
def test_updates_that_break_off_leave_no_trace(updates: list[Update], random: Any) -> None:
    kept, broken = updates[:-1], updates[-1:]
    with TemporaryDirectory() as spool:
        plain, mixed = (aggregate_for(updates, Path(spool)) for _ in range(2))
        fold_all(plain, kept)
        fold_interleaved(mixed, kept, broken, random)
        assert not list(Path(spool).iterdir())
    assert mixed.total.tobytes() == plain.total.tobytes()
    assert mixed.examples == plain.examples


def one_update(values: Any, bits: int, examples: int) -> Update:
    flat = np.asarray(values, np.float32)
    spec = ModelSpec((TensorSpec("t", flat.shape),))
    header = payload.plan_payload(spec, (bits,), ranges_of(spec, flat))
    return Update(Sent(header, flat, payload.transfer_keys(spec, 1, "test")), examples, 1024)


@pytest.mark.parametrize("bits", [1, 8, 16, 32])
@pytest.mark.parametrize("examples", [1, 1000, 2**40])
def test_the_largest_updates_do_not_overflow(tmp_path: Path, bits: int, examples: int) -> None:
    ends = [LARGEST_VALUE, -LARGEST_VALUE]
    updates = [one_update(ends, bits, examples)] * 50
    aggregate = aggregate_for(updates, tmp_path)
    fold_all(aggregate, updates)
    out = np.empty(2, np.float32)
    aggregate.apply(np.zeros(2, np.float32), out)
    # A 16-bit step of this range is rounded by up to 2**-24 of the range.
    assert out == pytest.approx(ends, abs=2**17 * 2.0**-24)


def test_the_mean_is_added_to_the_base(tmp_path: Path) -> None:
    updates = [one_update([1.0, -1.0, 0.5], 32, 3), one_update([0.0, 2.0, 0.5], 32, 1)]
    aggregate = aggregate_for(updates, tmp_path)
    fold_all(aggregate, updates)
    model = np.array([10, 20, 30], np.float32)
    aggregate.apply(model, model)
    assert model.tolist() == [10.75, 19.75, 30.5]


def test_without_any_update_the_base_stays(tmp_path: Path) -> None:
    aggregate = empty(SPEC, 100, tmp_path)
    base = np.arange(SPEC.parameters, dtype=np.float32)
    out = np.empty_like(base)
    aggregate.apply(base, out)
    assert out.tobytes() == base.tobytes()


def test_the_weights_of_those_who_finished_are_the_whole(tmp_path: Path) -> None:
    aggregate = empty(ModelSpec((TensorSpec("t", (1,)),)), 1000, tmp_path)
    fold_all(aggregate, [one_update([0.25], 32, 4)])
    out = np.zeros(1, np.float32)
    aggregate.apply(out, out)
    assert out.tolist() == [0.25]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_the_model_may_take_the_place_of_the_sum_part_by_part(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0, *sizes]).tolist()
    spec = ModelSpec((TensorSpec("t", (ends[-1],)),))
    sums = rng.integers(-(2**50), 2**50, ends[-1])
    base = rng.standard_normal(ends[-1], np.float32)
    expected, shared = np.empty_like(base), sums.copy()
    Aggregate(spec, 3, Path(), sums).apply(base, expected)
    model = shared.view(np.float32)[: ends[-1]]
    for part in map(slice, ends, ends[1:]):
        Aggregate(spec, 3, Path(), shared).apply(base[part], model, part)
    assert model.tobytes() == expected.tobytes()


# ---- Refusals --------------------------------------------------------------


@contextmanager
def refused(reason: "pb.RefusalReason", said: str) -> Iterator[None]:
    with pytest.raises(ProtocolError, match=said) as caught:
        yield
    assert caught.value.reason == reason


RAW = np.zeros(5, "<f4")


def raw_with(value: float) -> bytes:
    values = RAW.copy()
    values[3] = value
    return values.tobytes()


@pytest.mark.parametrize(
    ("offset", "data", "reason", "said"),
    [
        (0, b"abc", pb.REFUSAL_REASON_OUT_OF_ORDER, "for byte 0 arrived; byte 3 is next"),
        (6, b"ab", pb.REFUSAL_REASON_OUT_OF_ORDER, "for byte 6 arrived; byte 3 is next"),
        (2**64 - 1, b"ab", pb.REFUSAL_REASON_OUT_OF_ORDER, "byte 3 is next"),
        (3, b"", pb.REFUSAL_REASON_WRONG_SIZE, "0 bytes at byte 3 does not fit"),
        (3, bytes(26), pb.REFUSAL_REASON_WRONG_SIZE, "26 bytes at byte 3 .* of 28 code bytes"),
        (3, bytes(4), pb.REFUSAL_REASON_WRONG_SIZE, "splits a group of values of tensor weight"),
        (3, bytes(7), pb.REFUSAL_REASON_WRONG_SIZE, "splits a group of values of tensor bias"),
        (3, bytes(5) + raw_with(np.nan), pb.REFUSAL_REASON_NOT_FINITE, "NaN or infinite"),
        (3, bytes(5) + raw_with(np.inf), pb.REFUSAL_REASON_NOT_FINITE, "NaN or infinite"),
        (
            3,
            bytes(5) + raw_with(-1.5 * LARGEST_VALUE),
            pb.REFUSAL_REASON_OUT_OF_RANGE,
            "tensor bias: the update reaches 98304; at most 65536 is accepted",
        ),
    ],
)
def test_a_bad_chunk_is_refused_and_changes_nothing(
    tmp_path: Path, offset: int, data: bytes, reason: "pb.RefusalReason", said: str
) -> None:
    # 21 values of 3 bits, 8 bytes, then 5 raw values, 20 bytes; the first group is there.
    header = payload.plan_payload(SPEC, (3, 32), [Range(-1.0, 1.0), Range(-1.0, 1.0)])
    aggregate = empty(SPEC, 10, tmp_path)
    contribution = Contribution(aggregate, header, 4)
    contribution.add(Chunk(0, 0, b"\xff\x00\xaa"))
    before = aggregate.total.tobytes()
    with refused(reason, said):
        contribution.add(Chunk(0, offset, data))
    assert aggregate.total.tobytes() == before
    # The rest can still come, and the whole still go.
    contribution.add(Chunk(0, 3, bytes(5) + RAW.tobytes()))
    assert contribution.complete
    contribution.undo()
    assert not aggregate.total.any()


@pytest.mark.parametrize("bounds", [Range(0.0, 65537.0), Range(-65537.0, 0.0)])
def test_a_range_that_the_sum_cannot_hold_is_refused(tmp_path: Path, bounds: Range) -> None:
    header = payload.plan_payload(SPEC, (3, 32), [bounds, bounds])
    with refused(pb.REFUSAL_REASON_OUT_OF_RANGE, "tensor weight: the update reaches 65537"):
        Contribution(empty(SPEC, 10, tmp_path), header, 4)


@pytest.mark.parametrize("room", [0, 1, 50])
def test_an_update_for_which_there_is_no_room_leaves_nothing_in_the_sum(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes a part of a chunk, if anything."""
    header, codes = payload.Payload(SPEC, (payload.RAW,) * 2), np.ones(26, "<f4").tobytes()
    aggregate = empty(SPEC, 4, tmp_path)
    contribution = Contribution(aggregate, header, 4)
    contribution.add(Chunk(1, 0, codes[:44]))
    after_one = aggregate.total.copy()
    assert after_one.any()
    file = _Full(contribution._spool._file, room)
    monkeypatch.setattr(contribution._spool, "_file", file)
    with pytest.raises(OSError, match="No space left") as refusal:
        contribution.add(Chunk(1, 44, codes[44:]))
    assert refusal.value.filename == str(tmp_path)
    assert (aggregate.total == after_one).all()
    contribution.undo()
    assert not aggregate.total.any()


class _Full:
    """A file on a disk with little room."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
