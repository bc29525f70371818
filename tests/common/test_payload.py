"""Payloads: layout, chunks, round trips, and what is refused of a peer's."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import headers, payload, quantizer
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats, Range
from fedaq.errors import NotFiniteError, ProtocolError
from fedaq.v1 import federation_pb2 as pb
from wire import oracle
from wire.cases import CHUNK_BYTES, SPECS, Sent, payloads

SPEC = ModelSpec((TensorSpec("weight", (3, 7)), TensorSpec("bias", (5,))))


def decoded(header: Payload, chunks: list[tuple[int, memoryview]]) -> Floats:
    flat = np.full(header.spec.parameters, np.nan, np.float32)
    for offset, data in chunks:
        packed_codes.decode_chunk(header, offset, data, flat)
    return flat


def announce(spec: ModelSpec = SPEC, bits: tuple[int, ...] = (3, 32)) -> pb.PayloadHeader:
    header = payload.plan_payload(spec, bits, [Range(-1.0, 1.0)] * len(bits))
    return payload.to_message(header, 1)


@contextmanager
def refused(reason: "pb.RefusalReason", said: str) -> Iterator[None]:
    with pytest.raises(ProtocolError, match=said) as caught:
        yield
    assert caught.value.reason == reason


# ---- Round trips -----------------------------------------------------------


@given(payloads(), CHUNK_BYTES)
def test_what_is_decoded_is_within_a_step_of_what_was_sent(sent: Sent, chunk_bytes: int) -> None:
    got = decoded(sent.header, sent.chunks(chunk_bytes))
    spec = sent.header.spec
    for code, true, values in zip(
        sent.header.codes, spec.split(sent.flat), spec.split(got), strict=True
    ):
        if code.bounds is None:
            assert values.tobytes() == true.tobytes()
        elif true.size:
            step = quantizer.quantization_step(code.bounds, code.bits)
            rounding = np.abs(true).max() * 2.0**-23
            allowed = step * (1 + 2**code.bits * 2.0**-22) + rounding
            assert np.abs(values.astype(np.float64) - true).max() <= allowed


@given(payloads())
def test_the_code_bytes_are_the_packed_codes_of_one_tensor_after_another(sent: Sent) -> None:
    [*chunks] = sent.chunks(2**20)
    data = b"".join(data for _, data in chunks)
    got = decoded(sent.header, chunks)
    rebuilt = b""
    for code, elements, values in zip(
        sent.header.codes, sent.header.spec.elements, sent.header.spec.split(got), strict=True
    ):
        size = -(-elements * code.bits // 8)
        mine = data[len(rebuilt) : len(rebuilt) + size]
        if code.bounds is None:
            assert oracle.raw(mine) == values.tolist()
            rebuilt += mine
            continue
        codes = oracle.unpack(mine, code.bits, elements)
        lo, hi = code.bounds.lo, code.bounds.hi
        assert [oracle.value(c, lo, hi, code.bits) for c in codes] == values.tolist()
        rebuilt += oracle.pack(codes, code.bits)  # with padding bits of zero
    assert rebuilt == data
    assert len(data) == sent.header.code_bytes


@given(payloads(), CHUNK_BYTES, CHUNK_BYTES)
def test_chunks_are_cut_anywhere_and_say_the_same(sent: Sent, one: int, other: int) -> None:
    assert b"".join(data for _, data in sent.chunks(one)) == b"".join(
        data for _, data in sent.chunks(other)
    )


@given(payloads(), CHUNK_BYTES)
def test_chunks_follow_each_other_and_none_is_empty_or_too_long(
    sent: Sent, chunk_bytes: int
) -> None:
    place = 0
    for offset, length in sent.header.chunks(chunk_bytes):
        assert offset == place
        assert 0 < length <= chunk_bytes
        place += length
    assert place == sent.header.code_bytes


@given(payloads(), CHUNK_BYTES, st.randoms(use_true_random=False))
def test_chunks_are_decoded_in_any_order(sent: Sent, chunk_bytes: int, random: Any) -> None:
    chunks = sent.chunks(chunk_bytes)
    shuffled = random.sample(chunks, len(chunks))
    assert decoded(sent.header, shuffled).tobytes() == decoded(sent.header, chunks).tobytes()


# ---- Headers ---------------------------------------------------------------


@given(payloads(), st.integers(1, 2**32 - 1))
def test_a_header_comes_back_as_it_went(sent: Sent, round_number: int) -> None:
    data = payload.to_message(sent.header, round_number).SerializeToString()
    message = pb.PayloadHeader.FromString(data)
    assert message.round == round_number
    assert headers.from_message(sent.header.spec, message) == sent.header


@given(payloads())
def test_payload_bytes_are_the_real_growth_of_the_header_and_the_real_codes(sent: Sent) -> None:
    message = payload.to_message(sent.header, 3)
    bare = pb.PayloadHeader(round=message.round, code_bytes=message.code_bytes)
    grown = message.ByteSize() - bare.ByteSize()
    codes = sum(len(data) for _, data in sent.chunks(2**20))
    assert sent.header.payload_bytes == grown + codes


@pytest.mark.parametrize("bits", [*range(1, 17), 32])
def test_each_tensor_lengthens_the_header_by_the_documented_bytes(bits: int) -> None:
    spec = ModelSpec((TensorSpec("t", (9,)),))
    for bounds in (Range(0.0, 0.0), Range(-0.5, 2.0**100)):
        header = payload.plan_payload(spec, (bits,), [bounds])
        message = payload.to_message(header, 1)
        bare = pb.PayloadHeader(round=1, code_bytes=message.code_bytes)
        assert message.ByteSize() - bare.ByteSize() == header.header_bytes
        assert header.codes[0].header_bytes == (6 if bits == 32 else 16)


def changed(change: Callable[[pb.PayloadHeader], object]) -> pb.PayloadHeader:
    header = announce()
    change(header)
    return header


def set_tensor(**fields: Any) -> Callable[[pb.PayloadHeader], object]:
    return lambda h: h.tensors[0].MergeFrom(pb.TensorHeader(**fields))


def clear(name: Literal["codec", "bits", "lo", "hi"]) -> Callable[[pb.PayloadHeader], object]:
    return lambda h: h.tensors[0].ClearField(name)


BAD_HEADERS: list[tuple[Callable[[pb.PayloadHeader], object], "pb.RefusalReason", str]] = [
    (lambda h: h.tensors.pop(), pb.REFUSAL_REASON_WRONG_SHAPE, "1 tensors, the model 2"),
    (lambda h: h.tensors.add(), pb.REFUSAL_REASON_WRONG_SHAPE, "3 tensors, the model 2"),
    (
        clear("codec"),
        pb.REFUSAL_REASON_WRONG_SHAPE,
        "weight: codec 0 with 3 bits",
    ),
    (set_tensor(codec=77), pb.REFUSAL_REASON_WRONG_SHAPE, "weight: codec 77"),
    (set_tensor(codec=pb.CODEC_RAW), pb.REFUSAL_REASON_WRONG_SHAPE, "codec 1 with 3 bits"),
    (set_tensor(bits=32), pb.REFUSAL_REASON_WRONG_SHAPE, "codec 2 with 32 bits"),
    (
        clear("bits"),
        pb.REFUSAL_REASON_WRONG_SHAPE,
        "weight: 0 bits; 1 to 16",
    ),
    (set_tensor(bits=17), pb.REFUSAL_REASON_WRONG_SHAPE, "weight: 17 bits"),
    (set_tensor(bits=2**32 - 1), pb.REFUSAL_REASON_WRONG_SHAPE, "4294967295 bits"),
    (clear("lo"), pb.REFUSAL_REASON_WRONG_SHAPE, "range is missing"),
    (clear("hi"), pb.REFUSAL_REASON_WRONG_SHAPE, "range is missing"),
    (set_tensor(lo=float("nan")), pb.REFUSAL_REASON_NOT_FINITE, "weight: .*not finite"),
    (set_tensor(hi=float("inf")), pb.REFUSAL_REASON_NOT_FINITE, "weight: .*not finite"),
    (set_tensor(lo=2.0), pb.REFUSAL_REASON_NOT_FINITE, "weight: .*reversed"),
    (set_tensor(hi=3e38), pb.REFUSAL_REASON_NOT_FINITE, "weight: .*beyond"),
    (set_tensor(bits=4), pb.REFUSAL_REASON_WRONG_SIZE, "announces 28 code bytes.* need 31"),
    (
        lambda h: setattr(h, "code_bytes", 2**64 - 1),
        pb.REFUSAL_REASON_WRONG_SIZE,
        "announces 18446744073709551615",
    ),
    (lambda h: h.ClearField("code_bytes"), pb.REFUSAL_REASON_WRONG_SIZE, "announces 0"),
]


@pytest.mark.parametrize(("change", "reason", "said"), BAD_HEADERS)
def test_a_malformed_header_is_refused_for_what_is_wrong_with_it(
    change: Callable[[pb.PayloadHeader], object], reason: "pb.RefusalReason", said: str
) -> None:
    with refused(reason, said):
        headers.from_message(SPEC, changed(change))


@st.composite
def any_headers(draw: st.DrawFn) -> pb.PayloadHeader:
    floats = st.floats(width=32)
    header = pb.PayloadHeader(code_bytes=draw(st.integers(0, 2**64 - 1)))
    for _ in range(draw(st.integers(0, 4))):
        tensor = header.tensors.add(
            codec=draw(st.integers(0, 3)),
            bits=draw(st.one_of(st.integers(0, 33), st.integers(0, 2**32 - 1))),
        )
        if draw(st.booleans()):
            tensor.lo = draw(floats)
        if draw(st.booleans()):
            tensor.hi = draw(floats)
    return header


@given(SPECS, any_headers())
def test_any_header_is_a_payload_of_the_model_or_refused(
    spec: ModelSpec, message: pb.PayloadHeader
) -> None:
    try:
        header = headers.from_message(spec, message)
    except ProtocolError as error:
        assert error.reason != pb.REFUSAL_REASON_UNSPECIFIED
        return
    assert header.code_bytes == message.code_bytes
    assert len(header.codes) == len(spec.tensors)


@pytest.mark.parametrize("code_bytes", [2**40, 2**63, 2**64 - 1])
def test_no_memory_is_reserved_for_what_a_header_announces(code_bytes: int) -> None:
    spec = ModelSpec(tuple(TensorSpec(f"t{i}", (2**32 - 1,)) for i in range(100)))
    message = announce(spec, (16,) * 100)
    assert message.code_bytes == 100 * 2 * (2**32 - 1)
    tracemalloc.start()
    try:
        headers.from_message(spec, message)
        message.code_bytes = code_bytes
        with refused(pb.REFUSAL_REASON_WRONG_SIZE, "announces"):
            headers.from_message(spec, message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# ---- Chunks ----------------------------------------------------------------

# 21 values of 3 bits, 8 bytes; then 5 raw values, 20 bytes.
HEADER = headers.from_message(SPEC, announce())


@pytest.mark.parametrize(
    ("offset", "length", "said"),
    [
        (0, 0, "0 bytes at byte 0 does not fit"),
        (28, 1, "1 bytes at byte 28 does not fit a payload of 28"),
        (0, 29, "29 bytes at byte 0 does not fit"),
        (2**64 - 1, 3, "does not fit"),
        (1, 7, "at byte 1 splits a group of values of tensor weight"),
        (0, 4, "at byte 0 splits a group of values of tensor weight"),
        (6, 1, "at byte 6 splits a group of values of tensor weight"),
        (0, 9, "at byte 0 splits a group of values of tensor bias"),
        (10, 18, "at byte 10 splits a group of values of tensor bias"),
    ],
)
def test_a_malformed_chunk_is_refused_and_says_where(offset: int, length: int, said: str) -> None:
    flat = np.zeros(SPEC.parameters, np.float32)
    with refused(pb.REFUSAL_REASON_WRONG_SIZE, said):
        packed_codes.decode_chunk(HEADER, offset, bytes(length), flat)


@given(payloads(), st.integers(0, 400), st.integers(0, 400))
def test_any_chunk_is_decoded_in_its_place_or_refused(sent: Sent, offset: int, length: int) -> None:
    data = b"".join(data for _, data in sent.chunks(2**20))[offset : offset + length]
    whole = decoded(sent.header, sent.chunks(2**20))
    flat = np.full_like(whole, np.nan)
    try:
        packed_codes.decode_chunk(sent.header, offset, data, flat)
    except ProtocolError as error:
        assert error.reason == pb.REFUSAL_REASON_WRONG_SIZE
        return
    written = ~np.isnan(flat)
    assert written.any()
    assert flat[written].tobytes() == whole[written].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**127])
def test_raw_values_that_are_not_numbers_are_refused(value: float) -> None:
    data = np.array([0, 1, value, 2, 3], "<f4").tobytes()
    with refused(pb.REFUSAL_REASON_NOT_FINITE, "raw tensor"):
        packed_codes.decode_chunk(HEADER, 8, data, np.zeros(SPEC.parameters, np.float32))


@pytest.mark.parametrize("chunk_bytes", [0, 1, 15])
def test_chunks_too_small_for_a_group_are_refused_rather_than_never_ending(
    chunk_bytes: int,
) -> None:
    with refused(pb.REFUSAL_REASON_WRONG_SIZE, f"chunks of {chunk_bytes} bytes are too small"):
        next(HEADER.chunks(chunk_bytes))


# ---- Sending ---------------------------------------------------------------


def test_a_tensor_that_is_not_finite_is_named() -> None:
    flat = np.zeros(SPEC.parameters, np.float32)
    flat[-1] = np.nan
    with pytest.raises(NotFiniteError, match="tensor bias: a value is NaN or infinite"):
        payload.tensor_spreads(SPEC, flat.__getitem__)


def test_every_tensor_of_every_transfer_has_its_own_key() -> None:
    keys = [
        key
        for path in (("uplink", "a", 1), ("uplink", "a", 2), ("uplink", "b", 1), ("downlink", 1))
        for key in payload.transfer_keys(SPEC, 5, *path)
    ]
    assert len(set(keys)) == 8
