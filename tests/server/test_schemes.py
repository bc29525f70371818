"""The rules of the built-in schemes against sequences worked out by hand."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaq.codec.quantizer import is_width
from fedaq.errors import UserError
from fedaq.settings import DadaquantSettings, FeddqSettings
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.records.record import RoundRecord
from fedaq_server.run import Run
from fedaq_server.schemes.adaquantfl import Adaquantfl, adaquantfl, bits_for_levels
from fedaq_server.schemes.dadaquant import Dadaquant, client_levels, dadaquant
from fedaq_server.schemes.feddq import Feddq, descending_bits, feddq
from fedaq_server.schemes.loading import BUILT_IN, load_scheme
from fedaq_server.schemes.scheme import (
    Grant,
    Scheme,
    granted_up,
)
from server.scheme_rounds import SPEC, nobody_reported, outcome, planned, ranges, settings, state


def uplink_sequence(scheme: Scheme, losses: list[float]) -> list[int]:
    """Return the first client's bits in each round, the one after the last loss included."""
    bits = []
    for number, loss in enumerate([*losses, None], 1):
        now = state(number)
        plan = planned(scheme, now)
        client = now.clients["client-0"]
        granted = scheme.grant(now, plan, client, ranges(1.0, 1.0))
        assert granted == Grant(plan.uplink_bits["client-0"])
        assert len(set(granted.bits)) == 1
        bits.append(granted.bits[0])
        if loss is not None:
            scheme.learn(outcome(loss, number))
    return bits


# Levels and bits


@given(st.integers(1, 2**16 - 1))
def test_bits_are_the_fewest_that_hold_the_levels(levels: int) -> None:
    bits = bits_for_levels(levels)
    assert 2**bits - 1 >= levels
    assert 2 ** (bits - 1) - 1 < levels


def test_levels_beyond_the_widest_code_get_the_widest() -> None:
    assert bits_for_levels(10**9) == 16


# AdaQuantFL


def test_adaquantfl_by_hand() -> None:
    # s_0 = 2; F_0 / F_k is 1, 4, 16, 100, so s_k is 2, 4, 8, 20 a round later.
    scheme = adaquantfl(settings())
    losses = [2.0, 0.5, 0.125, 0.02]
    assert uplink_sequence(scheme, losses) == [2, 2, 3, 4, 5]
    assert scheme.levels() == 20


def test_adaquantfl_rounds_levels_up() -> None:
    # 3 sqrt(1 / 0.7) = 3.59 gives 4 levels, which need a third bit.
    assert uplink_sequence(adaquantfl(settings("adaquantfl.s0=3")), [1.0, 0.7]) == [2, 2, 3]


def test_adaquantfl_forgets_a_better_loss() -> None:
    # 2 sqrt(1 / 0.04) = 10 levels; the rule knows only the first loss and the last.
    assert uplink_sequence(adaquantfl(settings()), [1.0, 0.04, 1.0]) == [2, 2, 4, 2]


@given(
    st.integers(1, 2**16 - 1),
    st.lists(st.floats(1e-30, 1e30), min_size=2, max_size=12),
)
def test_adaquantfl_ascends_as_the_loss_falls(s0: int, losses: list[float]) -> None:
    losses.sort(reverse=True)
    bits = uplink_sequence(adaquantfl(settings(f"adaquantfl.s0={s0}")), losses)
    assert all(b <= c for b, c in pairwise(bits))
    assert all(1 <= b <= 16 for b in bits)


@given(st.integers(1, 50), st.integers(1, 10**6), st.integers(1, 10**6))
def test_adaquantfl_follows_the_formula(s0: int, first: int, last: int) -> None:
    scheme = adaquantfl(settings(f"adaquantfl.s0={s0}"))
    scheme.learn(outcome(float(first), 1))
    scheme.learn(outcome(float(last), 2))
    exact = s0 * (Decimal(first) / Decimal(last)).sqrt()
    levels = scheme.levels()
    # Float and decimal arithmetic may differ where the formula gives a whole number.
    assert levels - 1 - Decimal("1e-9") < exact <= levels + Decimal("1e-9")


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_adaquantfl_spends_the_most_when_no_loss_is_left(loss: float) -> None:
    assert uplink_sequence(adaquantfl(settings()), [1.0, loss]) == [2, 2, 16]


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_adaquantfl_needs_a_positive_first_loss(loss: float) -> None:
    with pytest.raises(UserError, match="adaquantfl: round 1 has the training loss"):
        adaquantfl(settings()).learn(outcome(loss))


