"""Tensors of numpy and torch as an archive takes them: flat arrays of real numbers, of any type.

A complex value is two numbers, its real part first. Types that numpy lacks lie here as the integers
that have their bits. torch is imported only for a tensor of torch.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.model import MAX_DIMENSIONS, MAX_ELEMENTS
from fedaq.codec.quantizer import Floats
from fedaq.errors import CodecError

if TYPE_CHECKING:
    from torch import Tensor

    Value: TypeAlias = NDArray[Any] | Tensor
    Values: TypeAlias = Value | Mapping[str, Value]

BFLOAT16 = "bfloat16"
# As numpy and torch name them, and as their numbers lie in memory.
_REAL = ("float16", "float32", "float64")
_COMPLEX = {"complex64": "float32", "complex128": "float64"}
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_OF_TORCH = {BFLOAT16: "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
STORED: dict[str, np.dtype[Any]] = {
    name: np.dtype(stored).newbyteorder("<")
    for name, stored in (
        *((name, name) for name in (*_REAL, *_INTEGERS)),
        *(_COMPLEX | _OF_TORCH | {"bool": "uint8"}).items(),
    )
}
# Whose values can be quantized; the others always travel exactly.
FLOATS = frozenset((*_REAL, *_COMPLEX, BFLOAT16))


@dataclass(frozen=True)
class Layout:
    """What is known of a tensor without its values.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : str
        As numpy and torch name it: one of `STORED`.
    torch : bool
        Whether it is a tensor of torch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    torch: bool

    def __post_init__(self) -> None:
        if self.dtype not in STORED or (self.dtype in _OF_TORCH and not self.torch):
            raise CodecError(f"{self}: its type {self.dtype[:32]!r} is none of {', '.join(STORED)}")
        # A dimension of 0 does not excuse the others, which numpy multiplies, too.
        if len(self.shape) > MAX_DIMENSIONS or prod(n or 1 for n in self.shape) > MAX_ELEMENTS:
            raise CodecError(
                f"{self} has more than {MAX_DIMENSIONS} dimensions or {MAX_ELEMENTS} values"
            )

    def __str__(self) -> str:
        return _said(self.name)

    @cached_property
    def numbers(self) -> int:
        """How many real numbers it has."""
        return prod(self.shape) * (2 if self.dtype in _COMPLEX else 1)

    @property
    def number_bytes(self) -> int:
        """Bytes of one number."""
        return int(STORED[self.dtype].itemsize)

    @property
    def bytes(self) -> int:
        """Bytes of the tensor in memory."""
        return self.numbers * self.number_bytes


@dataclass(frozen=True)
class Array:
    """A tensor: its layout, and its numbers in row-major order, of shape (numbers,)."""

    layout: Layout
    data: NDArray[Any]

    def floats(self, part: slice) -> Floats:
        """Return numbers as float32; rounded to it, or infinite, where they are wider."""
        found = self.data[part]
        if self.layout.dtype == BFLOAT16:
            return (found.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):
            return found.astype(np.float32, copy=False)

    def put(self, part: slice, floats: Floats) -> None:
        """Write float32 numbers, rounded to the type; for those beyond it, its last number."""
        if self.layout.dtype == BFLOAT16:
            bits = floats.view(np.uint32)
            # To the nearest, and of two the even one.
            half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            self.data[part] = (bits + half) >> np.uint32(16)
        elif self.layout.dtype == "float16":
            limit = np.finfo(np.float16).max
            self.data[part] = np.clip(floats, -limit, limit)
        else:
            self.data[part] = floats

    def byte(self, place: int) -> NDArray[np.uint8]:
        """Return a view of one byte of every number, the lowest first: shape (numbers,)."""
        size = self.layout.number_bytes
        return self.data.view(np.uint8).reshape(-1, size)[:, place]

    def value(self) -> "Value":
        """Return the tensor.

        Raises
        ------
        CodecError
            If it is of truth values and a byte of it is none.
        """
        layout = self.layout
        if layout.dtype == "bool" and self.data.max(initial=0) > 1:
            raise CodecError(f"{layout}: a byte of it is neither true nor false")
        if not layout.torch:
            return self.data.view(np.dtype(layout.dtype)).reshape(layout.shape)
        import torch

        dtype = getattr(torch, layout.dtype)
        if not layout.numbers:
            return torch.empty(layout.shape, dtype=dtype)
        return torch.from_numpy(self.data.view(np.uint8)).view(dtype).reshape(layout.shape)


def empty(layout: Layout) -> Array:
    """Return a tensor of zeros, which takes no memory before it is written to."""
    return Array(layout, np.zeros(layout.numbers, STORED[layout.dtype]))


def taken(values: "Values") -> tuple[tuple[Array, ...], bool]:
    """Return tensors as arrays, and whether it is one without a name.

    Nothing is copied but what is not contiguous, or on another device.

    Raises
    ------
    CodecError
        If something is no tensor of a type that an archive has, or has no name that is text.
    """
    if not isinstance(values, Mapping):
        return (_array("", values),), True
    return tuple(_array(_checked_name(name), value) for name, value in values.items()), False


def _said(name: str) -> str:
    # Whoever sent it may have chosen it to be long, or to steer a terminal.
    return f"tensor {name[:64]!r}" if name else "the tensor"


def _checked_name(name: object) -> str:
    try:
        if isinstance(name, str) and name.encode():
            return name
    except UnicodeEncodeError:
        pass
    raise CodecError(f"{name!r} is no name of a tensor, which is a str of UTF-8 that is not empty")


def _array(name: str, value: object) -> Array:
    # Where torch was never imported, nothing can be a tensor of it.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_torch(name, value)
    if not isinstance(value, np.ndarray | np.generic):
        raise CodecError(
            f"{_said(name)} is of type {type(value).__name__}, neither an array of numpy nor a "
            "tensor of torch"
        )
    array = np.asarray(value)
    layout = Layout(name, array.shape, array.dtype.name, torch=False)
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return Array(layout, little.reshape(-1).view(STORED[layout.dtype]))


def _of_torch(name: str, tensor: "Tensor") -> Array:
    import torch

    layout = Layout(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), torch=True)
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CodecError(f"{layout} is sparse, quantized or without values; make it dense first")
    if not layout.numbers:
        return empty(layout)
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return Array(layout, plain.reshape(-1).view(torch.uint8).numpy().view(STORED[layout.dtype]))
