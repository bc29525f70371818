"""The largest values of a tensor: which are kept, what is left, and what they take."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec import coding
from fedaq.codec.given import NOTHING
from fedaq.codec.model import Kind, ModelSpec, TensorSpec
from fedaq.codec.payload import (
    RAW,
    ZERO,
    Payload,
    plan_payload,
    tensor_spreads,
    transfer_keys,
)
from fedaq.codec.quantizer import Floats, tensor_spread
from fedaq.codec.sparse import Sparsity, lost
from fedaq_server.schemes.scheme import granted_up
from fedaq_server.schemes.sparse import step_grant

SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.floats(1e-3, 1.0)


@st.composite
def tensors(draw: st.DrawFn) -> Floats:
    """Draw values of all sizes, of which some are equal, some opposite and some 0."""
    rng, size = np.random.default_rng(draw(SEEDS)), draw(st.integers(0, 600))
    values = rng.standard_normal(size) * 2.0 ** rng.integers(-20, 20, size)
    coarse = np.round(rng.normal(0, 2, size))
    return np.where(rng.random(size) < draw(st.floats(0, 1)), coarse, values).astype(np.float32)


def by_the_paper(values: Floats, share: float) -> Floats:
    """Return what algorithm 1 of arXiv 1903.02891 makes of a tensor, in float64."""
    count = ceil(share * values.size)
    places = sorted(range(values.size), key=lambda place: (-abs(values[place]), place))[:count]
    masked = np.zeros(values.size)
    masked[places] = values[places]
    mean = np.abs(masked).sum() / count if count else 0.0
    return (mean * np.sign(masked)).astype(np.float32)


# ---- What is kept ------------------------------------------------------------


@given(tensors(), SHARES)
def test_what_is_kept_and_what_is_left_are_the_tensor(values: Floats, share: float) -> None:
    kept = Sparsity(share, ternary=False).kept(values)
    left = values - kept
    assert np.array_equal(kept + left, values)
    assert np.count_nonzero(kept) == min(ceil(share * values.size), np.count_nonzero(values))
    assert not np.any((kept != 0) & (left != 0))
    if kept.any() and left.any():
        assert np.abs(kept[kept != 0]).min() >= np.abs(left).max()


@given(tensors(), SHARES)
def test_ternary_values_are_those_of_the_paper(values: Floats, share: float) -> None:
    kept, expected = Sparsity(share, ternary=True).kept(values), by_the_paper(values, share)
    assert np.array_equal(np.sign(kept), np.sign(expected))
    np.testing.assert_allclose(kept, expected, rtol=2e-7)
    assert np.unique(np.abs(kept[kept != 0])).size <= 1


def test_by_hand() -> None:
    values = np.array([0.5, -3.0, 1.0, 0.0, 2.0, -1.0], np.float32)
    assert Sparsity(0.5, ternary=False).kept(values).tolist() == [0, -3, 1, 0, 2, 0]
    assert Sparsity(0.5, ternary=True).kept(values).tolist() == [0, -2, 2, 0, 2, 0]
    # At least one, and no value that is 0.
    assert Sparsity(1e-9, ternary=True).kept(values).tolist() == [0, -3, 0, 0, 0, 0]
    expected = np.float32(1.25) * np.sign(values)
    assert Sparsity(1.0, ternary=True).kept(values).tolist() == expected.tolist()


def test_of_statistics_nothing_is_left_out() -> None:
    spec = ModelSpec(
        (
            TensorSpec("w", (4,)),
            TensorSpec("own", (2,), kind=Kind.SERVER),
            TensorSpec("s", (3,), kind=Kind.STATISTICS),
        )
    )
    flat = np.arange(1, 10, dtype=np.float32)
    kept = Sparsity(0.25, ternary=False).kept_of(spec, flat.__getitem__)
    assert kept.tolist() == [0, 0, 0, 4, 5, 6, 7, 8, 9]
    update = Payload(spec, (RAW, ZERO, RAW))
    assert list(lost(update, kept, flat)) == [0]


# ---- What arrives of it ------------------------------------------------------


def coded(header: Payload, values: Floats) -> tuple[Floats, int]:
    """Return what the chunks of an update stand for, and the bytes that it takes."""
    out, size = np.zeros_like(values), header.header_bytes
    keys = transfer_keys(header.spec, 1, "uplink", "anna", 1)
    for offset, length in header.chunks(1 << 16):
        chunk, _ = coding.encode(
            header, values.__getitem__, keys, offset, length, 1,
            squeeze=True, nearest=True, known=NOTHING,
        )  # fmt: skip
        coding.decode_into(header, chunk, out, known=NOTHING)
        size += chunk.cost_bytes
    return out, size


@given(st.lists(tensors(), min_size=1, max_size=3), SHARES, st.sampled_from([1, 3, 7, 127]))
def test_what_arrives_and_what_is_left_are_the_update(
    parts: list[Floats], share: float, levels: int
) -> None:
    """But for one rounding to float32 of what is left."""
    spec = ModelSpec(tuple(TensorSpec(f"t{n}", (part.size,)) for n, part in enumerate(parts)))
    whole = np.concatenate(parts)
    sparsity = Sparsity(share, ternary=levels == 1)
    kept = sparsity.kept_of(spec, whole.__getitem__)
    spreads = tensor_spreads(spec, kept.__getitem__)
    grant = granted_up(step_grant(spec, spreads, levels), spreads, spec)
    update = plan_payload(spec, grant.bits, spreads, grant.steps)
    arrived, _ = coded(update, kept)
    left = lost(update, kept, whole)
    for tensor, part in enumerate(spec.slices):
        exact = whole[part].astype(np.float64) - arrived[part]
        assert left[tensor].tolist() == exact.astype(np.float32).tolist()
    if levels == 1:
        assert np.array_equal(arrived, kept)


@pytest.mark.parametrize("share", [1 / 25, 1 / 100, 1 / 400])
def test_places_and_signs_take_what_information_theory_asks(share: float) -> None:
    """Within 2 %: no rival loses by its packing."""
    rng, size = np.random.default_rng(3), 235_200
    spec = ModelSpec((TensorSpec("w", (784, 300)),))
    kept = Sparsity(share, ternary=True).kept(rng.standard_normal(size).astype(np.float32))
    spreads = (tensor_spread(kept),)
    grant = step_grant(spec, spreads, 1)
    _, taken = coded(plan_payload(spec, grant.bits, spreads, grant.steps), kept)
    p = np.count_nonzero(kept) / size
    least = size / 8 * (p - p * np.log2(p) - (1 - p) * np.log2(1 - p))
    assert least < taken < 1.02 * least + 16