def test_adaquantfl_ignores_a_round_without_reports() -> None:
    scheme = adaquantfl(settings())
    scheme.learn(nobody_reported(1))
    assert scheme.first_loss is None
    scheme.learn(outcome(1.0, 2))
    scheme.learn(outcome(0.25, 3))
    scheme.learn(nobody_reported(4))
    assert scheme.levels() == 4


# DAdaQuant


def levels_over_time(scheme: Dadaquant, losses: list[float]) -> list[int]:
    levels = [scheme.q]
    for number, loss in enumerate(losses, 1):
        scheme.learn(outcome(loss, number))
        levels.append(scheme.q)
    return levels


def test_dadaquant_doubles_when_the_running_loss_stalls() -> None:
    # psi = 1/2: the running losses are 4, 3, 3, 3, 3, 4, 4.5, 4.75, 4.875. With phi = 2 a
    # running loss not below the one before is a stall, and each level lasts two rounds.
    scheme = Dadaquant(DadaquantSettings(psi=0.5, phi=2, q_max=8), phi=2, q=1)
    losses = [4.0, 2.0, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 5.0]
    assert levels_over_time(scheme, losses) == [1, 1, 1, 2, 2, 4, 4, 8, 8, 8]


def test_dadaquant_compares_across_phi_rounds() -> None:
    # Running losses 8, 4, 5, 4: the third is above the second but below the first; the
    # fourth is not below the second, two rounds (phi - 1) before it.
    scheme = Dadaquant(DadaquantSettings(psi=0.5, phi=3), phi=3, q=1)
    assert levels_over_time(scheme, [8.0, 0.0, 6.0, 3.0]) == [1, 1, 1, 1, 2]


def test_dadaquant_stops_at_q_max_between_powers() -> None:
    scheme = Dadaquant(DadaquantSettings(q_min=3, q_max=10), phi=2, q=3)
    assert levels_over_time(scheme, [1.0] * 8) == [3, 3, 6, 6, 10, 10, 10, 10, 10]


def test_dadaquant_sees_a_loss_that_stands_still() -> None:
    scheme = Dadaquant(DadaquantSettings(), phi=3, q=1)
    assert levels_over_time(scheme, [0.7] * 3) == [1, 1, 1, 2]


def levels_by_definition(losses: list[int], phi: int, q_min: int, q_max: int) -> list[int]:
    """Return ``q_1, q_2, ...`` as section 3.4 words it, with psi = 1/2."""
    running: list[float] = []
    for loss in losses:
        running.append((running[-1] + loss) / 2 if running else float(loss))
    q = [q_min]
    for t in range(1, len(losses) + 1):
        latest = q[-phi:]
        kept = len(latest) == phi and len(set(latest)) == 1
        stalled = t >= phi and running[t - 1] >= running[t - phi]
        q.append(min(2 * q[-1], q_max) if kept and stalled else q[-1])
    return q


@given(
    st.lists(st.integers(0, 16), max_size=30),
    st.integers(2, 6),
    st.integers(1, 5),
    st.integers(5, 100),
)
def test_dadaquant_against_the_definition(
    losses: list[int], phi: int, q_min: int, q_max: int
) -> None:
    own = DadaquantSettings(psi=0.5, phi=phi, q_min=q_min, q_max=q_max)
    levels = levels_over_time(Dadaquant(own, phi, q_min), [float(loss) for loss in losses])
    assert levels == levels_by_definition(losses, phi, q_min, q_max)
    assert all(q_min <= q <= q_max for q in levels)


