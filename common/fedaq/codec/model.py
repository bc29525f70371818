"""A model as the federation sees it: named float32 tensors in one flat array."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise, zip_longest
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError
from fedaq.v1 import federation_pb2 as pb

MAX_TENSORS = 100_000
MAX_ELEMENTS = 2**32 - 1
# More than any model has; without a limit, a peer's shape could take minutes to multiply.
MAX_DIMENSIONS = 64
MAX_CLASSES = 100_000
# Of the names of all classes together, in UTF-8.
MAX_CLASS_BYTES = 2**20
DIGEST_BYTES = 8
# Names of classes in a sentence: so many, each cut to so many characters.
_NAMED, _LONGEST_NAMED = 5, 32


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
    <<<<<<< HEAD
            Name and shape of each, in the order in which they travel.
    =======
            In the order in which they travel.
        classes : tuple of str
            What its outputs stand for, in their order; empty where the task does not say.
    >>>>>>> 98d1de529fa5ed9f551788da341a2c1a9b8e87ec
    """

    tensors: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()

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
        if self.classes != other.classes:
            return class_difference(self.classes, other.classes)
        for number, (mine, theirs) in enumerate(zip_longest(self.tensors, other.tensors), 1):
            if mine != theirs:
                return (
                    f"tensor {number} is {mine or 'missing'} here and {theirs or 'missing'} there"
                )
        return None


def class_difference(here: Sequence[str], there: Sequence[str]) -> str:
    """Say in one clause how two lists of classes that are not equal differ."""
    lost = {"there": set(here) - set(there), "here": set(there) - set(here)}
    said = [
        f"class{'es' if len(names) > 1 else ''} missing {where}: {_named(sorted(names))}"
        for where, names in lost.items()
        if names
    ]
    if not there:
        said.append("none is stated there, as by an earlier version of fedaq or of the task")
    if not said:
        pairs = enumerate(zip_longest(here, there), 1)
        number, (mine, theirs) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
        said.append(
            f"class {number} is {_named([mine or 'missing'])} here and "
            f"{_named([theirs or 'missing'])} there"
        )
    return "; ".join(said)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name[:_LONGEST_NAMED] for name in names[:_NAMED]) + more


def spec_of(module: nn.Module, classes: Sequence[str] = ()) -> ModelSpec:
    """Return the signature of a torch module: its floating-point state, in order.

    Tensors that are one and the same view of their memory (tied weights) travel once, under the
    first name.

    Parameters
    ----------
    module : nn.Module
    classes : sequence of str
        As the task states them.

    Raises
    ------
    UserError
        If there is something in it that cannot travel, or nothing that can. `bind` may be
        called with every module that is not refused.
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"model: model() must return a torch.nn.Module, and returned {type(module).__name__}"
        )
    own = _own_tensors(module)
    tensors: dict[_Place | int, TensorSpec] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        _check_kept(name, value)
        if value.is_floating_point():
            _check_sent(name, value, own)
            tensors.setdefault(_identity(value), TensorSpec(name, tuple(value.shape)))
    spec = ModelSpec(tuple(tensors.values()), _checked_classes(classes))
    if not spec.parameters:
        raise UserError(
            "model: it has no float32 value to train; let model() return a module with parameters"
        )
    if len(tensors) > MAX_TENSORS:
        raise UserError(f"model: it has more than {MAX_TENSORS} tensors")
    _check_apart(own, {place for place in tensors if isinstance(place, _Place)})
    return spec


def bind(module: nn.Module, spec: ModelSpec, flat: Floats | None = None) -> Floats:
    """Move the module's floating-point state into one flat array and return it.

    From then on the module and the array share memory: writing one changes the other. What was
    tied stays tied. The array may be given.
    """
    if flat is None:
        flat = np.empty(spec.parameters, np.float32)
    state = module.state_dict(keep_vars=True)
    tied: dict[_Place | int, list[Tensor]] = {}
    for _, value in _own_tensors(module).values():
        tied.setdefault(_identity(value), []).append(value)
    for tensor, view in zip(spec.tensors, spec.split(flat), strict=True):
        value = state[tensor.name]
        shared = torch.from_numpy(view).view(tensor.shape)
        shared.copy_(value.detach())
        for same in tied[_identity(value)]:
            same.data = shared
    return flat


# ---- What can travel -------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where in memory a tensor lies; sizes are in bytes."""

    address: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def end(self) -> int:
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


def _place(value: Tensor) -> _Place | None:
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
    return _Place(address, value.dtype, tuple(value.shape), strides)


def _identity(value: Tensor) -> _Place | int:
    """Return what tied tensors have in common."""
    return _place(value) or id(value)


def _own_tensors(module: nn.Module) -> dict[int, tuple[str, Tensor]]:
    """Return name and tensor of all parameters and buffers, persistent or not, by their id."""
    parameters, buffers = module.named_parameters(), module.named_buffers()
    return {id(value): (name, value) for name, value in (*parameters, *buffers)}


