"""A model as the federation sees it: named float32 tensors in one flat array."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise, zip_longest
from math import prod

import numpy as np
import torch
from torch import nn

from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError
from fedaq.v1 import federation_pb2 as pb

MAX_TENSORS = 100_000
MAX_ELEMENTS = 2**32 - 1
# More than any model has; without a limit, a peer's shape could take minutes to multiply.
MAX_DIMENSIONS = 64
DIGEST_BYTES = 8


@dataclass(frozen=True)
class TensorSpec:
    """Name and shape of one float32 tensor."""

    name: str
    shape: tuple[int, ...]

    @cached_property
    def elements(self) -> int:
        """``d_l``, the number of values."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(map(str, self.shape)) or 'scalar'}"


@dataclass(frozen=True)
class ModelSpec:
    """The signature of a model.

    Attributes
    ----------
    tensors : tuple of TensorSpec
        Name and shape of each, in the order in which they travel.
    """

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Number of values of each tensor."""
        return tuple(tensor.elements for tensor in self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Number of values of the whole model."""
        return sum(self.elements)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each tensor lies in the flat array."""
        ends = np.cumsum((0, *self.elements)).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    def split(self, flat: Floats) -> Iterator[Floats]:
        """Yield a flat view of each tensor."""
        return (flat[part] for part in self.slices)

    def mean_bits(self, bits: tuple[int, ...]) -> float:
        """Return the mean bits per value when tensor ``l`` is sent with ``bits[l]``."""
        total = sum(b * d for b, d in zip(bits, self.elements, strict=True))
        return total / self.parameters

    def difference(self, other: "ModelSpec") -> str | None:
        """Say in one clause where `other` differs from this model, or return None."""
        for number, (mine, theirs) in enumerate(zip_longest(self.tensors, other.tensors), 1):
            if mine != theirs:
                return (
                    f"tensor {number} is {mine or 'missing'} here and {theirs or 'missing'} there"
                )
        return None


def spec_of(module: nn.Module) -> ModelSpec:
    """Return the signature of a torch module: its floating-point state, in order.

    A tensor that stands under several names (tied weights) travels once, under the first.

    Raises
    ------
    UserError
        If the module has a floating-point tensor that is not float32, or none at all.
    """
    tensors = []
    seen: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if not value.is_floating_point() or id(value) in seen:
            continue
        seen.add(id(value))
        if value.dtype != torch.float32:
            raise UserError(f"model: tensor {name} is {value.dtype}; every tensor must be float32")
        if value.numel() > MAX_ELEMENTS:
            raise UserError(f"model: tensor {name} has more than {MAX_ELEMENTS} values")
        tensors.append(TensorSpec(name, tuple(value.shape)))
    if not tensors:
        raise UserError("model: it has no float32 tensor to train")
    return ModelSpec(tuple(tensors))


def bind(module: nn.Module, spec: ModelSpec, flat: Floats | None = None) -> Floats:
    """Move the module's floating-point state into one flat array and return it.

    From then on the module and the array share memory: writing one changes the other. The
    array may be given.
    """
    if flat is None:
        flat = np.empty(spec.parameters, np.float32)
    state = module.state_dict(keep_vars=True)
    for tensor, view in zip(spec.tensors, spec.split(flat), strict=True):
        value = state[tensor.name]
        view[:] = value.detach().numpy().ravel()
        value.data = torch.from_numpy(view).view(tensor.shape)
    return flat


def digest(flat: Floats) -> bytes:
    """Return 8 bytes that tell models apart: BLAKE2b of the little-endian float32 values."""
    return blake2b(flat.astype("<f4", copy=False).data, digest_size=DIGEST_BYTES).digest()


def to_message(spec: ModelSpec) -> pb.ModelSignature:
    """Return the signature as it travels."""
    return pb.ModelSignature(
        tensors=[
            pb.TensorSpec(name=t.name, shape=t.shape, dtype=pb.DATA_TYPE_FLOAT32)
            for t in spec.tensors
        ]
    )


def from_message(message: pb.ModelSignature) -> ModelSpec:
    """Read a signature that came from a peer or a file.

    Raises
    ------
    ValueError
        If it has too many tensors, dimensions or values, or a dtype other than float32.
    """
    if len(message.tensors) > MAX_TENSORS:
        raise ValueError(f"the model signature lists more than {MAX_TENSORS} tensors")
    tensors = []
    for tensor in message.tensors:
        if tensor.dtype != pb.DATA_TYPE_FLOAT32:
            raise ValueError(f"tensor {tensor.name!r} is not float32")
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise ValueError(f"tensor {tensor.name!r} has more than {MAX_DIMENSIONS} dimensions")
        if prod(tensor.shape) > MAX_ELEMENTS:
            raise ValueError(f"tensor {tensor.name!r} has more than {MAX_ELEMENTS} values")
        tensors.append(TensorSpec(tensor.name, tuple(tensor.shape)))
    return ModelSpec(tuple(tensors))