def test_dadaquant_ignores_a_round_without_reports() -> None:
    scheme = Dadaquant(DadaquantSettings(), phi=2, q=1)
    scheme.learn(outcome(1.0))
    scheme.learn(nobody_reported(2))
    assert (scheme.losses, scheme.rounds_at_q) == ([1.0], 1)


@pytest.mark.parametrize(
    ("assignments", "phi"),
    [(["rounds=500"], 50), (["rounds=10"], 2), (["rounds=500", "dadaquant.phi=7"], 7)],
)
def test_dadaquant_phi_is_a_tenth_of_the_run(assignments: list[str], phi: int) -> None:
    assert dadaquant(settings(*assignments)).phi == phi


def test_client_levels_by_hand() -> None:
    # w**(2/3) is 4 : 1 : 1; q sqrt(6 / 0.66) 0.1 = 0.30151 q times that.
    weights = {"a": 0.8, "b": 0.1, "c": 0.1}
    assert client_levels(weights, 10) == {"a": 12, "b": 3, "c": 3}
    assert client_levels(weights, 1) == {"a": 1, "b": 1, "c": 1}


@given(st.integers(1, 40), st.integers(1, 1000))
def test_equal_weights_get_equal_levels(clients: int, q: int) -> None:
    weights = {str(i): 1 / clients for i in range(clients)}
    assert set(client_levels(weights, q).values()) == {q}


@given(st.lists(st.integers(1, 100), min_size=2, max_size=12))
def test_client_levels_solve_theorem_1(examples: list[int]) -> None:
    q = 100_000  # so large that rounding to whole levels does not count
    weights = {str(i): n / sum(examples) for i, n in enumerate(examples)}
    levels = client_levels(weights, q)
    error = sum(weights[name] ** 2 / levels[name] ** 2 for name in weights)
    assert error == pytest.approx(sum(w**2 for w in weights.values()) / q**2, rel=1e-2)
    assert sum(levels.values()) <= len(levels) * (q + 1)
    by_weight = sorted(weights, key=weights.__getitem__)
    assert all(levels[a] <= levels[b] for a, b in pairwise(by_weight))


def test_dadaquant_gives_heavier_clients_more_bits() -> None:
    scheme = dadaquant(settings("dadaquant.q_min=10"))
    now = state(weights=(0.8, 0.1, 0.1))
    plan = scheme.plan(now)
    assert plan.uplink_bits == {"client-0": (4, 4), "client-1": (2, 2), "client-2": (2, 2)}
    for name, client in now.clients.items():
        granted = scheme.grant(now, plan, client, ranges(9.0, 9.0))
        assert granted == Grant(plan.uplink_bits[name])


# FedDQ


@pytest.mark.parametrize(
    ("width", "bits"),
    [(0.0, 1), (0.25, 1), (0.5, 1), (0.51, 2), (1.0, 2), (4.0, 4), (4.01, 5), (1e30, 16)],
)
def test_feddq_by_hand(width: float, bits: int) -> None:
    assert descending_bits(width, resolution=0.25) == bits


def test_feddq_survives_a_ratio_beyond_float64() -> None:
    assert descending_bits(2.0**126, resolution=1e-300) == 16


@given(st.floats(0, 2.0**126), st.integers(-20, 4))
def test_feddq_takes_the_fewest_bits_that_reach_the_resolution(width: float, power: int) -> None:
    resolution = 2.0**power
    fewest = next((b for b in range(1, 16) if resolution * 2**b >= width), 16)
    # log2 of a number just above a power of two may round to the power itself.
    assert descending_bits(width, resolution) in {
        fewest,
        next((b for b in range(1, 16) if resolution * 2**b * (1 + 1e-14) >= width), 16),
    }


def test_feddq_descends_as_the_updates_shrink() -> None:
    scheme = feddq(settings("feddq.resolution=0.25"))
    now = state()
    plan = scheme.plan(now)
    granted = [
        scheme.grant(now, plan, now.clients["client-0"], ranges(8.0 / 2**k, 4.0 / 2**k))
        for k in range(6)
    ]
    bits = [(5, 4), (4, 3), (3, 2), (2, 1), (1, 1), (1, 1)]
    assert granted == [Grant(expected) for expected in bits]