def _check_kept(name: str, value: object) -> None:
    """Refuse what can be in no model, whether it is sent or not."""
    if not isinstance(value, Tensor):
        raise UserError(
            f"model: {name} of its state is a {type(value).__name__} and no tensor "
            "(get_extra_state, packed weights), so it cannot be sent; a float32 buffer can"
        )
    if is_lazy(value):
        raise UserError(
            f"model: tensor {name} has no shape yet; give the lazy layer its sizes, or let "
            "model() run the module on an example first"
        )
    if value.device.type != "cpu":
        raise UserError(
            f"model: tensor {name} is on device {value.device}, not in the processor's memory; "
            "build the model there, and let train move it and back"
        )
    if value.is_complex() and value.requires_grad:
        raise UserError(
            f"model: tensor {name} is {value.dtype} and trained; every such tensor must be "
            "float32; torch.view_as_real makes two of it"
        )


def _check_sent(name: str, value: Tensor, own: Mapping[int, object]) -> None:
    """Refuse a floating-point tensor that cannot be moved into a flat array of float32."""
    if value.dtype != torch.float32:
        raise UserError(
            f"model: tensor {name} is {value.dtype}; every tensor must be float32; .float() "
            "makes it so"
        )
    if value.layout != torch.strided or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise UserError(
            f"model: tensor {name} is {kind.strip('_')}; every tensor must be dense; .to_dense() "
            "or a layer without that option makes it so"
        )
    if id(value) not in own:
        raise UserError(
            f"model: tensor {name} of its state is none of its parameters and buffers (a hook or "
            "get_extra_state makes it), so nothing can be received into it; register_buffer does"
        )
    if value.numel() > MAX_ELEMENTS:
        raise UserError(f"model: tensor {name} has more than {MAX_ELEMENTS} values")
    if value.numel() and _place(value) is None:
        raise UserError(
            f"model: tensor {name} is a {type(value).__name__} without memory of its own; every "
            "tensor must be an ordinary one"
        )
    if value.is_neg() or (value.numel() and _may_overlap_itself(value)):
        raise UserError(
            f"model: tensor {name} is a view whose values share memory (expand, conj and the "
            "like); .clone(memory_format=torch.contiguous_format) gives each its own"
        )


def _may_overlap_itself(value: Tensor) -> bool:
    """Tell whether two indices may stand for one place, as after `Tensor.expand`."""
    reach = 0
    for stride, count in sorted(zip(value.stride(), value.shape, strict=True)):
        if count > 1:
            if stride <= reach:
                return True
            reach += stride * (count - 1)
    return False


def _check_apart(own: Mapping[int, tuple[str, Tensor]], sent: set[_Place]) -> None:
    """Refuse tensors that overlap one that is sent, but are not the same view of it."""
    names: dict[_Place, str] = {}
    for name, value in own.values():
        place = _place(value)
        if place is not None:
            names.setdefault(place, name)
    open_ones: list[_Place] = []
    for place in sorted(names, key=lambda place: place.address):
        open_ones = [other for other in open_ones if other.end > place.address]
        for other in open_ones:
            if not sent.isdisjoint((place, other)) and np.shares_memory(place, other):
                raise UserError(
                    f"model: {names[other]} and {names[place]} share memory but are not the same "
                    "view of it, and would part from one another; .clone() parts them, and to tie "
                    "weights, give both modules the same nn.Parameter"
                )
        open_ones.append(place)


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise UserError("model: classes of the task must be a sequence of names, each a str")
    if len(set(classes)) < len(classes):
        raise UserError("model: classes of the task must differ from one another in their names")
    try:
        _check_size_of(classes)
    except UnicodeEncodeError as error:
        raise UserError(f"model: class {error.object!r} of the task is no UTF-8 text") from None
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    return tuple(classes)


def _check_size_of(classes: Sequence[str]) -> None:
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"it lists more than {MAX_CLASSES} classes")
    if sum(len(name.encode()) for name in classes) > MAX_CLASS_BYTES:
        raise ValueError(f"the names of its classes take more than {MAX_CLASS_BYTES} bytes")


# ---- As bytes --------------------------------------------------------------------


def digest(flat: Floats) -> bytes:
    """Return 8 bytes that tell models apart: BLAKE2b of the little-endian float32 values."""
    return blake2b(flat.astype("<f4", copy=False).data, digest_size=DIGEST_BYTES).digest()


def to_message(spec: ModelSpec) -> pb.ModelSignature:
    """Return the signature as it travels."""
    return pb.ModelSignature(
        tensors=[
            pb.TensorSpec(name=t.name, shape=t.shape, dtype=pb.DATA_TYPE_FLOAT32)
            for t in spec.tensors
        ],
        classes=spec.classes,
    )


def from_message(message: pb.ModelSignature) -> ModelSpec:
    """Read a signature that came from a peer or a file.

    Raises
    ------
    ValueError
        If it has too many tensors, dimensions, values or classes, or a dtype other than float32.
    """
    _check_size_of(message.classes)
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
    return ModelSpec(tuple(tensors), tuple(message.classes))
