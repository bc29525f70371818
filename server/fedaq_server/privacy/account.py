"""The budget of epsilon: planned for all rounds of a run, and charged before a sum is released.

Two runs are neighbours that differ in one client, whose updates are zeros in one of them. Each
release is a Gaussian mechanism, whose Renyi divergences are those of the discrete Gaussian, too
(Canonne, Kamath and Steinke, arXiv 2004.00010). Who takes part in a round is no secret, so no
sampling makes anything more private.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from typing import TYPE_CHECKING, Any

from fedaq.errors import UserError
from fedaq.settings import Settings
from fedaq_server.privacy.release import Release, most_clip, most_multiplier

if TYPE_CHECKING:
    from dp_accounting.rdp import RdpAccountant

# Of adaptive clipping (Andrew et al., arXiv 1905.03871): the share of updates that are not to be
# shortened, how fast the clip follows, and where it stays.
QUANTILE, PACE = 0.5, 0.2
LEAST_CLIP, MOST_CLIP = 2.0**-10, 2.0**10
# No budget is overspent by what two computations of it differ.
_ROUNDING = 1e-9


@dataclass
class PrivacyAccount:
    """What may be told of each client, and what was.

    Attributes
    ----------
    epsilon, delta : float
        What may be.
    rounds : int
        For which it is planned.
    multiplier : float
        Standard deviation of the noise in a sum, as a multiple of what one client can move it by.
    clip : float
        The largest L2 norm of an update in the coming round.
    adapts : bool
        Whether the clip follows the updates.
    releases : int
        Sums that were released, or were about to be.
    """

    epsilon: float
    delta: float
    rounds: int
    multiplier: float
    clip: float
    adapts: bool
    releases: int = 0

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON has it."""
        return {"multiplier": self.multiplier, "clip": self.clip, "releases": self.releases}

    @classmethod
    def of(
        cls, settings: Settings, state: Mapping[str, Any], first_clip: float, values: int
    ) -> "PrivacyAccount | None":
        """Return the account of a run; None where no noise is asked for.

        Parameters
        ----------
        settings : Settings
        state : mapping
            Of a run that goes on; empty for a new one.
        first_clip : float
            Where the settings have none.
        values : int
            Of an update.

        Raises
        ------
        UserError
            If the budget cannot be met, or nothing is there to account with.
        """
        own = settings.privacy
        if own.epsilon is None:
            return None
        _accountant()  # takes its time, once, and is better missed now
        account = cls(
            own.epsilon,
            own.delta,
            settings.rounds,
            state.get("multiplier", 0.0),
            state.get("clip", own.clip or first_clip),
            own.clip is None,
            state.get("releases", 0),
        )
        if not account.multiplier:
            account.multiplier = planned(own.epsilon, own.delta, settings.rounds, values)
        if account.adapts:
            account.clip = account.within(account.clip)
        account.release(values, settings.taking_part, masked=own.secure_aggregation)
        return account

    def release(self, values: int, clients: int, *, masked: bool) -> Release:
        """Return how the next sum is made private.

        Raises
        ------
        UserError
            If it cannot be.
        """
        return Release(self.clip, self.multiplier, values, clients, self.adapts, masked)

    def within(self, clip: float) -> float:
        """Return a clip, or what is nearest to it of those that adapting ones may be."""
        return min(max(clip, LEAST_CLIP), MOST_CLIP, most_clip(self.multiplier))

    @property
    def spent(self) -> float:
        """Epsilon of the sums that were released."""
        return epsilon_of(self.multiplier, self.releases, self.delta)

    def pays(self) -> bool:
        """Tell whether one sum more may be released."""
        after = epsilon_of(self.multiplier, self.releases + 1, self.delta)
        return after <= self.epsilon * (1 + _ROUNDING)

    def adapt(self, within: float) -> None:
        """Bring the clip nearer to the norm of half of the updates.

        Parameters
        ----------
        within : float
            About the share of the updates that were not longer than it.
        """
        if self.adapts:
            share = min(max(within, 0.0), 1.0)
            self.clip = self.within(self.clip * exp(-PACE * (share - QUANTILE)))

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "spent": self.spent,
            "noise_multiplier": self.multiplier,
            "clip": self.clip,
            "releases": self.releases,
        }


def planned(epsilon: float, delta: float, rounds: int, values: int) -> float:
    """Return the smallest noise multiplier with which so many rounds stay within a budget.

    Raises
    ------
    UserError
        If no noise that can be drawn is enough.
    """
    most = most_multiplier(values)
    least_epsilon = epsilon_of(most, rounds, delta)
    if least_epsilon > epsilon:
        raise UserError(
            f"privacy.epsilon = {epsilon:g} cannot be met in {rounds} rounds with privacy.delta = "
            f"{delta:g}: {_rounded_up(least_epsilon):g} is the least; run fewer rounds"
        )
    return least_multiplier(epsilon, delta, rounds)


def least_multiplier(epsilon: float, delta: float, releases: int) -> float:
    """Return the smallest noise multiplier with which so many releases stay within epsilon."""
    from dp_accounting import dp_event
    from dp_accounting.mechanism_calibration import LowerEndpointAndGuess, calibrate_dp_mechanism

    found = calibrate_dp_mechanism(
        _accountant,
        lambda multiplier: dp_event.SelfComposedDpEvent(
            dp_event.GaussianDpEvent(multiplier), releases
        ),
        epsilon,
        delta,
        LowerEndpointAndGuess(0, 1.0),
    )
    return float(found)


@lru_cache(maxsize=1024)
def epsilon_of(multiplier: float, releases: int, delta: float) -> float:
    """Return the epsilon of so many releases with this noise multiplier."""
    if not releases:
        return 0.0
    accountant = _accountant()
    from dp_accounting import dp_event

    accountant.compose(dp_event.GaussianDpEvent(multiplier), releases)
    return float(accountant.get_epsilon(delta))


def _accountant() -> "RdpAccountant":
    try:
        from dp_accounting import NeighboringRelation
        from dp_accounting.rdp import RdpAccountant
    except ImportError:
        raise UserError(
            "privacy.epsilon needs the package dp-accounting, which is not here: "
            "pip install 'fedaq[server,dp]'"
        ) from None
    # One client's updates are there, or zeros in their place.
    return RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)


def _rounded_up(value: float) -> float:
    return float(f"{value * 1.005:.3g}")
