"""docs/reference/wire-format.md, its C decoder and its test vectors against the product's code."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
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
from fedaq.errors import UserError
from fedaq.net import grpc_options
from fedaq.settings import NetworkSettings
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.identity import client_names
from fedaq_server.records.capture import Capture
from fedaq_server.rounds import aggregation, exchange
from fedaq_server.transport import service
from wire import coded_vectors, oracle, seeded_vectors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "wire-format.md").read_text()
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
NAMES = [f"{vector['bits']} bits" for vector in VECTORS]
CODED: list[dict[str, str]] = json.loads(coded_vectors.FILE.read_text())
CODED_NAMES = [vector["name"] for vector in CODED]
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


# ---- The vectors of whole payloads -----------------------------------------


def file_of(vector: dict[str, str]) -> bytes:
    return bytes.fromhex(vector["file"])


def patterns_of(vector: dict[str, str]) -> list[str]:
    return re.findall("........", vector["values"])


def test_the_coded_vectors_cover_codecs_widths_and_kinds_of_blocks() -> None:
    seen = oracle.Seen()
    for vector in CODED:
        oracle.captured_values(pb.CapturedPayload.FromString(file_of(vector)), seen)
    widths = {(codec, b) for codec in ("CODEC_UNIFORM", "CODEC_STEP") for b in range(1, 17)}
    assert seen.packed >= widths | {("CODEC_RAW", 32), ("CODEC_ZERO", 0)}
    assert seen.coded_bits >= {1, 4, *range(8, 17)}
    assert {kind for kind, _ in seen.kinds} == {0, 1, 2, 3}
    assert {depth for kind, depth in seen.kinds if kind == 3} == set(range(6))


@pytest.mark.parametrize("vector", CODED, ids=CODED_NAMES)
def test_the_coded_vectors_are_what_an_independent_decoder_says(vector: dict[str, str]) -> None:
    captured = pb.CapturedPayload.FromString(file_of(vector))
    values = oracle.captured_values(captured, oracle.Seen())
    assert [oracle.pattern(value) for value in values] == patterns_of(vector)
    assert oracle.digest(values).hex() == vector["digest"]


@pytest.mark.parametrize("vector", CODED, ids=CODED_NAMES)
def test_the_product_decodes_the_coded_vectors(tmp_path: Path, vector: dict[str, str]) -> None:
    values = read_payload(tmp_path / "vector.payload", file_of(vector)).values()
    assert [oracle.pattern(value) for value in values.tolist()] == patterns_of(vector)
    assert model.digest(values).hex() == vector["digest"]


def test_the_coded_vectors_stand_for_the_values_they_always_stood_for() -> None:
    """Their frames may be those of another zstd, so only what they stand for is compared."""
    made = coded_vectors.vectors()
    kept = [{key: vector[key] for key in ("name", "values", "digest")} for vector in CODED]
    assert [{key: vector[key] for key in ("name", "values", "digest")} for vector in made] == kept


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
    assert f"one of the {payload.COARSENINGS - 1} coarser ones" in PAGE
    assert f"kind 3 more than {entropy.MAX_DEPTH} deep" in PAGE
    assert np.finfo(np.float32).max == exchange.LARGEST_LOSS


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


# ---- The C decoder ---------------------------------------------------------


WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(folder: Path, *options: str) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler")
    program = folder / "decode"
    source = ROOT / "docs" / "reference" / "decode.c"
    libraries = ["-lzstd"] if "-DWITH_ZSTD" in options else []
    subprocess.run(
        [COMPILER, "-std=c99", "-O2", *WARNINGS, *options, "-o", program, source, *libraries],
        check=True,
    )
    return program


def need(*options: str, program: str = "int main(void) { return 0; }") -> None:
    """Skip what this machine cannot compile."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    command = [COMPILER, "-x", "c", "-", "-o", "/dev/null", *options]
    done = subprocess.run(command, input=program, text=True, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot compile with {' '.join(options)}: {done.stderr.strip()[:200]}")


def need_zstd() -> None:
    need("-lzstd", program="#include <zstd.h>\nint main(void) { return !ZSTD_versionNumber(); }")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module")
def zstd_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_zstd()
    return compiled(tmp_path_factory.mktemp("c"), "-DWITH_ZSTD")


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


def decode_file(program: Path, path: Path, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    path.write_bytes(data)
    return subprocess.run([program, path], capture_output=True, check=False)


@pytest.mark.parametrize("vector", CODED[:2], ids=CODED_NAMES[:2])
def test_the_c_decoder_decodes_captured_files_of_packed_codes(
    decoder: Path, tmp_path: Path, vector: dict[str, str]
) -> None:
    done = decode_file(decoder, tmp_path / "file", file_of(vector))
    assert (done.stderr, done.stdout.decode().split()) == (b"", patterns_of(vector))


@pytest.mark.parametrize("vector", CODED, ids=CODED_NAMES)
def test_the_c_decoder_decodes_every_captured_file(
    zstd_decoder: Path, tmp_path: Path, vector: dict[str, str]
) -> None:
    done = decode_file(zstd_decoder, tmp_path / "file", file_of(vector))
    assert (done.stderr, done.stdout.decode().split()) == (b"", patterns_of(vector))


def test_the_c_decoder_says_when_it_lacks_zstd(decoder: Path, tmp_path: Path) -> None:
    done = decode_file(decoder, tmp_path / "file", file_of(CODED[2]))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"-DWITH_ZSTD" in done.stderr


def product_says(data: bytes) -> list[str] | None:
    """Return the values of a file as the product decodes it, None if it refuses it."""
    try:
        values = read_payload(Path("damaged.payload"), data).values()
    except UserError:
        return None
    return [oracle.pattern(value) for value in values.tolist()]


def damaged(data: bytes, count: int) -> Iterator[bytes]:
    """Yield the file with its end missing, a byte changed, or a run of bytes gone."""
    rng = np.random.default_rng(len(data))
    for _ in range(count):
        at, byte, length = (int(rng.integers(0, n)) for n in (len(data), 256, 9))
        yield data[:at]
        yield data[:at] + bytes([byte]) + data[at + 1 :]
        yield data[:at] + data[at + length :]


@pytest.fixture(scope="module")
def sanitized_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*SANITIZERS)
    need_zstd()
    return compiled(tmp_path_factory.mktemp("c"), "-DWITH_ZSTD", *SANITIZERS)


def test_the_c_decoder_survives_damaged_files(sanitized_decoder: Path, tmp_path: Path) -> None:
    """It reads beyond no end, and what it takes for values is what the product takes them for."""
    accepted = 0
    for vector in CODED[1:]:
        for data in damaged(file_of(vector), 40):
            done = decode_file(sanitized_decoder, tmp_path / "file", data)
            assert done.returncode == 0 or done.stderr.startswith(b"decode: "), done.stderr.decode()
            expected = product_says(data)
            # The product refuses names that are no UTF-8, too.
            if expected is not None:
                accepted += 1
                assert done.stdout.decode().split() == expected
    assert accepted


CODES = bytes(i * i % 97 % 3 for i in range(40))
WHOLE = oracle.split_block(CODES, split=lambda part: oracle.unsplit_block(0, part))
BROKEN_BLOCKS = {
    "an unknown kind": b"\4" + CODES,
    "kind 0, a byte short": oracle.unsplit_block(0, CODES[1:]),
    "kind 0, a byte long": oracle.unsplit_block(0, CODES + b"\0"),
    "kind 1, a byte short": oracle.unsplit_block(1, CODES[1:]),
    "kind 1, a byte long": oracle.unsplit_block(1, CODES + b"\0"),
    "kind 1, cut": oracle.unsplit_block(1, CODES)[:-1],
    "kind 1, with more behind the frame": oracle.unsplit_block(1, CODES) + b"\0",
    "kind 1, without a frame": b"\1",
    "kind 1, a window of 256 KiB": b"\1\x40" + oracle.unsplit_block(1, CODES)[2:],
    "kind 2, of a frame that is longer than the codes": oracle.unsplit_block(2, bytes(range(40))),
    "kind 3, without anything": b"\3",
    "kind 3, with flags longer than the block": WHOLE[:2] + b"\xff\xff\xff" + WHOLE[5:],
    "kind 3, without the last flag": WHOLE[:11] + b"\0" + WHOLE[12:],
    "kind 3, with one byte too few": WHOLE[:-1],
    "kind 3, with one byte too many": WHOLE + b"\0",
    "kind 3, 7 deep": oracle.split_block(CODES, split=lambda part: coded_vectors.split(part, 6)),
}


def file_with(block: bytes) -> bytes:
    """Return a captured file of one tensor of 40 codes of 8 bits, in this block."""
    spec = ModelSpec((TensorSpec("t", (len(CODES),)),))
    header = payload.Payload(spec, (TensorCode(8, step=1.0),))
    chunk = chunks.Chunk(1, 0, block, len(CODES), (len(block),))
    return pb.CapturedPayload(
        model=model.to_message(spec),
        header=payload.to_message(header, 1),
        chunks=[chunk.to_message()],
    ).SerializeToString()


@pytest.mark.parametrize("block", BROKEN_BLOCKS.values(), ids=BROKEN_BLOCKS)
def test_the_product_takes_no_broken_block(block: bytes) -> None:
    assert product_says(file_with(block)) is None


@pytest.mark.parametrize("block", BROKEN_BLOCKS.values(), ids=BROKEN_BLOCKS)
def test_the_c_decoder_takes_no_broken_block(
    sanitized_decoder: Path, tmp_path: Path, block: bytes
) -> None:
    done = decode_file(sanitized_decoder, tmp_path / "file", file_with(block))
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"decode: ")


@pytest.mark.parametrize("kind", [0, 1, 3])
def test_both_decoders_take_the_same_block_whole(
    sanitized_decoder: Path, tmp_path: Path, kind: int
) -> None:
    block = WHOLE if kind == 3 else oracle.unsplit_block(kind, CODES)
    done = decode_file(sanitized_decoder, tmp_path / "file", file_with(block))
    expected = [oracle.pattern(float(code)) for code in CODES]
    assert product_says(file_with(block)) == done.stdout.decode().split() == expected


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
