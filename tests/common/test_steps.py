"""Codes that lie a step apart around zero, and tensors that are not sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import headers, payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import (
    COARSENINGS,
    RAW,
    ZERO,
    Payload,
    TensorCode,
    coarser_steps,
    plan_payload,
    step_bits,
    step_code,
)
from fedaq.codec.quantizer import SMALLEST_STEP, Floats, Range, value_range
from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb
from wire import oracle

STEP = 0.25
ENDS = st.floats(-100.0, 100.0, width=32)
STEPS = st.floats(2.0**-14, 2.0**7, width=32)
# All that fit 16 bits at these steps.
NEAR = st.floats(-1.0, 1.0, width=32)


def spec_of(*sizes: int) -> ModelSpec:
    return ModelSpec(tuple(TensorSpec(f"t{i}", (size,)) for i, size in enumerate(sizes)))


def values_of(code: TensorCode, codes: list[int]) -> Floats:
    """Decode codes of one tensor."""
    header = Payload(spec_of(len(codes)), (code,))
    flat = np.full(len(codes), np.nan, np.float32)
    packed_codes.decode_chunk(header, 0, oracle.pack(codes, code.bits), flat)
    return flat


def sent(flat: Floats, code: TensorCode, *, nearest: bool = False, seed: int = 1) -> list[int]:
    """Return the codes of the values."""
    header = Payload(spec_of(flat.size), (code,))
    keys = payload.transfer_keys(header.spec, seed, "test")
    [(offset, length)] = header.chunks(2**21)
    data = packed_codes.encode_chunk(
        header, flat.__getitem__, keys, offset, length, nearest=nearest
    )
    return oracle.unpack(bytes(data), code.bits, flat.size)


# ---- Which codes -------------------------------------------------------------


@given(ENDS, ENDS, STEPS)
def test_codes_cover_the_range_with_the_fewest_bits(one: float, other: float, step: float) -> None:
    bounds = Range(min(one, other), max(one, other))
    code = step_code(bounds, step)
    grid = code.grid
    assert grid is not None
    assert grid.lo <= min(bounds.lo, 0)
    assert grid.hi >= max(bounds.hi, 0)
    if code.step == step:
        # With a bit less, codes from the last one at or below `lo` do not reach `hi`.
        below = -((-min(bounds.lo, 0)) // -step)
        above = -((-max(bounds.hi, 0)) // step)
        assert code.bits == 1 or 2 ** (code.bits - 1) <= below + above
    else:
        assert (max(bounds.hi, 0) - min(bounds.lo, 0)) / step > 2**15 - 2
        assert np.log2(code.step / step) == round(np.log2(code.step / step))
        assert code.bits == 16


@given(ENDS, ENDS, STEPS)
def test_zero_is_a_code_of_its_own_and_exact(one: float, other: float, step: float) -> None:
    code = step_code(Range(min(one, other), max(one, other)), step)
    assert 0 <= code.zero < 2**code.bits
    [value] = values_of(code, [code.zero])
    assert value == 0.0


@given(st.lists(NEAR, min_size=1, max_size=40), STEPS)
def test_values_are_steps_from_zero(reached: list[float], step: float) -> None:
    code = step_code(value_range(np.array(reached, np.float32)), step)
    codes = list(range(min(2**code.bits, 100)))
    expected = [oracle.binary32(code.step * (c - code.zero)) for c in codes]
    assert values_of(code, codes).tolist() == expected


def test_a_range_far_too_wide_for_its_step_gets_the_finest_that_sixteen_bits_have() -> None:
    code = step_code(Range(-(2.0**126), 2.0**126), SMALLEST_STEP)
    assert code.bits == 16
    assert code.step < 2.0**113
    assert step_code(Range(-1.0, 1.0), 0.0).step == 2.0**-14


REACHES = st.one_of(ENDS, st.floats(-(2.0**126), 2.0**126, width=32))
ANY_STEPS = st.one_of(STEPS, st.floats(0.0, 2.0**100), st.just(SMALLEST_STEP))


@given(st.lists(st.tuples(REACHES, REACHES, ANY_STEPS), min_size=1, max_size=20))
def test_the_bits_of_many_codes_are_those_of_each(tried: list[tuple[float, float, float]]) -> None:
    one, other, steps = np.array(tried, np.float64).T
    lo, hi = np.minimum(one, other), np.maximum(one, other)
    expected = [
        step_code(Range(*ends), step).bits for *ends, step in zip(lo, hi, steps, strict=True)
    ]
    assert step_bits(lo, hi, steps).tolist() == expected


# ---- How well ----------------------------------------------------------------


@given(st.lists(NEAR, min_size=1, max_size=40), STEPS)
def test_to_the_nearest_code_errors_are_at_most_half_a_step(
    reached: list[float], step: float
) -> None:
    flat = np.array(reached, np.float32)
    code = step_code(value_range(flat), step)
    got = values_of(code, sent(flat, code, nearest=True))
    # Positions are float32: of 2**16 codes they miss the middle by 2**-8 of a step.
    allowed = code.step * (0.5 + 2.0 ** (code.bits - 24)) + np.abs(flat).max() * 2.0**-23
    assert np.abs(got.astype(np.float64) - flat).max() <= allowed


@given(STEPS)
def test_to_the_nearest_code_zero_stays_zero(step: float) -> None:
    flat = np.array([0.7, 0.0, -0.2, 0.0], np.float32)
    code = step_code(value_range(flat), step)
    codes = sent(flat, code, nearest=True)
    assert [codes[1], codes[3]] == [code.zero, code.zero]


@pytest.mark.parametrize("step", [0.003, 0.05, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("value", [0.0, 0.1, -0.22, 0.9])
def test_at_random_codes_are_unbiased_and_at_most_a_step_away(step: float, value: float) -> None:
    many = 40_000
    flat = np.full(many, value, np.float32)
    flat[:2] = -1.0, 1.0
    code = step_code(Range(-1.0, 1.0), step)
    got = values_of(code, sent(flat, code)).astype(np.float64)[2:]
    assert np.abs(got - flat[2:]).max() <= code.step * (1 + 2.0**-10)
    # Five standard errors of the dearest coin.
    assert abs(got.mean() - flat[2]) <= 5 * code.step / 2 / many**0.5


# ---- Headers -----------------------------------------------------------------


@given(ENDS, ENDS, STEPS, st.sampled_from([RAW, ZERO, TensorCode(3, Range(-1.0, 2.0))]))
def test_headers_come_back_as_they_went(
    one: float, other: float, step: float, beside: TensorCode
) -> None:
    code = step_code(Range(min(one, other), max(one, other)), step)
    header = Payload(spec_of(5, 9), (code, beside))
    message = payload.to_message(header, 3, base=b"12345678")
    read = pb.PayloadHeader.FromString(message.SerializeToString())
    assert read.base == b"12345678"
    assert headers.from_message(header.spec, read) == header


@given(ENDS, ENDS, STEPS)
def test_header_bytes_are_what_the_tensors_lengthen_the_header_by(
    one: float, other: float, step: float
) -> None:
    code = step_code(Range(min(one, other), max(one, other)), step)
    header = Payload(spec_of(5, 9), (code, ZERO))
    message = payload.to_message(header, 3)
    bare = pb.PayloadHeader(round=3, code_bytes=message.code_bytes)
    assert header.header_bytes == message.ByteSize() - bare.ByteSize()
    assert ZERO.header_bytes == 4
    assert header.code_bytes == -(-5 * code.bits // 8)


@contextmanager
def refused(reason: "pb.RefusalReason", said: str) -> Iterator[None]:
    with pytest.raises(ProtocolError, match=said) as caught:
        yield
    assert caught.value.reason == reason


def step_header(**fields: float) -> pb.PayloadHeader:
    right = {"codec": pb.CODEC_STEP, "bits": 3, "step": STEP, "zero": 2}
    header = pb.PayloadHeader(code_bytes=3)
    header.tensors.add(**{**right, **fields})
    return header


SHAPE, FINITE = pb.REFUSAL_REASON_WRONG_SHAPE, pb.REFUSAL_REASON_NOT_FINITE


def test_the_header_that_is_broken_below_is_right() -> None:
    assert headers.from_message(spec_of(8), step_header()).codes == (
        TensorCode(3, step=STEP, zero=2),
    )


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"step": 0.0}, FINITE, "t0: a quantization step of 0"),
        ({"step": -STEP}, FINITE, "t0: a quantization step of -0.25"),
        ({"step": nan}, FINITE, "t0: a quantization step of nan"),
        ({"step": inf}, FINITE, "t0: a quantization step of inf"),
        ({"step": SMALLEST_STEP / 2}, FINITE, "t0: a quantization step of"),
        ({"step": 2.0**127}, FINITE, "t0: the range .* reaches beyond"),
        ({"zero": 8}, SHAPE, "t0: 3 bits have no code 8 to stand for 0"),
        ({"zero": 2**32 - 1}, SHAPE, "no code 4294967295"),
        ({"bits": 0}, SHAPE, "t0: 0 bits"),
        ({"bits": 17}, SHAPE, "t0: 17 bits"),
        ({"bits": 32}, SHAPE, "codec 3 with 32 bits is unknown"),
        ({"codec": pb.CODEC_ZERO}, SHAPE, "codec 4 with 3 bits is unknown"),
        ({"codec": pb.CODEC_UNIFORM}, SHAPE, "its range is missing"),
        ({"codec": pb.CODEC_UNIFORM, "bits": 0}, SHAPE, "0 bits"),
        ({"codec": pb.CODEC_RAW, "bits": 0}, SHAPE, "codec 1 with 0 bits is unknown"),
    ],
)
def test_a_header_that_cannot_be_is_refused(
    fields: dict[str, float], reason: "pb.RefusalReason", said: str
) -> None:
    with refused(reason, said):
        headers.from_message(spec_of(8), step_header(**fields))


def test_what_is_not_sent_has_no_code_bytes() -> None:
    with refused(pb.REFUSAL_REASON_WRONG_SIZE, "announces 3 code bytes"):
        headers.from_message(spec_of(8), step_header(codec=pb.CODEC_ZERO, bits=0, step=0, zero=0))


# ---- Ever coarser ------------------------------------------------------------


def planned(scale: float, bits: tuple[int, ...], steps: tuple[float, ...]) -> Payload:
    spec = spec_of(*(9 for _ in bits))
    return plan_payload(spec, bits, [Range(-scale, 2 * scale)] * len(bits), steps)


@given(st.floats(2.0**-10, 2.0**10), STEPS)
def test_steps_widen_and_end_with_all_zeros(scale: float, step: float) -> None:
    header = planned(scale, (8, 3, 32, 0), (step, 0.0, 0.0, 0.0))
    *coarser, last = header.ever_coarser()
    assert coarser[0] == header
    assert len(coarser) == COARSENINGS
    first = header.codes[0]
    steps = [c.codes[0].step for c in coarser]
    assert steps == list(coarser_steps(first.step))
    assert steps == pytest.approx([first.step * 1.25**k for k in range(8)], rel=1e-5)
    assert last.codes[0] == ZERO
    # What has no step stays as it is.
    assert {payload.codes[1:] for payload in (*coarser, last)} == {header.codes[1:]}


@given(NEAR, NEAR, STEPS)
def test_codes_become_fewer_as_steps_widen(one: float, other: float, step: float) -> None:
    bounds = Range(min(one, other), max(one, other))
    assume((max(bounds.hi, 0) - min(bounds.lo, 0)) / step < 2**15 - 2)
    header = plan_payload(spec_of(100), (8,), [bounds], (step,))
    before = header.codes[0].bits
    for coarser in list(header.ever_coarser())[:-1]:
        [code] = coarser.codes
        assert code == step_code(bounds, code.step)
        assert code.bits <= before
        before = code.bits
        assert code.grid is not None
        assert code.grid.lo <= bounds.lo
        assert code.grid.hi >= bounds.hi
    assert coarser.code_bytes <= header.code_bytes


@given(st.lists(NEAR, min_size=2, max_size=30), STEPS)
def test_each_of_them_sends_the_values_within_its_step(reached: list[float], step: float) -> None:
    flat = np.array(reached, np.float32)
    header = plan_payload(spec_of(flat.size), (8,), [value_range(flat)], (step,))
    for coarser in header.ever_coarser():
        [code] = coarser.codes
        if code == ZERO:
            continue
        got = values_of(code, sent(flat, code)).astype(np.float64)
        assert np.abs(got - flat).max() <= code.step * (1 + 2.0 ** (code.bits - 23))
