"""Items of the optimizer in plain numbers, and spreads of values that exist."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from fedaq.codec.quantizer import Spread
from fedaq_server.schemes.optimizer import (
    Items,
    error_table,
    join,
    make_items,
)
from fedaq_server.schemes.spreads import arrays

MAX_BITS = 16
OVERHEAD_BITS = 16 * 8 + 7


@dataclass(frozen=True)
class Tensor:
    """One item in plain numbers, from which noise and joules follow without the optimizer."""

    width: float
    elements: int
    coefficient: float
    j_per_bit: float

    def noise(self, bits: int) -> float:
        return float(self.coefficient * self.elements * (self.width / (2**bits - 1)) ** 2 / 4)

    def energy_j(self, bits: int) -> Fraction:
        return Fraction(self.j_per_bit) * (OVERHEAD_BITS + self.elements * bits)

    def gain(self, bits: int) -> float:
        """What the bit after `bits` removes."""
        return self.noise(bits) - self.noise(bits + 1)


def one_sender(
    spreads: list[Spread], elements: list[int], *, coefficient: float, j_per_bit: float, clip: bool
) -> Items:
    errors = error_table(arrays(spreads), clip=clip)[None]
    return make_items(
        errors, elements, coefficients=np.array([coefficient]), j_per_bit=np.array([j_per_bit])
    )


def items_of(tensors: list[Tensor]) -> Items:
    return join(
        [
            one_sender(
                [Spread(-0.25 * t.width, 0.75 * t.width, 0.0, t.width / 4)],
                [t.elements],
                coefficient=t.coefficient,
                j_per_bit=t.j_per_bit,
                clip=False,
            )
            for t in tensors
        ]
    )


def noise(tensors: list[Tensor], bits: tuple[int, ...]) -> float:
    return sum(t.noise(b) for t, b in zip(tensors, bits, strict=True))


def energy_j(tensors: list[Tensor], bits: tuple[int, ...]) -> float:
    return float(sum(t.energy_j(b) for t, b in zip(tensors, bits, strict=True)))


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    """The spread of values that exist, so that mean and deviation fit the range."""
    values = draw(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30))
    return Spread(min(values), max(values), float(np.mean(values)), float(np.std(values)))
