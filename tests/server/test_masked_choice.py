"""What share of the values, in which steps, masked updates are sent with: against brute force."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import inf, log2

import numpy as np
import pytest

from fedaq.codec.common_grid import grid_code
from fedaq.codec.model import Kind, ModelSpec, TensorSpec
from fedaq.codec.quantizer import MAX_BITS, Spread
from fedaq.codec.subset import Subset
from fedaq.energy.budgets import JOULES
from fedaq.energy.cost import RadioCost
from fedaq.privacy.layout import layout_of
from fedaq_server.accounts import Purse
from fedaq_server.schemes import masked_choice
from fedaq_server.schemes.common_grid import CommonGrid
from fedaq_server.schemes.masked_bytes import Bytes, widths_of
from fedaq_server.schemes.masked_choice import (
    MOST_NOISE,
    Choice,
    Limit,
    best_choice,
    best_within,
    candidates,
)
from fedaq_server.schemes.scheme import ClientState, Outcome, RoundState

SPEC = ModelSpec((TensorSpec("weight", (300, 40)), TensorSpec("bias", (40,))))
WIDTHS = (0.01, 0.03)
KEYS = Bytes(900, 1400)


def state_of(
    clients: int = 10,
    number: int = 3,
    up: float = 1e-7,
    spec: ModelSpec = SPEC,
    budget_j: float | None = None,
) -> RoundState:
    radio = RadioCost(up, 1e-7)
    rng = np.random.default_rng(1)
    states = {
        f"client-{i}": ClientState(f"client-{i}", 1 / clients, radio, None) for i in range(clients)
    }
    wide = tuple(Spread(-0.1, 0.1, 0.0, 0.05, 0.04) for _ in spec.tensors)
    purse = Purse(
        "energy.budget_j", JOULES, budget_j or 0.0, 20 - number + 1,
        dict.fromkeys(states, 8 * up), 8 * clients * 1e-7,
    )  # fmt: skip
    return RoundState(
        number, 20, spec, wide, states, clients * 1e-7, wide,
        tuple(rng.normal(0, 0.02, 300).astype(np.float32) for _ in spec.tensors),
        differences=True, purses=() if budget_j is None else (purse,), total_weight=clients,
    )  # fmt: skip


def joules_of(state: RoundState) -> Limit:
    clients = len(state.clients)
    up = 8 * sum(client.radio.uplink_j_per_bit for client in state.clients.values())
    fixed = up * KEYS.up + 8e-7 * clients * KEYS.down
    return Limit(up, 8 * state.downlink_j_per_bit, fixed, inf)


def choices(
    widths: Sequence[float] = WIDTHS, most_bits: int = MAX_BITS, state: RoundState | None = None
) -> list[Choice]:
    return candidates(
        state or state_of(), widths, is_first=False, most_bits=most_bits, most_noise=MOST_NOISE
    )


def noise_of(one_in: int, step: float, clients: int) -> float:
    """Noise of values of these widths, drawn and rounded, over the mean square of their mean."""
    rng = np.random.default_rng(5)
    total = power = 0.0
    for tensor, width in zip(SPEC.tensors, WIDTHS, strict=True):
        values = rng.laplace(0, width / 2**0.5, 200_000)
        up = (one_in * values / step) % 1
        error = float(np.mean(up * (1 - up))) * step**2
        power += tensor.elements * width**2
        total += tensor.elements * error / one_in / clients
    return one_in - 1 + total / power


@pytest.mark.parametrize("clients", [3, 10, 60])
@pytest.mark.parametrize("up", [1e-8, 1e-7, 3e-6])
def test_the_choice_is_the_best_of_all(clients: int, up: float) -> None:
    state = state_of(clients, up=up)
    joules = joules_of(state)
    found = choices(state=state)
    chosen = best_choice(found, joules)
    down = {choice.one_in: choice.down_bytes for choice in found}
    most = -inf
    for one_in, power in product(down, range(-12, 4)):
        step = 2.0**power
        grid = tuple(grid_code(step, masked_choice.REACH * one_in * each) for each in WIDTHS)
        widths = widths_of(grid, clients)
        code_bytes = sum(t.elements * w for t, w in zip(SPEC.tensors, widths, strict=True))
        noise = noise_of(one_in, step, clients)
        if noise <= MOST_NOISE or one_in == 1:
            other = Choice(one_in, step, noise, code_bytes / 8 / one_in, down[one_in], 0.0)
            most = max(most, other.gain / joules.taken(other))
    assert chosen.gain / joules.taken(chosen) == pytest.approx(most, rel=0.01)
    assert chosen.noise == pytest.approx(
        noise_of(chosen.one_in, chosen.step, clients), rel=0.05, abs=0.02
    )


def test_dear_keys_make_few_rounds_of_much_and_dear_codes_many_of_little() -> None:
    state = state_of()
    found = choices(state=state)
    usual = joules_of(state)
    dear = best_choice(found, replace(usual, fixed=100 * usual.fixed))
    cheap = best_choice(found, replace(usual, fixed=0.0))
    assert dear.one_in < best_choice(found, usual).one_in <= cheap.one_in
    assert dear.noise < cheap.noise


def test_steps_are_powers_of_two_in_the_unit_of_the_updates() -> None:
    for scale in (1e-3, 1.0, 2.0**7):
        widths = [scale * width for width in WIDTHS]
        for choice in choices(widths):
            assert log2(choice.step) == round(log2(choice.step))
            assert 0.05 < choice.step / (choice.one_in * scale * WIDTHS[0]) < 50


def test_codes_have_no_more_bits_than_sums_leave_them() -> None:
    wide = (0.001, 30.0)
    for choice in choices(wide, most_bits=4):
        grid = [grid_code(choice.step, masked_choice.REACH * choice.one_in * w) for w in wide]
        assert max(code.bits for code in grid) <= 4


def test_a_round_of_more_joules_has_no_more_noise() -> None:
    state = state_of()
    found = choices(state=state)
    joules, before = joules_of(state), inf
    for most in np.geomspace(1e-4, 10, 40):
        chosen = best_within(found, [replace(joules, most=float(most))])
        least = min(map(joules.taken, found))
        assert joules.taken(chosen) <= max(most, least) * (1 + 1e-12)
        if most >= least:
            assert chosen.noise <= before
            before = chosen.noise
    assert chosen.one_in == 1


def _learned(scheme: CommonGrid) -> CommonGrid:
    scheme.learn(Outcome(2, 0.5, 1.0, 1.0, {}, 0.1, {}, widths=WIDTHS))
    return scheme


@pytest.mark.parametrize("budget_j", [0.05, 0.5, 5.0, 50.0])
def test_a_budget_is_divided_over_the_rounds_that_are_left(budget_j: float) -> None:
    """With what it leaves for each, more rounds follow or finer ones."""
    scheme = _learned(CommonGrid(None, None, masked=True, seed=1))
    left, rounds, first = budget_j, 0, None
    for number in range(3, 21):
        state = state_of(number=number, budget_j=left)
        plan = scheme.plan(state)
        if plan is None:
            break
        first = first or plan
        assert plan.downlink.limit_bytes is not None
        up = sum(8e-7 * up for up in plan.least_up_bytes.values())
        alone = sum(8e-7 * down for down in plan.alone_bytes.values())
        left -= up + alone + 8e-6 * min(1000, plan.downlink.limit_bytes)
        rounds += 1
        assert left >= 0
    assert first is not None
    free = scheme.plan(state_of())
    assert free is not None
    assert (rounds < 18) == (budget_j < 1)
    if rounds == 18:
        assert first.one_in <= free.one_in


def test_what_is_planned_is_what_is_drawn() -> None:
    scheme = _learned(CommonGrid(None, None, masked=True, seed=1))
    plan = scheme.plan(state_of())
    assert plan is not None
    assert plan.one_in > 1
    counts = Subset(SPEC, 1, 3, plan.one_in).counts
    codes = layout_of(counts, widths_of(plan.grid, 10)).packed_bytes
    least = set(plan.least_up_bytes.values())
    assert len(least) == 1
    assert codes < least.pop() < codes + 1500


def test_masks_change_nothing_of_what_is_chosen() -> None:
    plans = [
        _learned(CommonGrid(None, None, masked=masked, seed=1)).plan(state_of())
        for masked in (True, False)
    ]
    assert plans[0] is not None
    assert plans[1] is not None
    assert plans[0].grid == plans[1].grid
    assert plans[0].one_in == plans[1].one_in
    assert plans[0].downlink == plans[1].downlink
    assert plans[0].price == plans[1].price > 0


def test_statistics_are_sent_whole_and_finely() -> None:
    spec = ModelSpec((TensorSpec("weight", (4000,)), TensorSpec("norm", (8,), Kind.STATISTICS)))
    scheme = CommonGrid(None, None, masked=True, seed=1)
    scheme.learn(Outcome(2, 0.5, 1.0, 1.0, {}, 0.1, {}, widths=(0.5, 0.5)))
    plan = scheme.plan(state_of(spec=spec))
    assert plan is not None
    assert plan.one_in > 1
    weight, norm = plan.grid
    assert norm.step <= 0.125 < weight.step
    assert norm.zero * norm.step >= masked_choice.REACH * 0.5


def test_two_clients_without_masks_have_a_plan() -> None:
    assert CommonGrid(None, None).plan(state_of(2, number=1)) is not None


def test_updates_of_zeros_have_a_plan() -> None:
    scheme = CommonGrid(None, None, masked=True)
    scheme.learn(Outcome(2, 0.5, 1.0, 1.0, {}, 0.1, {}, widths=(0.0, 0.0)))
    assert scheme.plan(state_of()) is not None


def test_where_the_loss_rises_less_noise_is_borne() -> None:
    scheme = CommonGrid(None, None, masked=True)
    noises = []
    for loss in (2.0, 1.0, 1.2, 3.0, 9.0):
        scheme.learn(Outcome(2, 0.5, loss, 1.0, {}, 0.1, {}, widths=WIDTHS))
        plan = scheme.plan(state_of())
        assert plan is not None
        noises.append((scheme.most_noise, plan.one_in))
    assert [most for most, _ in noises] == [MOST_NOISE] * 3 + [MOST_NOISE / 2, MOST_NOISE / 4]
    shares = [one_in for _, one_in in noises]
    assert shares[0] == shares[1] == shares[2] > shares[3] > shares[4] >= 1
