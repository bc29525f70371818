"""How clients behave over a run, and what follows from it (docs/explanation/hostile-clients.md).

What is remembered is plain data, so that a run that is resumed can go on with it.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from statistics import median, median_low
from typing import Any

from fedaq.settings import LimitsSettings

log = logging.getLogger(__name__)

# Rounds whose median norms are remembered, and updates that make a median.
RECENT_ROUNDS, FEWEST_NORMS = 5, 3


@dataclass(frozen=True)
class ShutOut:
    """A client that may take no further part in the run, since which round, and why."""

    name: str
    round: int
    reason: str


@dataclass
class Conduct:
    """What the server remembers of its clients' conduct.

    Attributes
    ----------
    limits : LimitsSettings
    strikes : dict of str to int
        Refusals of a client's own fault, by its name. Nothing takes them back, or a client
        could behave well in between.
    shut_out : dict of str to ShutOut
    medians : list of float
        The median L2 norms of the updates of the last rounds.
    magnitudes : list of float
        The median sums of magnitudes of the updates of the last rounds, as clients reported them.
    capped : set of str
        Clients that were told of for holding more than the limit of weights allows.
    apart : float
        Mean square of how far clients' statistics were from their mean, smoothed, in the units in
        which they come up; infinite while nobody knows.
    """

    limits: LimitsSettings
    strikes: dict[str, int] = field(default_factory=dict)
    shut_out: dict[str, ShutOut] = field(default_factory=dict)
    medians: list[float] = field(default_factory=list)
    magnitudes: list[float] = field(default_factory=list)
    capped: set[str] = field(default_factory=set)
    apart: float = inf

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON has it."""
        return {
            "strikes": self.strikes,
            "shut_out": [asdict(entry) for entry in list(self.shut_out.values())],
            "medians": self.medians,
            "magnitudes": self.magnitudes,
            "apart": None if self.apart == inf else self.apart,
        }

    @classmethod
    def restored(cls, limits: LimitsSettings, state: Mapping[str, Any]) -> "Conduct":
        """Return what `state` was taken from."""
        shut_out = {entry["name"]: ShutOut(**entry) for entry in state["shut_out"]}
        # Ledgers of earlier versions have no magnitudes, and know nothing of statistics.
        magnitudes, apart = list(state.get("magnitudes", [])), state.get("apart")
        return cls(
            limits,
            dict(state["strikes"]),
            shut_out,
            list(state["medians"]),
            magnitudes,
            apart=inf if apart is None else apart,
        )

    def weights(self, examples: Mapping[str, int]) -> dict[str, int]:
        """Return the weights of updates in a mean: what clients say they hold, up to a limit."""
        # The lower median, so that of two clients neither can lift the limit.
        most = int(self.limits.examples_factor * median_low(examples.values()))
        for name in sorted(examples.keys() - self.capped):
            if examples[name] > most:
                self.capped.add(name)
                log.warning(
                    "%s holds %d examples and counts as %d (limits.examples_factor)",
                    name, examples[name], most,
                )  # fmt: skip
        return {name: min(count, most) for name, count in examples.items()}

    def norm_limit(self) -> float:
        """Return the largest norm that an update of the coming round may have.

        It follows from earlier rounds alone, so it is the same whatever the order in which
        updates arrive.
        """
        largest = max(self.medians, default=0.0)
        return self.limits.norm_factor * largest or inf

    def magnitude_limit(self) -> float:
        """Return the largest sum of magnitudes that an update of the coming round may have.

        Clients report theirs, and a minority that lies moves no median.
        """
        return self.limits.norm_factor * max(self.magnitudes, default=0.0)

    def learn_magnitudes(self, magnitudes: Collection[float]) -> None:
        """Remember the magnitudes that were reported in a round."""
        if len(magnitudes) >= FEWEST_NORMS:
            self.magnitudes = [*self.magnitudes, median(magnitudes)][-RECENT_ROUNDS:]

    def learn_norms(self, norms: Collection[float]) -> None:
        """Remember the norms of all whole updates of a round, also of those refused for them.

        Without those, updates that have grown would be refused for ever.
        """
        if len(norms) >= FEWEST_NORMS:
            self.medians = [*self.medians, median(norms)][-RECENT_ROUNDS:]

    def learn_apart(self, square: float) -> None:
        """Remember how far clients' statistics were from their mean in a round."""
        self.apart = square if self.apart == inf else (self.apart + square) / 2

    def strike(self, name: str, round_number: int, reason: str) -> ShutOut | None:
        """Count a refusal; return why the client is shut out, if this was one too many."""
        self.strikes[name] = self.strikes.get(name, 0) + 1
        if self.strikes[name] < self.limits.strikes or name in self.shut_out:
            return None
        sentence = (
            f"shut out of this run after {self.strikes[name]} refusals; "
            f"the last, in round {round_number}: {reason}"
        )
        self.shut_out[name] = ShutOut(name, round_number, sentence)
        return self.shut_out[name]
