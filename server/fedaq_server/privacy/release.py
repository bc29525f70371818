"""How one sum of a round is made private: the clip, the grid, and the noise on it.

All of it follows from what is no secret: the clip, the number of clients and of values. One step
serves for all tensors, so that norms and noise are counted in it.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, ldexp, log2, sqrt

from fedaq.codec.common_grid import LEAST_STEP, largest_code, reached_code, sum_bits
from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import ZERO, TensorCode
from fedaq.codec.quantizer import LARGEST_VALUE, MAX_BITS
from fedaq.errors import UserError
from fedaq.privacy.clipping import COUNT_UNIT, rounded_norm
from fedaq.privacy.layout import WIDEST_CODES
from fedaq.privacy.noise import LEAST_SHARE, MOST_DEVIATION

# A step is no more than this share of an update's root mean square at the clip: then rounding
# lengthens an update by about 3 % at the most.
ROUNDING = 0.5
# Values beyond so many such root mean squares are cut.
REACH = 32.0
# The count of updates that are short enough takes this share of the budget (of 1 / multiplier**2).
COUNT_SHARE = 0.05
MOST_MULTIPLIER = 256.0
# Noise beyond so many deviations has a chance below 1e-21 for each value.
TAIL = 10.0
# Where shares of noise are made for the fewest who may stay but one, all together have no more
# than this many times the variance: three of three make theirs for one.
MOST_VARIANCE = 3.0


@dataclass(frozen=True)
class Release:
    """One sum that is released.

    Attributes
    ----------
    clip : float
        The largest L2 norm of an update.
    multiplier : float
        Of the noise, for all that is released of the round.
    values : int
        Of an update.
    clients : int
        Of the round.
    adapts : bool
        Whether it is counted, too, whose update was short enough.
    masked : bool
        Whether clients add the noise, each a share.

    Raises
    ------
    UserError
        If no grid is fine and wide enough for it.
    """

    clip: float
    multiplier: float
    values: int
    clients: int
    adapts: bool
    masked: bool

    def __post_init__(self) -> None:
        code = self._code
        widest = sum_bits(largest_code(code), self.clients, 2 * self.room) if self.masked else 0
        fits = (
            code.bits <= MAX_BITS
            and widest <= WIDEST_CODES
            and self.deviation <= MOST_DEVIATION
            and self.room * self.step <= LARGEST_VALUE * self.clients
            and (not self.masked or self._least_share >= LEAST_SHARE)
        )
        if not fits:
            raise UserError(
                f"privacy.epsilon: no grid has room for noise of {self.multiplier:.3g} times a "
                f"clip of {self.clip:.3g} on {self.values} values of {self.clients} clients; run "
                "fewer rounds, or take a clip nearer to 1"
            )

    @cached_property
    def step(self) -> float:
        """The quantization step: a power of two."""
        most = ROUNDING * self.clip / sqrt(self.values)
        if self.masked:
            most = min(most, self._multiplier * self.clip / sqrt(self.clients) / LEAST_SHARE)
        return ldexp(1.0, floor(log2(max(most, LEAST_STEP))))

    @cached_property
    def rounded(self) -> float:
        """The largest norm of a rounded update, in steps."""
        return rounded_norm(self.clip / self.step, self.values)

    @cached_property
    def deviation(self) -> float:
        """The noise that must be in each value of the sum, in steps."""
        return self._multiplier * self.rounded

    @cached_property
    def count_deviation(self) -> float:
        """That of the count, where each client adds or takes off `COUNT_UNIT`; 0 without one."""
        return COUNT_UNIT * self.multiplier / sqrt(COUNT_SHARE) if self.adapts else 0.0

    @cached_property
    def room(self) -> int:
        """The reach of the noise in a sum, in steps, but for a chance."""
        return ceil(TAIL * sqrt(MOST_VARIANCE) * self.deviation)

    def shares(self, fewest: int) -> tuple[float, float]:
        """Return the noise that each client adds to its values, and to the count.

        Parameters
        ----------
        fewest : int
            Clients without whose updates there is no sum. One of them may be who looks, and knows
            its own noise.
        """
        parts = sqrt(fewest - 1)
        return self.deviation / parts, self.count_deviation / parts

    def grid(self, spec: ModelSpec) -> tuple[TensorCode, ...]:
        """Return how all tensors are coded."""
        return tuple(ZERO if t.kind == Kind.SERVER else self._code for t in spec.tensors)

    def within(self, count: int, clients: int) -> float:
        """Return the share of updates that were short enough, from a noisy count."""
        return (count / COUNT_UNIT / clients + 1) / 2

    @cached_property
    def _multiplier(self) -> float:
        """Of the noise in the values alone."""
        return self.multiplier / sqrt(1 - COUNT_SHARE) if self.adapts else self.multiplier

    @cached_property
    def _code(self) -> TensorCode:
        reach = min(self.clip, REACH * self.clip / sqrt(self.values))
        return reached_code(self.step, ceil(reach / self.step) * self.step)

    @cached_property
    def _least_share(self) -> float:
        return self.deviation / sqrt(self.clients)


def private_values(spec: ModelSpec) -> int:
    """Return how many values of an update travel."""
    return sum(t.elements for t in spec.tensors if t.kind != Kind.SERVER)


def most_clip(multiplier: float) -> float:
    """Return a clip for which sums have room, however few clients there are."""
    return LARGEST_VALUE / (2 * TAIL * sqrt(MOST_VARIANCE) * multiplier)


def most_multiplier(values: int) -> float:
    """Return the largest noise multiplier for which noise can be drawn for so many values."""
    # The step is a power of two, so perhaps half of what it may be.
    finest = rounded_norm(2 * sqrt(values) / ROUNDING, values)
    return min(MOST_MULTIPLIER, sqrt(1 - COUNT_SHARE) * MOST_DEVIATION / finest)
