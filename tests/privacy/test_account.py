"""The budget of epsilon: what is planned, charged and left."""

import sys
from math import exp, sqrt
from typing import Any

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from dp_accounting.rdp import RdpAccountant

from fedaq.errors import UserError
from fedaq.settings import load_settings
from fedaq_server.privacy.account import (
    LEAST_CLIP,
    MOST_CLIP,
    PrivacyAccount,
    epsilon_of,
    least_multiplier,
    planned,
)
from fedaq_server.privacy.release import most_clip

VALUES = 5000


def account_of(state: dict[str, Any] | None = None, **flags: Any) -> PrivacyAccount:
    given = {
        "privacy.epsilon": 3.0,
        "rounds": 20,
        **{k.replace("__", "."): v for k, v in flags.items()},
    }
    account = PrivacyAccount.of(
        load_settings(environment={}, flags=given), state or {}, 7.0, VALUES
    )
    assert account is not None
    return account


@pytest.mark.parametrize(("multiplier", "releases"), [(0.4, 1), (1.3, 30), (9.0, 1000)])
def test_epsilon_is_that_of_the_accountant(multiplier: float, releases: int) -> None:
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
    for _ in range(releases):
        accountant.compose(dp_event.GaussianDpEvent(multiplier))
    found = epsilon_of(multiplier, releases, 1e-5)
    assert found == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    # And no less than the exact one of as many continuous Gaussians.
    assert found >= get_epsilon_gaussian(multiplier / sqrt(releases), 1e-5)


@pytest.mark.parametrize(("epsilon", "rounds"), [(0.2, 10), (1.0, 1), (8.0, 100)])
def test_the_planned_noise_is_the_least_that_is_enough(epsilon: float, rounds: int) -> None:
    multiplier = least_multiplier(epsilon, 1e-6, rounds)
    assert 0.999 * epsilon < epsilon_of(multiplier, rounds, 1e-6) <= epsilon
    assert epsilon_of(0.999 * multiplier, rounds, 1e-6) > epsilon


def test_a_run_pays_for_its_rounds_and_for_none_more() -> None:
    account = account_of()
    assert account.spent == 0
    for _ in range(20):
        assert account.pays()
        account.releases += 1
    assert not account.pays()
    assert 2.99 < account.spent <= 3.0


def test_a_budget_that_cannot_be_met_is_refused_with_the_least_that_could_be() -> None:
    with pytest.raises(UserError, match=r"epsilon = 0.001 cannot be met in 20 rounds") as refusal:
        account_of(privacy__epsilon=0.001)
    assert "\n" not in str(refusal.value)
    least = float(str(refusal.value).partition("1e-05: ")[2].partition(" is the least")[0])
    planned(least, 1e-5, 20, VALUES)
    with pytest.raises(UserError):
        planned(0.97 * least, 1e-5, 20, VALUES)


def test_what_is_kept_comes_back() -> None:
    account = account_of()
    account.releases, account.clip = 4, 0.3
    again = account_of(account.state())
    assert again == account
    assert again.facts()["spent"] == epsilon_of(account.multiplier, 4, 1e-5)


def test_a_run_without_epsilon_has_no_account() -> None:
    assert PrivacyAccount.of(load_settings(environment={}), {}, 7.0, VALUES) is None


def test_a_clip_follows_half_of_the_updates() -> None:
    """The steps of Andrew et al.; noise may make a share of what is no share."""
    account = account_of()
    assert (account.adapts, account.clip) == (True, 7.0)
    account.adapt(1.0)
    assert account.clip == pytest.approx(7 * exp(-0.1))
    account.adapt(-3.0)
    assert account.clip == pytest.approx(7)
    account.adapt(0.5)
    assert account.clip == pytest.approx(7)
    most = most_clip(account.multiplier)
    assert most < MOST_CLIP
    for share, end in ((0.0, most), (1.0, LEAST_CLIP)):
        for _ in range(300):
            account.adapt(share)
        assert account.clip == end
        # And a sum of the fewest clients has room for it.
        account.release(VALUES, 1, masked=False)
        account.release(VALUES, 3, masked=True)


def test_a_given_clip_stays() -> None:
    account = account_of(privacy__clip=2.5)
    account.adapt(0.0)
    assert (account.adapts, account.clip) == (False, 2.5)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"scheme": "fp32"}, "privacy.epsilon: all updates of a round are on one grid"),
        ({"coding.entropy": False}, "privacy.epsilon: a common grid has steps"),
        ({"aggregation": "median"}, "privacy.epsilon: only a mean can be had"),
        ({"capture": True}, "privacy.epsilon: capture=true keeps each update"),
        ({"limits.norm_factor": 3.0}, "privacy.epsilon: limits.norm_factor"),
        ({"fedaq.uplink_resolution": 0.1}, "privacy.epsilon: the uplink's steps follow"),
        ({"privacy.epsilon": 0}, "privacy.epsilon"),
        ({"privacy.delta": 1.0}, "privacy.delta"),
        ({"privacy.clip": 0.0}, "privacy.clip"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")) as refusal:
        load_settings(environment={}, flags={"privacy.epsilon": 3.0, **flags})
    assert "\n" not in str(refusal.value)


def test_without_the_accountant_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"pip install 'fedaq\[server,dp\]'"):
        account_of()
