"""FedAvgM, FedAdam and FedYogi against their papers, written again for whole arrays of doubles."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from fedaq.codec.model import ModelSpec
from fedaq.codec.quantizer import Floats
from fedaq.modules.signature import spec_of
from fedaq.settings import ServerOptimizerSettings
from fedaq_server.rounds import server_optimizer
from fedaq_server.rounds.aggregation import Aggregate, Contribution
from fedaq_server.rounds.commit import _add
from fedaq_server.rounds.gathered import Gathered
from fedaq_server.rounds.rules import Rule, median, trimmed_mean
from fedaq_server.rounds.server_optimizer import ServerOptimizer
from packed_codes import to_chunk
from wire.cases import SPECS, payloads

Doubles = NDArray[np.float64]
KINDS = ("fedavgm", "fedadam", "fedyogi")


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


SPEC = spec_of(module())


def begun(kind: Any, **fields: float) -> ServerOptimizer:
    settings = ServerOptimizerSettings(kind=kind, **fields)
    optimizer = ServerOptimizer.begun(settings, SPEC, module())
    assert optimizer is not None
    return optimizer


def moved(
    kind: str, updates: list[Doubles], *, rate: float, beta1: float, beta2: float, tau: float
) -> Doubles:
    """Algorithm 2 of arXiv 2003.00295, and FedAvgM of arXiv 1909.06335, from a model of zeros."""
    model = np.zeros_like(updates[0])
    m, v = np.zeros_like(model), np.full_like(model, tau**2)
    for update in updates:
        if kind == "fedavgm":
            m = beta1 * m + update
            model += rate * m
            continue
        m = beta1 * m + (1 - beta1) * update
        if kind == "fedadam":
            v = beta2 * v + (1 - beta2) * update**2
        else:
            v = v - (1 - beta2) * update**2 * np.sign(v - update**2)
        model += rate * m / (np.sqrt(v) + tau)
    return model


class Mean:
    """An aggregate whose mean is given."""

    def __init__(self, update: Floats) -> None:
        self.update = update

    def mean(self, part: slice) -> Floats:
        return self.update[part].copy()


def updates_of(rounds: int, spec: ModelSpec = SPEC) -> list[Floats]:
    rng = np.random.default_rng(7)
    return [rng.normal(0, 0.1, spec.parameters).astype(np.float32) for _ in range(rounds)]


def after(optimizer: ServerOptimizer, updates: list[Floats]) -> Floats:
    model = np.zeros(SPEC.parameters, np.float32)
    for update in updates:
        _add(Mean(update), optimizer, model, model)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "beta1", "beta2", "tau"), [(0.3, 0.9, 0.99, 1e-3), (2, 0, 0, 1)])
def test_the_model_moves_as_the_papers_say(
    kind: str, rate: float, beta1: float, beta2: float, tau: float
) -> None:
    optimizer = begun(kind, learning_rate=rate, momentum=beta1, beta2=beta2, tau=tau)
    updates = updates_of(6)
    doubles = [update.astype(np.float64) for update in updates]
    expected = moved(kind, doubles, rate=rate, beta1=beta1, beta2=beta2, tau=tau)
    mean = np.sum(doubles, axis=0)
    statistics = [part for tensor, part in SPEC.named if "running" in tensor.name]
    assert len(statistics) == 2
    for part in statistics:  # are not trained
        expected[part] = mean[part]
    np.testing.assert_allclose(after(optimizer, updates), expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_the_same_whatever_the_blocks(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = after(begun(kind), updates_of(3))
    monkeypatch.setattr(server_optimizer, "BLOCK_VALUES", 5)
    assert np.array_equal(after(begun(kind), updates_of(3)), whole)


def test_without_momentum_and_at_rate_1_fedavgm_is_the_mean() -> None:
    updates = updates_of(4)
    plain = np.zeros(SPEC.parameters, np.float32)
    for update in updates:
        plain += update
    assert np.array_equal(after(begun("fedavgm", momentum=0.0), updates), plain)


def test_what_it_remembers_is_as_many_models_as_the_docs_say() -> None:
    sizes = [begun(kind).flat.size / SPEC.parameters for kind in KINDS]
    assert sizes == [1, 2, 2]
    assert ServerOptimizer.begun(ServerOptimizerSettings(), SPEC, module()) is None


@given(st.data(), st.sampled_from([None, median, partial(trimmed_mean, trim=0.2)]))
def test_the_mean_of_a_part_is_what_would_be_added_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rule: Rule | None
) -> None:
    spec = data.draw(SPECS)
    folder: Path = tmp_path_factory.getbasetemp()
    updates = data.draw(st.lists(payloads(st.just(spec)), max_size=3))
    total = np.zeros(spec.parameters, np.int64)
    aggregate = Aggregate(spec, 3, folder, total) if rule is None else Gathered(spec, folder, rule)
    aggregate.clear()
    for sent in updates:
        contribution = Contribution(aggregate, sent.header, 1)
        for offset, content in sent.chunks(2**20):
            contribution.add(to_chunk(sent.header, 1, offset, content, squeeze=False))
        contribution.commit()
    added = np.zeros(spec.parameters, np.float32)
    aggregate.apply(added.copy(), added)
    start = data.draw(st.integers(0, spec.parameters))
    part = slice(start, data.draw(st.integers(start, spec.parameters)))
    assert np.array_equal(aggregate.mean(part), added[part])
    aggregate.close()
