"""The unit in which statistics of a model travel: one that follows their values.

A running variance of 0.01 bears no error of 0.1, one of 100 does. So changes of statistics are
divided, value by value, by a unit that both sides know, since both hold the model that the change
is added to. In that unit they are coded, granted and averaged like weights. Units are powers of
two: to divide by one and multiply again changes no bit.

In front of batch normalization's ``(x - mean) / sqrt(variance + eps)``, an error of a mean counts
in deviations, one of a variance in variances (Ioffe and Szegedy, arXiv 1502.03167).
"""

from collections.abc import Callable

import numpy as np

from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.payload import Payload
from fedaq.codec.quantizer import Floats

# What one unit of weights is, as a share of a deviation or variance. Of what comes up, an error
# stays in the model that is tested; of what goes down, it only makes the next change larger
# (docs/research/statistics.md: what other shares do).
UPLINK, DOWNLINK = 2.0**-1, 4.0
# The usual `eps` of normalization layers: below it, a variance makes no difference.
EPSILON = 1e-5
# How far a variance may fall in one round, so that no error can make it vanish.
LEAST_SHARE = 2.0**-8
# Changes beyond this many units are cut; the unit of the next round is larger.
LARGEST_CHANGE = 2.0**15


def units(spec: ModelSpec, held: Floats, share: float) -> Floats:
    """Return the unit of every statistic, float32, shape (statistics,).

    Parameters
    ----------
    spec : ModelSpec
    held : float32, shape (statistics,)
        Their values in the model that both sides hold.
    share : float
        `UPLINK` or `DOWNLINK`.
    """
    out = np.empty_like(held)
    # A variance comes after its mean.
    for kind, part in reversed(_members(spec)):
        if kind == Kind.VARIANCE:
            out[part] = variance = _power_of_two(held[part] + np.float32(EPSILON))
        elif kind == Kind.MEAN:
            # The exponent of a root is half of that of its square.
            out[part] = np.ldexp(np.float32(1), (np.frexp(variance)[1] - 1) // 2)
        else:
            out[part] = _power_of_two(np.abs(held[part]).max(initial=0, keepdims=True))
    return np.multiply(out, np.float32(share), out=out)


def _power_of_two(values: Floats) -> Floats:
    """Return the powers of two at or below positive values, and 1 for all that have none."""
    usable = np.where(np.isfinite(values) & (values > 0), values, np.float32(1))
    # Not so small that its inverse is infinite.
    exponent = np.maximum(np.frexp(usable)[1] - 1, -60)
    return np.asarray(np.ldexp(np.float32(1), exponent), np.float32)


def in_units(change: Floats, unit: Floats) -> None:
    """Turn changes of statistics, in place, into multiples of their units."""
    np.divide(change, unit, out=change)
    np.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE, out=change)


def changed(spec: ModelSpec, before: Floats, change: Floats, unit: Floats) -> Floats:
    """Return statistics after a change that is in their units, shape (statistics,).

    No variance becomes negative, nor 0 if it was not.
    """
    after = before + change * unit
    for kind, part in _members(spec):
        if kind == Kind.VARIANCE:
            least = np.maximum(before[part], 0) * np.float32(LEAST_SHARE)
            np.maximum(after[part], least, out=after[part])
    return after


class Scaled:
    """Values of a model as they go down, at any slice of one tensor: statistics in their units.

    Parameters
    ----------
    spec : ModelSpec
    flat : float32, shape (parameters,)
    base : float32, shape (parameters,), optional
        What is taken off, so that the values are changes.
    """

    def __init__(self, spec: ModelSpec, flat: Floats, base: Floats | None = None) -> None:
        own = spec.statistics
        self._flat = flat
        self._first = own.start
        held = (flat if base is None else base)[own]
        self._before = held.copy()
        self._unit = units(spec, held, DOWNLINK)
        self._base = base

    def __getitem__(self, part: slice) -> Floats:
        """Return float32 values; of statistics, a part of those alone."""
        values = self._flat[part]
        if part.start < self._first or values.size == 0:
            return values if self._base is None else values - self._base[part]
        own = slice(part.start - self._first, part.stop - self._first, part.step)
        change = values - self._before[own] if self._base is not None else values.copy()
        in_units(change, self._unit[own])
        return change


def kept_high(
    header: Payload, values_at: Callable[[slice], Floats], held: Floats
) -> Callable[[slice], Floats]:
    """Return values that are rounded to the nearest codes so that no variance is held too small.

    Were it, so would be its unit, and the next change up that many times larger. A variance that
    is held too large only bears more noise. So one that falls between two codes takes the upper.

    Parameters
    ----------
    header : Payload
        How a difference is to be coded.
    values_at : callable
        Returns float32 values at any slice of one tensor: of statistics, changes in their units.
    held : float32, shape (statistics,)
        What clients hold.
    """
    spec, step = header.spec, header.codes[-1].step
    if not spec.has_statistics or not step:
        return values_at
    first = spec.statistics.start
    in_unit = held / units(spec, held, DOWNLINK)
    is_variance = np.zeros(held.size, np.bool_)
    for kind, part in _members(spec):
        is_variance[part] = kind == Kind.VARIANCE

    def at(part: slice) -> Floats:
        values = values_at(part)
        if part.start < first:
            return values
        own = slice(part.start - first, part.stop - first, part.step)
        falls, start = is_variance[own] & (values < 0), in_unit[own]
        upper = np.ceil(values / step) * step
        below = np.maximum(start + upper - step, np.maximum(start, 0) * LEAST_SHARE)
        rounded = np.where(start + values <= below, upper - step, upper).astype(np.float32)
        return np.where(falls, rounded, values)

    return at


def taken_out(spec: ModelSpec, held: Floats) -> Floats:
    """Take the statistics out of a model to which a difference is added, and return them.

    In their place, codes of the difference add up to a change in units.

    Parameters
    ----------
    held : float32, shape (parameters,)
    """
    before = held[spec.statistics].copy()
    held[spec.statistics] = 0
    return before


def put_back(spec: ModelSpec, held: Floats, before: Floats) -> None:
    """Write the statistics after a difference: what was `taken_out`, and what was added since."""
    part = spec.statistics
    held[part] = changed(spec, before, held[part], units(spec, before, DOWNLINK))


def normalization(spec: ModelSpec) -> list[slice]:
    """Return where the means and variances of normalization layers lie in the flat array."""
    return [part for tensor, part in spec.named if tensor.kind in (Kind.MEAN, Kind.VARIANCE)]


def _members(spec: ModelSpec) -> list[tuple[Kind, slice]]:
    """Return what each statistic is, and where its values lie among all statistics."""
    first = spec.statistics.start
    members = spec.tensors[-1].members if spec.has_statistics else ()
    named = spec.named[len(spec.named) - len(members) :]
    return [(m.kind, slice(part.start - first, part.stop - first)) for m, part in named]
