"""docs/reference/wire-format.md, its C decoder and its test vectors against the product's code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import packed_codes
from fedaq import PROTOCOL_VERSION
from fedaq.cli.inspection import read_payload
from fedaq.codec import chunks, coding, headers, model, payload, quantizer
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Range
from fedaq.net import grpc_options
from fedaq.settings import NetworkSettings
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.identity import client_names
from fedaq_server.records.capture import Capture
from fedaq_server.rounds import aggregation
from fedaq_server.transport import service
from wire import oracle, seeded_vectors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "wire-format.md").read_text()
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
NAMES = [f"{vector['bits']} bits" for vector in VECTORS]
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def count_of(vector: dict[str, Any]) -> int:
    return len(vector["values"])


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


def range_of(vector: dict[str, Any]) -> Range:
    return Range(*(oracle.from_pattern(vector[end] or "00000000") for end in ("lo", "hi")))


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
    assert service.MAX_EXAMPLES == 2**40
    assert f"protocol version {PROTOCOL_VERSION}\n" in PAGE
    assert f"at least {payload.MIN_CHUNK_BYTES}, is the longest" in PAGE
    assert f"default is {NetworkSettings().chunk_bytes:,}, and less\nwith more than " in PAGE
    assert quantizer.LARGEST_MAGNITUDE == 2.0**126
    assert quantizer.SMALLEST_STEP == 2.0**-126
    assert aggregation.LARGEST_VALUE == 2.0**16
    assert grpc_options.PATH in PAGE


# ---- The C decoder ---------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("c") / "decode"
    subprocess.run(
        [COMPILER, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror",
         "-o", program, ROOT / "docs" / "reference" / "decode.c"],
        check=True,
    )  # fmt: skip
    return program


def decode_in_c(
    program: Path, bits: int, lo: str, hi: str, data: bytes | memoryview, count: int
) -> list[str]:
    command = [str(program), str(bits), lo, hi, str(count)]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    return done.stdout.decode().split()


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_the_c_decoder_decodes_the_vectors(decoder: Path, vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    lo, hi = vector["lo"] or "0", vector["hi"] or "0"
    got = decode_in_c(decoder, vector["bits"], lo, hi, data, count_of(vector))
    assert got == vector["values"]


@pytest.mark.parametrize("bits", [*range(1, 17), 32])
def test_the_c_decoder_decodes_what_the_product_sends(decoder: Path, bits: int) -> None:
    count = 4999
    values = np.random.default_rng(bits).normal(0.01, 0.3, count).astype(np.float32)
    spec = ModelSpec((TensorSpec("t", (count,)),))
    header = payload.plan_payload(spec, (bits,), [quantizer.value_range(values)])
    keys = payload.transfer_keys(spec, 1, "test")
    data = packed_codes.encode_chunk(header, values.__getitem__, keys, 0, header.code_bytes)
    flat = np.empty(count, np.float32)
    packed_codes.decode_chunk(header, 0, data, flat)
    bounds = header.codes[0].bounds or Range(0.0, 0.0)
    got = decode_in_c(
        decoder, bits, oracle.pattern(bounds.lo), oracle.pattern(bounds.hi), data, count
    )
    assert got == [oracle.pattern(v) for v in flat.tolist()]


@pytest.mark.parametrize(
    "arguments", [["3", "0", "0"], ["17", "0", "0", "1"], ["8", "0", "0", "9"]]
)
def test_the_c_decoder_refuses_what_it_cannot_decode(decoder: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [decoder, *arguments], input=b"12345678", capture_output=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout == b""


def test_the_example_on_the_page_prints_the_vector(decoder: Path) -> None:
    escaped, arguments = re.findall(r"printf '(.*)' \| ./decode (.*)", PAGE)[0]
    data = bytes.fromhex(escaped.replace("\\x", ""))
    bits, lo, hi, count = arguments.split()
    [vector] = [v for v in VECTORS if v["bits"] == int(bits)]
    assert (vector["bytes"], vector["lo"], vector["hi"]) == (data.hex(), lo, hi)
    got = decode_in_c(decoder, int(bits), lo, hi, data, int(count))
    assert got == vector["values"]


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
