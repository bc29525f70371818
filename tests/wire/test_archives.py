"""Archives mean the same to the product, to a decoder from the page, and to the one in C."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from fedaq.codec import archive, archive_plan, arrays, decode, encode
from wire import archive_vectors, oracle
from wire.archives import BYTES_OF, in_memory, parsed, rebuilt
from wire.test_c_decoder import compiled, decode_file, need_zstd
from wire.vector_files import ROOT

VECTORS: list[dict[str, Any]] = json.loads(archive_vectors.FILE.read_text())
NAMES = [vector["name"] for vector in VECTORS]
PAGE = (ROOT / "docs" / "reference" / "codec.md").read_text()


def named(decoded: Any) -> dict[str, Any]:
    found: dict[str, Any] = decoded if isinstance(decoded, dict) else {"": decoded}
    return found


def meant(data: bytes) -> dict[str, str]:
    """Return the bytes in memory of every tensor, as the product decodes them."""
    return {name: in_memory(value).hex() for name, value in named(decode(data)).items()}


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_the_product_decodes_the_vectors(vector: dict[str, Any]) -> None:
    assert meant(bytes.fromhex(vector["archive"])) == vector["tensors"]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_a_decoder_from_the_page_decodes_the_vectors(vector: dict[str, Any]) -> None:
    parts, found = rebuilt(bytes.fromhex(vector["archive"]))
    assert {name: data.hex() for name, data in found} == vector["tensors"]
    assert parts.version == 1


def test_the_vectors_have_every_type_and_both_ways() -> None:
    tensors = [
        (tensor.dtype, tensor.exact)
        for vector in VECTORS
        for tensor in parsed(bytes.fromhex(vector["archive"])).header.tensors
    ]
    assert set(tensors) == {
        *((dtype, True) for dtype in arrays.STORED),
        *((dtype, False) for dtype in arrays.FLOATS),
    }
    codecs = {
        tensor.codec
        for vector in VECTORS
        for tensor in parsed(bytes.fromhex(vector["archive"])).header.payload.tensors
    }
    assert codecs == {2, 3, 4}


ASKED: list[dict[str, Any]] = [{}, {"step": 0.02}, {"step": 0.2}, {"grid_bits": 4}, {"ratio": 3}]


@profile(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(arrays.STORED)), st.integers(0, 200), st.sampled_from([1, 9])
        ),
        max_size=5,
    ),
    st.sampled_from(ASKED),
    st.none() | st.integers(0, 99),
)
def test_both_decoders_agree(
    kinds: list[tuple[str, int, int]], asked: dict[str, Any], seed: int | None
) -> None:
    values = {
        str(n): torch.from_numpy(np.random.default_rng(n).normal(0, scale, size).clip(0)).to(
            getattr(torch, dtype)
        )
        for n, (dtype, size, scale) in enumerate(kinds)
    }
    if "ratio" in asked:
        values["much"] = torch.from_numpy(np.random.default_rng(9).normal(size=5000))
    data = encode(values, seed=seed, **asked)
    assert meant(data) == {name: found.hex() for name, found in rebuilt(data)[1]}


def test_both_decoders_agree_where_chunks_split_tensors() -> None:
    random = np.random.default_rng(1)
    values = {name: random.normal(size=size) for name, size in (("a", 41_003), ("b", 99))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_plan, "CHUNK_BYTES", 1000)
        for asked in ASKED:
            data = encode(values, seed=1, **asked)
            assert len(parsed(data).chunks) > 15
            assert meant(data) == {name: found.hex() for name, found in rebuilt(data)[1]}


@pytest.mark.parametrize("vector", VECTORS[:-1], ids=NAMES[:-1])
def test_the_c_decoder_decodes_the_payload_of_an_archive(
    tmp_path: Path, vector: dict[str, Any]
) -> None:
    need_zstd()
    captured = parsed(bytes.fromhex(vector["archive"])).captured
    program = compiled(tmp_path, "-DWITH_ZSTD")
    done = decode_file(program, tmp_path / "file", captured.SerializeToString())
    expected = oracle.captured_values(captured, oracle.Seen())
    assert done.stderr == b""
    assert done.stdout.decode().split() == [oracle.pattern(value) for value in expected]


def test_the_page_says_what_is_in_the_code() -> None:
    magic = re.search(r"\| 4 \| `([0-9a-f ]+)` \|", PAGE)
    assert magic is not None
    assert bytes.fromhex(magic[1]) == archive.MAGIC
    assert f"version {archive.VERSION}" in PAGE
    types = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (\d) \|", PAGE, re.MULTILINE)
    found = {name: int(size) for names, size in types for name in re.findall(r"\w+", names)}
    assert found == BYTES_OF
    assert found == {name: stored.itemsize for name, stored in arrays.STORED.items()}
    for limit in (archive.MAX_HEADER_BYTES, archive_plan.CHUNK_BYTES):
        assert f"{limit:,}" in PAGE
