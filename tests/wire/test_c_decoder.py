"""The C decoder of the docs against the vectors, the product, and files that were damaged."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import packed_codes
from fedaq.cli.inspection import read_payload
from fedaq.codec import chunks, model, payload, quantizer
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import RAW, TensorCode
from fedaq.codec.quantizer import Range
from fedaq.errors import UserError
from fedaq.v1 import federation_pb2 as pb
from wire import coded_vectors, oracle, oracle_classes
from wire.vector_files import (
    CODED,
    CODED_NAMES,
    LONG,
    LONG_NAMES,
    NAMES,
    PAGE,
    ROOT,
    VECTORS,
    count_of,
    digest_of,
    file_of,
    patterns_of,
)

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


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


@pytest.mark.parametrize("vector", LONG, ids=LONG_NAMES)
def test_the_c_decoder_decodes_long_files(
    zstd_decoder: Path, tmp_path: Path, vector: dict[str, str]
) -> None:
    done = decode_file(zstd_decoder, tmp_path / "file", file_of(vector))
    assert (done.stderr, digest_of(done.stdout.decode().split())) == (b"", vector["digest"])


def test_codes_by_classes_need_no_zstd(decoder: Path, tmp_path: Path) -> None:
    [vector] = [v for v in CODED if v["name"] == "codes by classes that are no use"]
    done = decode_file(decoder, tmp_path / "file", file_of(vector))
    assert (done.stderr, done.stdout.decode().split()) == (b"", patterns_of(vector))


@pytest.mark.parametrize("change", ["one key less", "one key more", "a broken past"])
def test_no_decoder_takes_keys_or_a_past_that_do_not_fit(
    zstd_decoder: Path, tmp_path: Path, change: str
) -> None:
    [vector] = [v for v in CODED if v["name"] == "an update by classes"]
    captured = pb.CapturedPayload.FromString(file_of(vector))
    if change == "one key less":
        del captured.keys[-1]
    elif change == "one key more":
        captured.keys.append(1)
    else:
        captured.chunks[1].past = b"\0\0"
    data = captured.SerializeToString()
    assert product_says(data) is None
    done = decode_file(zstd_decoder, tmp_path / "file", data)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"decode: ")


def test_keys_may_come_one_by_one(zstd_decoder: Path, tmp_path: Path) -> None:
    """As protobuf allows: each behind the tag of a number of eight bytes."""
    [vector] = [v for v in CODED if v["name"] == "an update by classes"]
    captured = pb.CapturedPayload.FromString(file_of(vector))
    keys = [b"\x31" + key.to_bytes(8, "little") for key in captured.keys]
    captured.ClearField("keys")
    data = captured.SerializeToString() + b"".join(keys)
    done = decode_file(zstd_decoder, tmp_path / "file", data)
    assert product_says(data) == done.stdout.decode().split() == patterns_of(vector)


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


@pytest.mark.parametrize("times", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_the_c_decoder_survives_damaged_files(
    times: int, sanitized_decoder: Path, tmp_path: Path
) -> None:
    """It reads beyond no end, and what it takes for values is what the product takes them for."""
    accepted = 0
    for vector in CODED[1:]:
        for data in damaged(file_of(vector), times):
            done = decode_file(sanitized_decoder, tmp_path / "file", data)
            assert done.returncode == 0 or done.stderr.startswith(b"decode: "), done.stderr.decode()
            expected = product_says(data)
            # The product refuses names that are no UTF-8, too, and versions of zstd differ in which
            # damaged frames they take.
            if expected is not None and b"a frame is broken" not in done.stderr:
                accepted += 1
                assert done.stdout.decode().split() == expected
    assert accepted


CODES = bytes(i * i % 97 % 3 for i in range(40))
WHOLE = oracle.split_block(CODES, split=lambda part: oracle.unsplit_block(0, part))
# Of a difference to a model without a past.
BY_CLASSES = b"\4" + oracle_classes.encode(CODES, [(0, False)] * len(CODES), 0)
BROKEN_BLOCKS = {
    "an unknown kind": b"\5" + CODES,
    "kind 4, without most of it": BY_CLASSES[:4],
    "kind 4, 9 bytes too long": BY_CLASSES + bytes(9),
    "kind 4, all ones": b"\4" + b"\xff" * (len(BY_CLASSES) - 1),
    "kind 4, of a code below 0": b"\4"
    + oracle_classes.encode([255] + [0] * 39, [(0, False)] * 40, 256),
    "kind 4, of a code above 255": b"\4"
    + oracle_classes.encode([256] + [0] * 39, [(0, False)] * 40, 0),
    "kind 4 in kind 3": oracle.split_block(CODES, split=lambda part: BY_CLASSES),
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


EIGHT_BITS = TensorCode(8, step=1.0)
NO_CLASSES = {
    "codes over a range": TensorCode(8, Range(0.0, 255.0)),
    "codes of more than 8 bits": TensorCode(9, step=1.0),
    "raw values": RAW,
}


def file_with(block: bytes, code: TensorCode = EIGHT_BITS) -> bytes:
    """Return a captured file of one tensor of 40 codes in this block."""
    spec = ModelSpec((TensorSpec("t", (len(CODES),)),))
    header = payload.Payload(spec, (code,))
    chunk = chunks.Chunk(1, 0, block, header.code_bytes, (len(block),))
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


@pytest.mark.parametrize("code", NO_CLASSES.values(), ids=NO_CLASSES)
def test_no_decoder_takes_codes_by_classes_where_there_are_none(
    sanitized_decoder: Path, tmp_path: Path, code: TensorCode
) -> None:
    for data in (BY_CLASSES, BY_CLASSES + bytes(5)):
        assert product_says(file_with(data, code)) is None
        done = decode_file(sanitized_decoder, tmp_path / "file", file_with(data, code))
        assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("kind", [0, 1, 3, 4])
def test_both_decoders_take_the_same_block_whole(
    sanitized_decoder: Path, tmp_path: Path, kind: int
) -> None:
    block = {3: WHOLE, 4: BY_CLASSES}.get(kind) or oracle.unsplit_block(kind, CODES)
    done = decode_file(sanitized_decoder, tmp_path / "file", file_with(block))
    expected = [oracle.pattern(float(code)) for code in CODES]
    assert product_says(file_with(block)) == done.stdout.decode().split() == expected
