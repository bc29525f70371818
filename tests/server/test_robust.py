"""Median and trimmed mean against NumPy on whole arrays, and what hostile updates do to them."""

import tracemalloc
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import packed_codes
from fedaq.codec import payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.quantizer import Floats
from fedaq_server.rounds import gathered
from fedaq_server.rounds.aggregation import Contribution
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.rules import Rule, median, trimmed, trimmed_mean
from packed_codes import to_chunk
from wire.cases import CHUNK_BYTES, SPECS, Sent, payloads, ranges_of

TRIM = 0.2
RULES: dict[str, Rule] = {"median": median, "trimmed_mean": partial(trimmed_mean, trim=TRIM)}


def decoded(sent: Sent) -> Floats:
    flat = np.zeros(sent.header.spec.parameters, np.float32)
    for offset, data in sent.chunks(2**20):
        packed_codes.decode_chunk(sent.header, offset, data, flat)
    return flat


def contribute(aggregate: Gathered, sent: Sent, chunk_bytes: int) -> Contribution:
    contribution = Contribution(aggregate, sent.header, 1)
    for offset, data in sent.chunks(chunk_bytes):
        contribution.add(to_chunk(sent.header, 1, offset, data, squeeze=False))
    return contribution


def numpy_middle(middle: str, updates: list[Floats]) -> Any:
    whole = np.sort(np.stack(updates), axis=0)
    if middle == "median":
        return np.median(whole.astype(np.float64), axis=0)
    cut = min(int(np.ceil(TRIM * len(updates))), (len(updates) - 1) // 2)
    return whole[cut : len(updates) - cut].astype(np.float64).mean(axis=0)


@given(st.data(), st.sampled_from(["median", "trimmed_mean"]), st.randoms(use_true_random=False))
def test_it_is_what_numpy_makes_of_whole_arrays_in_any_order_and_any_parts(
    data: st.DataObject, middle: str, random: Any
) -> None:
    """Widths and chunks differ between clients; one update is taken out again."""
    spec = data.draw(SPECS)
    updates = data.draw(st.lists(payloads(st.just(spec)), min_size=1, max_size=6))
    gone = data.draw(payloads(st.just(spec)))
    cuts = sorted(data.draw(st.lists(st.integers(0, spec.parameters), max_size=3)))
    expected = numpy_middle(middle, [decoded(sent) for sent in updates])
    random.shuffle(updates)
    base = np.linspace(-1, 1, spec.parameters, dtype=np.float32)
    out = np.empty_like(base)
    with TemporaryDirectory() as spool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathered, "BLOCK_VALUES", data.draw(st.integers(1, 64)))
        patch.setattr(gathered, "LEAST_BLOCK", data.draw(st.integers(1, 16)))
        aggregate = Gathered(spec, Path(spool), RULES[middle])
        for sent in updates:
            contribute(aggregate, sent, data.draw(CHUNK_BYTES)).commit()
        contribute(aggregate, gone, data.draw(CHUNK_BYTES)).undo()
        for start, stop in zip([0, *cuts], [*cuts, spec.parameters], strict=True):
            part = slice(start, stop)
            aggregate.apply(base[part], out, part)
        in_place = base.copy()
        aggregate.apply(in_place, in_place)
        aggregate.close()
        assert not list(Path(spool).iterdir())
    assert out.tobytes() == (base + np.asarray(expected, np.float32)).tobytes()
    assert in_place.tobytes() == out.tobytes()


def test_without_any_update_the_base_stays(tmp_path: Path) -> None:
    spec = ModelSpec((TensorSpec("t", (5,)),))
    out = np.arange(5, dtype=np.float32)
    Gathered(spec, tmp_path, median).apply(out, out)
    assert out.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("clients", "trim", "cut"), [(10, 0.2, 2), (30, 0.1, 3), (11, 0.2, 3), (3, 0.01, 1)]
)
def test_a_trimmed_mean_leaves_out_the_share_rounded_up(
    clients: int, trim: float, cut: int
) -> None:
    assert trimmed(clients, trim) == cut


@pytest.mark.parametrize("middle", ["median", "trimmed_mean"])
def test_memory_is_that_of_a_block_and_not_of_a_model_of_every_client(
    middle: str, tmp_path: Path
) -> None:
    spec = ModelSpec((TensorSpec("t", (2**20,)),))
    flat = np.random.default_rng(1).standard_normal(2**20, np.float32)
    header = payload.plan_payload(spec, (4,), ranges_of(spec, flat))
    sent = Sent(header, flat, payload.transfer_keys(spec, 1, "test"))
    aggregate = Gathered(spec, tmp_path, RULES[middle])
    for _ in range(32):
        contribute(aggregate, sent, 2**17).commit()
    tracemalloc.start()
    try:
        aggregate.apply(flat, flat)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        aggregate.close()
    # A model of every client would be 128 MiB.
    assert peak_bytes < 8 * 4 * gathered.BLOCK_VALUES
