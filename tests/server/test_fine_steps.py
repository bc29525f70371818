"""Steps of statistics, which follow from the noise that a test bears, not from a price."""

from dataclasses import replace

import numpy as np
import pytest

from fedaq.codec.model import Kind, ModelSpec, TensorSpec, group
from fedaq.codec.quantizer import Floats, Spread, tensor_spread
from fedaq.codec.statistics import DOWNLINK, UPLINK
from fedaq.energy.cost import RadioCost
from fedaq_server.schemes.code_lengths import ZERO_BITS
from fedaq_server.schemes.coded import FIRST_FINER, CodedBudget
from fedaq_server.schemes.scheme import ClientState, RoundState
from fedaq_server.schemes.spreads import arrays
from fedaq_server.schemes.step_grants import (
    FINE_NOISE,
    MOVED,
    Updates,
    downlink_grant,
    updates,
    uplink_grant,
)

VALUES = 2000
SPEC = ModelSpec(
    (
        TensorSpec("weight", (VALUES,)),
        group("statistics", Kind.STATISTICS, (TensorSpec("mean", (VALUES,), Kind.MEAN),)),
    )
)


def drawn(seed: int, scale: float = 1.0) -> Floats:
    return np.random.default_rng(seed).normal(0, scale, VALUES).astype(np.float32)


def state(reports: tuple[bool, ...], moved: float = 1.0) -> RoundState:
    radio, share = RadioCost(1e-7, 1e-7), 1 / len(reports)
    clients = {
        f"{i:02}": ClientState(f"{i:02}", share, radio, None, reports=each)
        for i, each in enumerate(reports)
    }
    going_down = tensor_spread(drawn(1, 0.1)), tensor_spread(drawn(2, moved))
    return RoundState(2, 9, SPEC, going_down, clients, 1e-7, going_down, differences=True)


def sent(now: RoundState, name: str, of_statistics: Spread | None = None) -> Updates:
    client = now.clients[name]
    spreads = tensor_spread(drawn(1, 0.1)), of_statistics or tensor_spread(drawn(2))
    return updates(arrays(spreads), now, client.weight, client.reports)


@pytest.mark.parametrize("reports", [(True, True, False), (True,) * 4, (True,) * 30])
def test_the_mean_of_statistics_has_the_noise_that_is_due(reports: tuple[bool, ...]) -> None:
    now = state(reports)
    values, noise, generator = drawn(2), np.zeros(VALUES), np.random.default_rng(3)
    heard = [client.name for client in now.clients.values() if client.reports]
    for name in heard:
        step = uplink_grant(sent(now, name), 0.05).steps[1]
        rounded = step * np.floor(values / step + generator.random(VALUES))
        noise += (rounded - values) / len(heard)
    assert UPLINK * np.sqrt(np.mean(noise**2)) == pytest.approx(FINE_NOISE, rel=0.1)


@pytest.mark.parametrize("step", [1e-4, 0.05, 3.0])
def test_no_price_changes_the_step_of_statistics(step: float) -> None:
    now = state((True, True))
    fine = uplink_grant(sent(now, "00"), 0.1).steps[1]
    of_weights, own = uplink_grant(sent(now, "00"), step).steps
    assert own == fine
    assert of_weights in (0.0, step)
    assert downlink_grant(now, step).steps[1] == downlink_grant(now, 0.1).steps[1] > 0


def test_whoever_does_not_report_sends_no_statistics_and_is_not_expected_to() -> None:
    now = state((True, False))
    for name, reports in (("00", True), ("01", False)):
        assert bool(uplink_grant(sent(now, name), 0.05).bits[1]) == reports
        codes = sent(now, name).codes(0.05)
        assert (codes.entropy[1] > 0) == reports
        assert (codes.headers[1] > ZERO_BITS) == reports


def test_few_statistics_are_sent_however_few_bits_they_are_worth() -> None:
    now = state((True, True))
    still = replace(tensor_spread(drawn(2)), lo=-1e-4, hi=1e-4, mean=0.0, deviation=1e-5)
    assert uplink_grant(sent(now, "00", still), 0.05).bits[1] > 0


def test_statistics_go_down_when_they_have_moved() -> None:
    for moved, due in ((0.9 * MOVED, False), (1.1 * MOVED, True)):
        grant = downlink_grant(state((True,), moved / DOWNLINK), 0.05)
        assert bool(grant.bits[1]) == due
        assert bool(grant.steps[1]) == due
    # As a whole model they cannot be left out.
    whole = replace(state((True,), 0.0), differences=False)
    assert downlink_grant(whole, 0.05).bits[1] > 0


@pytest.mark.parametrize(("budget_j", "finer"), [(1e-2, FIRST_FINER), (10.0, 1.0)])
def test_with_a_budget_for_few_rounds_statistics_are_finer_in_the_first(
    budget_j: float, finer: float
) -> None:
    """It may be the only one, and they change most in it."""
    first = replace(state((True, True)), round=1, downlink_samples=(drawn(1, 0.1), drawn(2)))
    scheme = CodedBudget(budget_j)
    plan = scheme.plan(first)
    assert plan is not None
    ranges = tensor_spread(drawn(1, 0.1)), tensor_spread(drawn(2))
    granted = scheme.grant(first, plan, first.clients["00"], ranges).steps[1]
    assert granted == pytest.approx(sent(first, "00").fine_step / finer)