def test_feddq_announces_the_bits_of_the_last_update() -> None:
    scheme = Feddq(FeddqSettings(resolution=0.25))
    assert scheme.plan(state(last=ranges(4.0, 0.0))).uplink_bits["client-1"] == (4, 1)
    assert scheme.plan(state(last=None)).uplink_bits["client-1"] == (16, 16)


# All of them


@pytest.mark.parametrize("name", ["adaquantfl", "dadaquant", "feddq"])
def test_downlink_is_raw_unless_set(name: str) -> None:
    scheme = load_scheme(settings(f"scheme={name}"))
    assert planned(scheme).downlink == Grant((32, 32))
    scheme = load_scheme(settings(f"scheme={name}", f"{name}.downlink_bits=8"))
    assert planned(scheme).downlink == Grant((8, 8))


@pytest.mark.parametrize("name", ["adaquantfl", "dadaquant", "feddq"])
def test_impossible_downlink_bits_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.downlink_bits: 1 to 16 bits, or 32"):
        settings(f"{name}.downlink_bits=17")


@pytest.mark.parametrize("name", BUILT_IN)
@given(
    losses=st.lists(st.floats(0.01, 10), min_size=1, max_size=6),
    widths=st.tuples(st.floats(0, 100), st.floats(0, 100)),
)
def test_every_width_is_possible(
    name: str, losses: list[float], widths: tuple[float, float]
) -> None:
    scheme = load_scheme(settings(f"scheme={name}"))
    last = None
    for number, loss in enumerate(losses, 1):
        now = state(number, last=last)
        plan = scheme.plan(now)
        assert plan is not None
        grants = [plan.downlink, *map(Grant, plan.uplink_bits.values())]
        last = ranges(*widths)
        grants += [scheme.grant(now, plan, client, last) for client in now.clients.values()]
        for grant in grants:
            granted_up(grant, ranges(1.0, 1.0), SPEC)
            # Only with an entropy coder is a tensor ever left out.
            assert name == "fedaq" or all(map(is_width, grant.bits))
        scheme.learn(outcome(loss, number, widths))


@pytest.mark.parametrize("build", [adaquantfl, dadaquant])
def test_state_is_plain_data(build: Any) -> None:
    """What a scheme has learned survives JSON, and it goes on as if nothing had been."""
    losses = [1.0, 0.5, 0.5, 0.5, 2.0, 2.0, 0.05]
    whole: Adaquantfl | Dadaquant = build(settings("rounds=20"))
    expected = uplink_sequence(whole, losses)
    saved: Adaquantfl | Dadaquant = build(settings("rounds=20"))
    first = uplink_sequence(saved, losses[:4])
    text = json.dumps({key: value for key, value in vars(saved).items() if key != "settings"})
    resumed = replace(build(settings("rounds=20")), **json.loads(text))
    assert first[:-1] + uplink_sequence(resumed, losses[4:]) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", ["adaquantfl", "dadaquant", "feddq"])
def test_a_federation_trains(name: str, tmp_path: Path) -> None:
    records: list[RoundRecord] = []
    wanted = settings(f"scheme={name}", "task=digits", "clients=3", "rounds=4", "seed=1")
    asyncio.run(federate(Run(wanted, Ledger(tmp_path), records.append)))
    assert [record.clients for record in records] == [3] * 4
    assert all(record.downlink_bits == 32 for record in records)
    assert all(1 <= record.uplink_bits <= 16 for record in records)
    assert records[-1].train_loss < records[0].train_loss
    # Two levels take 2 bits and one takes 1; the loss falls, so only AdaQuantFL may ascend.
    bits = [record.uplink_bits for record in records]
    if name == "adaquantfl":
        assert bits[0] == 2
        assert bits == sorted(bits)
    if name == "dadaquant":
        assert set(bits) == {1.0}
