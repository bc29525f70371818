"""One grid for the updates of all clients of a round, so that their codes can be summed.

Steps are powers of two: then the server's fixed-point sum of what codes stand for is exact, and the
same as that of the codes. Weights are small integers: each bit of them is a bit of every sum.
Beside the codes a round needs a few sums more, the figures: of the losses, and of how wide the
updates were, by which the next grid is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot, ldexp, log2

import numpy as np

from fedaq.codec import payload
from fedaq.codec.payload import ZERO, TensorCode
from fedaq.codec.quantizer import MAX_BITS, Floats, Range, Spread

# The largest weight of a client, and by how much one may be off where less would do.
MOST_WEIGHT, WEIGHT_ERROR = 15, 0.05
# Steps below this are no multiple of the unit of the sum.
LEAST_STEP = 2.0**-20
# Figures are multiples of this, up to that magnitude.
FIGURE_UNIT, LARGEST_FIGURE = 2.0**-24, 2.0**16


def small_weights(weights: Mapping[str, int]) -> dict[str, int]:
    """Return weights in nearly the same proportion: the smallest by which none is far off.

    None is above `MOST_WEIGHT`, whatever that does to the smallest shares.
    """
    most = max(weights.values(), default=1)
    for largest in range(1, MOST_WEIGHT + 1):
        small = {name: max(1, round(weight * largest / most)) for name, weight in weights.items()}
        off = max(
            (abs(small[name] * most / (largest * weight) - 1) for name, weight in weights.items()),
            default=0.0,
        )
        if off <= WEIGHT_ERROR:
            break
    return small


def grid_code(step: float, reach: float, most_bits: int = MAX_BITS) -> TensorCode:
    """Return the code of a tensor with about this step that reaches so far, with even ends.

    Its step is a power of two, and the range -reach to reach comes to whole steps of it. One that
    would need more than `most_bits` has a coarser step.
    """
    step = ldexp(1.0, round(log2(max(step, LEAST_STEP))))
    while ceil(reach / step) >= 2 ** (most_bits - 1):
        step *= 2
    return reached_code(step, max(1, ceil(reach / step)) * step)


def reached_code(step: float, reach: float) -> TensorCode:
    """Return the code that a step and a reach stand for on the wire; a step of 0 for none."""
    return payload.step_code(Range(-reach, reach), step) if step else ZERO


def reach_of(code: TensorCode) -> float:
    """Return the reach of a code of the grid."""
    return code.zero * code.step


def largest_code(code: TensorCode) -> int:
    """Return the largest code of a value within the reach of a code of the grid."""
    return 2 * code.zero


def sum_bits(largest: int, total_weight: int, noise: int = 0) -> int:
    """Return the bits of the sum of weighted codes up to this and of noise so wide.

    None exceeds it.
    """
    return (largest * total_weight + noise).bit_length()


def cut(values: Floats, reaches: Sequence[float], slices: Sequence[slice]) -> None:
    """Cut, in place, what lies beyond the reach of each tensor; one without is not sent."""
    for reach, part in zip(reaches, slices, strict=True):
        if reach:
            np.clip(values[part], -np.float32(reach), np.float32(reach), out=values[part])


def figures_of(spreads: Sequence[Spread], loss: float) -> tuple[int, ...]:
    """Return the figures of one client: its training loss, and the width of each tensor.

    A width is the root of the mean square of the update's values.
    """
    # As they are on the wire, where updates are not masked.
    widths = (hypot(np.float32(each.mean), np.float32(each.deviation)) for each in spreads)
    return tuple(map(_figure, (loss, *widths)))


@dataclass(frozen=True)
class Figures:
    """The weighted means of the figures of a round.

    Attributes
    ----------
    train_loss : float
    widths : tuple of float
        Per tensor.
    """

    train_loss: float
    widths: tuple[float, ...]


def mean_figures(sums: Sequence[int], weight: int) -> Figures:
    """Return the means, from the sums of weighted figures."""
    loss, *widths = (total * FIGURE_UNIT / weight for total in sums)
    return Figures(loss, tuple(widths))


def _figure(value: float) -> int:
    return round(min(max(value, -LARGEST_FIGURE), LARGEST_FIGURE) / FIGURE_UNIT)
