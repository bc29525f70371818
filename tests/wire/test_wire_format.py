"""docs/reference/wire-format.md, its C decoder and its test vectors against the product's code."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import packed_codes
from fedaq import PROTOCOL_VERSION
from fedaq.cli.inspection import read_payload
from fedaq.codec import chunks, coding, entropy, headers, model, payload, quantizer
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import TensorCode
from fedaq.codec.quantizer import Range
from fedaq.net import client_names, grpc_options
from fedaq.settings import NetworkSettings
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.capture import Capture
from fedaq_server.rounds import aggregation, reports
from fedaq_server.transport import client
from wire import coded_vectors, oracle, oracle_classes, seeded_vectors
from wire.vector_files import (
    ALL_CODED,
    CODED,
    CODED_NAMES,
    LONG,
    LONG_NAMES,
    NAMES,
    PAGE,
    VECTORS,
    count_of,
    file_of,
    patterns_of,
    range_of,
)


def table(first_cells: str) -> list[list[str]]:
    """Return the rows of the table of the page whose head begins so, without backticks."""
    lines = PAGE.split(f"\n| {first_cells}", 1)[1].splitlines()[2:]
    end = next(number for number, line in enumerate(lines) if not line.startswith("|"))
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[:end]]


# ---- The vectors -----------------------------------------------------------


def test_the_vectors_cover_the_widths_people_use() -> None:
    assert {1, 2, 3, 5, 8, 12, 16, 32} <= {vector["bits"] for vector in VECTORS}


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_the_vectors_are_what_an_independent_coder_says(vector: dict[str, Any]) -> None:
    data, bits = bytes.fromhex(vector["bytes"]), vector["bits"]
    if bits == 32:
        assert [oracle.pattern(v) for v in oracle.raw(data)] == vector["values"]
        return
    lo, hi = oracle.from_pattern(vector["lo"]), oracle.from_pattern(vector["hi"])
    assert oracle.pack(vector["codes"], bits) == data
    assert oracle.pattern(oracle.step(lo, hi, bits)) == vector["step"]
    values = [oracle.pattern(oracle.value(c, lo, hi, bits)) for c in vector["codes"]]
    assert values == vector["values"]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_the_product_decodes_the_vectors(vector: dict[str, Any]) -> None:
    spec = ModelSpec((TensorSpec("t", (count_of(vector),)),))
    header = payload.to_message(
        payload.plan_payload(spec, (vector["bits"],), [range_of(vector)]), round_number=1
    )
    flat = np.empty(spec.parameters, np.float32)
    packed_codes.decode_chunk(
        headers.from_message(spec, header), 0, bytes.fromhex(vector["bytes"]), flat
    )
    assert [oracle.pattern(v) for v in flat.tolist()] == vector["values"]


# ---- The vectors of whole payloads -----------------------------------------


def test_the_coded_vectors_cover_codecs_widths_and_kinds_of_blocks() -> None:
    seen = oracle.Seen()
    for vector in ALL_CODED:
        oracle.captured_values(pb.CapturedPayload.FromString(file_of(vector)), seen)
    widths = {(codec, b) for codec in ("CODEC_UNIFORM", "CODEC_STEP") for b in range(1, 17)}
    assert seen.packed >= widths | {("CODEC_RAW", 32), ("CODEC_ZERO", 0)}
    assert seen.coded_bits >= {1, 4, *range(8, 17)}
    assert {kind for kind, _ in seen.kinds} == {0, 1, 2, 3, 4}
    assert {depth for kind, depth in seen.kinds if kind == 3} == set(range(6))
    assert seen.pasts
    assert {bits for bits, _ in seen.known} == set(range(1, 9))
    counts = {count for _, count in seen.known}
    # Less than the first block of values, some of the largest, and more than are counted in full.
    assert min(counts) < 32
    assert any(4064 < count < 2**16 for count in counts)
    assert max(counts) > 2**16 + 2 * 4096


@pytest.mark.parametrize("vector", CODED, ids=CODED_NAMES)
def test_the_coded_vectors_are_what_an_independent_decoder_says(vector: dict[str, str]) -> None:
    captured = pb.CapturedPayload.FromString(file_of(vector))
    values = oracle.captured_values(captured, oracle.Seen())
    assert [oracle.pattern(value) for value in values] == patterns_of(vector)
    assert oracle.digest(values).hex() == vector["digest"]


@pytest.mark.parametrize("vector", LONG, ids=LONG_NAMES)
def test_long_vectors_are_what_an_independent_decoder_says(vector: dict[str, str]) -> None:
    captured = pb.CapturedPayload.FromString(file_of(vector))
    assert oracle.digest(oracle.captured_values(captured, oracle.Seen())).hex() == vector["digest"]


@pytest.mark.parametrize("vector", LONG, ids=LONG_NAMES)
def test_the_product_decodes_long_vectors(tmp_path: Path, vector: dict[str, str]) -> None:
    values = read_payload(tmp_path / "vector.payload", file_of(vector)).values()
    assert model.digest(values).hex() == vector["digest"]


@pytest.mark.parametrize("name", ["an update by classes", "codes by classes that are no use"])
def test_the_keys_in_a_file_are_those_of_the_page(name: str) -> None:
    [vector] = [vector for vector in CODED if vector["name"] == name]
    captured = pb.CapturedPayload.FromString(file_of(vector))
    words = [
        oracle_classes.words_of(coded_vectors.SEED, captured.sender, captured.header.round, tensor)
        for tensor in range(len(captured.model.tensors))
    ]
    assert list(captured.keys) == [word0 + 2**32 * word1 for word0, word1 in words]


@pytest.mark.parametrize("vector", CODED, ids=CODED_NAMES)
def test_the_product_decodes_the_coded_vectors(tmp_path: Path, vector: dict[str, str]) -> None:
    values = read_payload(tmp_path / "vector.payload", file_of(vector)).values()
    assert [oracle.pattern(value) for value in values.tolist()] == patterns_of(vector)
    assert model.digest(values).hex() == vector["digest"]


def test_the_coded_vectors_stand_for_the_values_they_always_stood_for() -> None:
    """Their frames may be those of another zstd, so only what they stand for is compared."""
    made = coded_vectors.vectors()
    kept = [{key: vector[key] for key in vector if key != "file"} for vector in ALL_CODED]
    assert [{key: vector[key] for key in vector if key != "file"} for vector in made] == kept


# ---- The page --------------------------------------------------------------


def test_the_tables_of_the_page_are_the_vectors() -> None:
    def shown(value: Any) -> str:
        return "-" if value is None else str(value)

    assert table("bits | codes | bytes") == [
        [
            str(v["bits"]),
            "-" if v["codes"] is None else " ".join(map(str, v["codes"])),
            v["bytes"],
        ]
        for v in VECTORS
    ]
    assert table("bits | lo | hi | step | values") == [
        [str(v["bits"]), shown(v["lo"]), shown(v["hi"]), shown(v["step"]), " ".join(v["values"])]
        for v in VECTORS
    ]


def test_the_header_on_the_page_is_what_is_sent() -> None:
    listing = re.findall(r"^    ((?:[0-9a-f]{2} )+) +(.*)$", PAGE, re.MULTILINE)
    lo, hi = oracle.binary32(-0.1), oracle.binary32(0.3)
    spec = ModelSpec((TensorSpec("a", (21,)), TensorSpec("b", ())))
    header = payload.plan_payload(spec, (3, 32), [Range(lo, hi), Range(0.0, 0.0)])
    message = payload.to_message(header, round_number=7)
    assert bytes.fromhex("".join(data for data, _ in listing)) == message.SerializeToString()
    for data, comment in listing[2:]:
        stated = int(re.findall(r"\((\d+) bytes\)", comment)[0])
        assert len(bytes.fromhex(data)) == stated


def test_the_header_sizes_on_the_page_are_those_that_are_charged() -> None:
    [row] = [row for row in table("| over a range") if row[0] == "bytes in the header"]
    ranged = payload.TensorCode(8, Range(-0.5, 0.5))
    bare, widest = (payload.TensorCode(16, step=0.5, zero=zero) for zero in (0, 2**15))
    assert row[1:] == [
        str(ranged.header_bytes),
        f"{bare.header_bytes} without `zero`, up to {widest.header_bytes} with it",
        str(payload.ZERO.header_bytes),
        str(payload.RAW.header_bytes),
    ]


def test_the_page_names_every_refusal_and_no_other() -> None:
    reasons = set(pb.RefusalReason.keys()) - {"REFUSAL_REASON_UNSPECIFIED"}
    assert {row[0] for row in table("`RefusalReason`")} == reasons


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    limits = {row[0]: row[1] for row in table("limit |")}
    assert limits["gRPC message"].startswith(f"{grpc_options.MAX_MESSAGE_BYTES >> 20} MiB")
    assert limits["tensors in a model"] == f"{model.MAX_TENSORS:,}"
    assert limits["dimensions of a tensor"] == str(model.MAX_DIMENSIONS)
    assert limits["values in a tensor"] == "2^32 - 1"
    assert model.MAX_ELEMENTS == 2**32 - 1
    assert limits["client name"].startswith(f"1 to {client_names.MAX_NAME_BYTES} bytes")
    assert limits["training examples of a client"] == "1 to 2^40"
    assert client.MAX_EXAMPLES == 2**40
    assert f"protocol version {PROTOCOL_VERSION}\n" in PAGE
    assert f"at least {payload.MIN_CHUNK_BYTES}, is the longest" in PAGE
    assert f"default is {NetworkSettings().chunk_bytes:,}, and less\nwith more than " in PAGE
    assert quantizer.LARGEST_MAGNITUDE == 2.0**126
    assert quantizer.SMALLEST_STEP == 2.0**-126
    assert quantizer.LARGEST_VALUE == 2.0**16
    assert grpc_options.PATH in PAGE
    assert f"one of the {payload.COARSENINGS - 1} coarser ones" in PAGE
    assert f"kind 3 more than {entropy.MAX_DEPTH} deep" in PAGE
    assert np.finfo(np.float32).max == reports.LARGEST_LOSS


WEIGHTS = (600, 1, 2**22 + 7)


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 11, 16])
@pytest.mark.parametrize("step", [0.0, oracle.binary32(0.1), 2.0**-30])
def test_the_next_model_is_what_the_page_says(tmp_path: Path, bits: int, step: float) -> None:
    count = 33
    spec = ModelSpec((TensorSpec("coded", (count,)), TensorSpec("raw", (3,))))
    rng = np.random.default_rng(bits)
    base = rng.normal(0, 1, spec.parameters).astype(np.float32)
    examples = sum(WEIGHTS)
    summed = aggregation.Aggregate(spec, examples, tmp_path, np.zeros(spec.parameters, np.int64))
    expected = [0] * spec.parameters
    bounds = Range(oracle.binary32(-0.3), oracle.binary32(1.7))
    code = TensorCode(bits, None if step else bounds, step=step, zero=2**bits // 3 if step else 0)
    lo = -code.zero * step if step else bounds.lo
    step = step or oracle.step(bounds.lo, bounds.hi, bits)
    header = payload.Payload(spec, (code, payload.RAW))
    for weight in WEIGHTS:
        codes = rng.integers(0, 2**bits, count).tolist()
        raw = rng.normal(0, 100, 3).astype(np.float32)
        data = oracle.pack(codes, bits) + raw.tobytes()
        contribution = aggregation.Contribution(summed, header, weight)
        contribution.add(chunks.Chunk(1, 0, data))
        contribution.commit()
        unit = oracle.unit(examples)
        added = [oracle.term(c, bits, lo, step, weight, unit) for c in codes]
        added += [oracle.raw_term(x, weight, unit) for x in raw.tolist()]
        expected = [a + b for a, b in zip(expected, added, strict=True)]
    assert summed.total.tolist() == expected
    model_now = np.empty(spec.parameters, np.float32)
    summed.apply(base, model_now)
    assert model_now.tolist() == [
        oracle.binary32(b + oracle.binary32(float(s) * float(oracle.unit(examples) / examples)))
        for b, s in zip(base.tolist(), expected, strict=True)
    ]


# ---- Seeds and files -------------------------------------------------------


def test_a_seed_gives_the_bytes_it_always_gave() -> None:
    assert json.loads(seeded_vectors.FILE.read_text()) == seeded_vectors.vectors()


CAPTURED = ModelSpec((TensorSpec("weight", (3, 7)), TensorSpec("bias", ())))


@pytest.mark.parametrize("base", [b"", b"\x01\x02\x03\x04\x05\x06\x07\x08"])
def test_a_captured_payload_is_in_its_file_as_it_was_sent(tmp_path: Path, base: bytes) -> None:
    header = payload.plan_payload(CAPTURED, (3, 8), [Range(-1.0, 1.0), Range(0.0, 0.0)])
    content = coding.packed_content(header, 0, np.zeros(header.code_bytes, np.uint8))
    chunk = coding.to_chunk(content, 0, header.code_bytes, 1)
    message = payload.to_message(header, 1, base)
    Capture(tmp_path / "payloads").keep(CAPTURED, message, [chunk.to_message()], "kitchen")
    path = tmp_path / "payloads" / "round-0001-kitchen.payload"
    found = read_payload(path, path.read_bytes())
    assert found.header == header
    assert found.payload_bytes == header.header_bytes + chunk.cost_bytes
    assert found.message.header.base == base
    assert [chunks.read(sent) for sent in found.message.chunks] == [chunk]
    assert (found.message.sender, found.message.header.round) == ("kitchen", 1)


def test_a_captured_payload_of_packed_codes_is_still_read(tmp_path: Path) -> None:
    """As files were before chunks were kept."""
    header = payload.plan_payload(CAPTURED, (3, 32), [Range(-1.0, 1.0), Range(0.0, 0.0)])
    codes = bytes(range(header.code_bytes))
    captured = pb.CapturedPayload(
        model=model.to_message(CAPTURED),
        header=payload.to_message(header, 1),
        codes=codes,
        sender="kitchen",
    )
    found = read_payload(tmp_path / "old.payload", captured.SerializeToString())
    assert found.header == header
    assert found.payload_bytes == header.payload_bytes
    assert found.message.codes == codes
