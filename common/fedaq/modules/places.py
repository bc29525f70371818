"""Where in memory the tensors of a module lie: which are tied, and which overlap."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class Place:
    """Where in memory a tensor lies; sizes are in bytes."""

    address: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        steps = (stride * (n - 1) for n, stride in zip(self.shape, self.strides, strict=True))
        return self.address + sum(steps) + self.dtype.itemsize

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What lets numpy compare places; nobody reads what is there."""
        return {
            "version": 3,
            "data": (self.address, True),
            "typestr": f"|V{self.dtype.itemsize}",
            "shape": self.shape,
            "strides": self.strides,
        }


def place(value: Tensor) -> Place | None:
    """Return where a tensor lies, None if it has no bytes of its own there."""
    if value.layout != torch.strided or value.is_nested or is_lazy(value) or not value.numel():
        return None
    try:
        address = value.data_ptr()
    except RuntimeError:  # a subclass that only acts as a tensor
        address = 0
    if not address:
        return None
    # Of a dimension with one index, the stride says nothing.
    strides = tuple(
        value.element_size() * stride if n > 1 else 0
        for n, stride in zip(value.shape, value.stride(), strict=True)
    )
    return Place(address, value.dtype, tuple(value.shape), strides)


def identity(value: Tensor) -> Place | int:
    """Return what tied tensors have in common."""
    return place(value) or id(value)


def own_tensors(module: nn.Module) -> dict[int, tuple[str, Tensor]]:
    """Return name and tensor of all parameters and buffers, persistent or not, by their id."""
    parameters, buffers = module.named_parameters(), module.named_buffers()
    return {id(value): (name, value) for name, value in (*parameters, *buffers)}


def may_overlap_itself(value: Tensor) -> bool:
    """Tell whether two indices may stand for one place, as after `Tensor.expand`."""
    reach = 0
    for stride, count in sorted(zip(value.stride(), value.shape, strict=True)):
        if count > 1:
            if stride <= reach:
                return True
            reach += stride * (count - 1)
    return False
