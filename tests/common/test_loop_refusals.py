"""What the compiled loops refuse: then they neither read nor write."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.loop_oracles import WIDTHS
from fedaq.codec import kernels
from fedaq.errors import FedaqError

pytestmark = pytest.mark.usefixtures("level")


@given(WIDTHS, st.integers(1, 3000), st.integers(1, 400))
def test_a_buffer_that_is_too_short_is_refused(bits: int, count: int, missing: int) -> None:
    size = (count * bits + 7) // 8
    short = np.zeros(max(size - missing, 0), np.uint8)
    values, total = np.zeros(count, np.float32), np.zeros(count, np.int64)
    high, words = np.zeros(count, np.uint8), np.zeros(count, np.uint16)
    enough = np.zeros(2 * count, np.uint8)
    refused: list[Callable[[], object]] = [
        lambda: kernels.quantize_pack(values, 0, 0.0, 1.0, bits, False, 0, 0, short),
        lambda: kernels.unpack_dequantize(short, bits, 0.0, 1.0, values),
        lambda: kernels.unpack_accumulate(short, bits, 0, 1, 0, 1, total),
        lambda: kernels.code_sums(short, bits, count),
        lambda: kernels.repack(short, bits, 16, count, enough),
        lambda: kernels.repack(enough, 16, bits, count, short),
    ]
    if bits <= 8:
        refused += [
            lambda: kernels.split_wide(words, bits + 8, high, short),
            lambda: kernels.join_wide(high, short, bits + 8, words),
        ]
    for call in refused:
        with pytest.raises(ValueError, match="shorter"):
            call()


@pytest.mark.parametrize(("bits", "width"), [(0, 1), (17, 17), (3, 2), (-1, 8), (2**40, 2**40)])
def test_a_width_that_cannot_be_is_refused(bits: int, width: int) -> None:
    data, values, total = np.zeros(99, np.uint8), np.ones(9, np.float32), np.ones(9, np.int64)
    for call in (
        partial(kernels.quantize_pack, values, 0, 0.0, 1.0, bits, False, 0, 0, data, width=width),
        partial(kernels.unpack_dequantize, data, bits, 0.0, 1.0, values, width=width),
        partial(kernels.unpack_accumulate, data, bits, 0, 1, 0, 1, total, width=width),
        partial(kernels.code_sums, data, bits, 9, width=width),
    ):
        with pytest.raises(ValueError, match="out of range"):
            call()
    assert not data.any() and (values == 1).all() and (total == 1).all()


@given(st.integers(0, 60), st.binary(max_size=12))
def test_flags_of_another_length_are_refused(size: int, data: bytes) -> None:
    flags = np.frombuffer(data, np.uint8)
    is_right = len(data) == size // 8 + 1 and data[-1] >> (size % 8) == 1
    if is_right:
        kernels.count_flags(flags, size)
    else:
        with pytest.raises(ValueError, match="shorter"):
            kernels.count_flags(flags, size)


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "VERSION", -1)
    with pytest.raises(FedaqError, match="another version of fedaq"):
        kernels._library.__wrapped__()


def test_a_library_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "loops.so")
    with pytest.raises(FedaqError, match=r"loops\.so.*make native"):
        kernels._library.__wrapped__()
