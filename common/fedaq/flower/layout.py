"""What becomes of the arrays of a Flower app, as far as names and dtypes tell.

Floating-point values are coded, as float32. Running means and variances of normalization layers
are coded in units of their own. All else (integers, counters of batches) is sent as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.model import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_TENSORS,
    ModelSpec,
    TensorSpec,
    arranged,
)
from fedaq.codec.quantizer import Floats
from fedaq.v1 import flower_pb2 as pb

Arrays = Mapping[str, NDArray[np.generic]]

# The last parts of the names that PyTorch's normalization layers give their buffers. Averaging
# turns a counter into a floating-point number; it is no weight all the same.
MEAN, VARIANCE, COUNTER = "running_mean", "running_var", "num_batches_tracked"
# Of dtypes: booleans, integers, floating-point and complex numbers.
_KINDS = "biufc"
_LONGEST_DTYPE = 16


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of arrays, in the app's order.

    Attributes
    ----------
    names : tuple of str
    shapes : tuple of tuple of int
    dtypes : tuple of str
        NumPy's names of them.
    exact : tuple of bool
        Whether an array is sent as it is.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    exact: tuple[bool, ...]

    @cached_property
    def spec(self) -> ModelSpec:
        """The model that the coded arrays are."""
        coded = [
            TensorSpec(name, shape)
            for name, shape, exact in zip(self.names, self.shapes, self.exact, strict=True)
            if not exact
        ]
        fine = {t.name: t for t in coded if _last(t.name) in (MEAN, VARIANCE)}
        layers = [
            (name, variance)
            for name, mean in fine.items()
            if _last(name) == MEAN
            for variance in [name.removesuffix(MEAN) + VARIANCE]
            if variance in fine and fine[variance].shape == mean.shape
        ]
        return ModelSpec(arranged([t for t in coded if t.name not in fine], fine, layers))

    @cached_property
    def exact_bytes(self) -> int:
        """Bytes of the arrays that are sent as they are."""
        return sum(
            prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype, exact in zip(self.shapes, self.dtypes, self.exact, strict=True)
            if exact
        )

    def fits(self, arrays: Arrays) -> bool:
        """Tell whether arrays have these names, in any order, and shapes."""
        shapes = dict(zip(self.names, self.shapes, strict=True))
        return {name: values.shape for name, values in arrays.items()} == shapes

    def having(self, dtypes: Sequence[str]) -> "Layout":
        """Return the layout of arrays that are of other dtypes.

        Raises
        ------
        ValueError
            If those cannot be.
        """
        return checked(replace(self, dtypes=tuple(dtypes)))

    def dtypes_of(self, arrays: Arrays) -> tuple[str, ...]:
        """Return the dtypes of arrays that fit."""
        return tuple(arrays[name].dtype.name for name in self.names)

    def flat(self, arrays: Arrays) -> Floats:
        """Return the coded values of arrays that fit, float32, shape (parameters,)."""
        out = np.empty(self.spec.parameters, np.float32)
        for tensor, part in self.spec.named:
            out[part] = arrays[tensor.name].ravel()
        return out

    def as_they_are(self, arrays: Arrays) -> bytes:
        """Return the bytes of the arrays that are sent as they are."""
        return b"".join(
            np.ascontiguousarray(arrays[name]).astype(_little(arrays[name].dtype)).tobytes()
            for name, exact in zip(self.names, self.exact, strict=True)
            if exact
        )

    def arrays(self, flat: Floats, exact: bytes) -> dict[str, NDArray[np.generic]]:
        """Return arrays from their coded values and the bytes of all others."""
        places = {tensor.name: part for tensor, part in self.spec.named}
        out: dict[str, NDArray[np.generic]] = {}
        at = 0
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            kind = np.dtype(dtype)
            if name in places:
                out[name] = flat[places[name]].reshape(shape).astype(kind)
                continue
            values = np.frombuffer(exact, _little(kind), prod(shape), at)
            out[name] = values.reshape(shape).astype(kind)
            at += values.nbytes
        return out


def layout_of(arrays: Arrays) -> Layout:
    """Return the layout of a model's arrays.

    Raises
    ------
    ValueError
        If one of them holds no numbers.
    """
    exact = (a.dtype.kind != "f" or _last(name) == COUNTER for name, a in arrays.items())
    return checked(
        Layout(
            tuple(arrays),
            tuple(a.shape for a in arrays.values()),
            tuple(a.dtype.name for a in arrays.values()),
            tuple(exact),
        )
    )


def to_message(layout: Layout) -> pb.FlowerLayout:
    """Return the layout as it travels."""
    rows = zip(layout.names, layout.shapes, layout.dtypes, layout.exact, strict=True)
    return pb.FlowerLayout(
        arrays=[
            pb.FlowerArray(name=name, shape=shape, dtype=dtype, exact=exact)
            for name, shape, dtype, exact in rows
        ]
    )


def from_message(message: pb.FlowerLayout) -> Layout:
    """Read a layout that came from the server.

    Raises
    ------
    ValueError
        If it cannot be.
    """
    arrays = message.arrays
    return checked(
        Layout(
            tuple(array.name for array in arrays),
            tuple(tuple(array.shape) for array in arrays),
            tuple(array.dtype for array in arrays),
            tuple(array.exact for array in arrays),
        )
    )


def checked(layout: Layout) -> Layout:
    """Return the layout if it can be.

    Raises
    ------
    ValueError
        If it has too many arrays or values, two of one name, or a dtype without numbers.
    """
    if len(layout.names) > MAX_TENSORS or len(layout.dtypes) != len(layout.names):
        raise ValueError(f"{len(layout.dtypes)} dtypes for {len(layout.names)} arrays")
    if len(set(layout.names)) < len(layout.names):
        raise ValueError("two arrays have one name")
    rows = zip(layout.names, layout.shapes, layout.dtypes, layout.exact, strict=True)
    for name, shape, dtype, exact in rows:
        if len(shape) > MAX_DIMENSIONS or prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"array {name!r} has too many dimensions or values")
        if not _has_numbers(dtype, exact=exact):
            raise ValueError(f"array {name!r} is of dtype {dtype!r}, which cannot be sent")
    return layout


def _has_numbers(dtype: str, *, exact: bool) -> bool:
    if len(dtype) > _LONGEST_DTYPE:
        return False
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        return False
    return kind in _KINDS if exact else kind == "f"


def _little(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    return dtype.newbyteorder("<")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
