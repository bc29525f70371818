"""A model as the federation sees it: named float32 tensors in one flat array."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise, zip_longest
from math import prod

import numpy as np
from numpy.typing import NDArray

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
FROZEN_DIGEST_BYTES = 16
# Tensors of fewer values travel as one if they are so many: each header takes 14 bytes.
SMALL, MANY = 256, 32
# Names of classes in a sentence: so many, each cut to so many characters.
_NAMED, _LONGEST_NAMED = 5, 32


class Kind(IntEnum):
    """What a tensor is to the federation; the numbers are those of the wire.

    A group of statistics comes last in a model, and its members say what they are.
    """

    CODED = pb.TENSOR_KIND_CODED
    SERVER = pb.TENSOR_KIND_SERVER
    STATISTICS = pb.TENSOR_KIND_STATISTICS
    MEAN = pb.TENSOR_KIND_MEAN
    VARIANCE = pb.TENSOR_KIND_VARIANCE


@dataclass(frozen=True)
class TensorSpec:
    """One float32 tensor as it travels, or several that travel as one.

    Attributes
    ----------
    name : str
    shape : tuple of int
        Of a group, ``(n,)``.
    kind : Kind
    members : tuple of TensorSpec
        Of a group, in the order in which their values lie in it. After a mean of a normalization
        layer comes its variance, of the same shape.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind = Kind.CODED
    members: "tuple[TensorSpec, ...]" = ()

    @cached_property
    def elements(self) -> int:
        """``d_l``, the number of values."""
        return prod(self.shape)

    def __str__(self) -> str:
        if self.members:
            return f"{self.name} ({len(self.members)} tensors, {self.elements} values)"
        of_server = ", the server's" if self.kind == Kind.SERVER else ""
        return f"{self.name} {'x'.join(map(str, self.shape)) or 'scalar'}{of_server}"


def group(name: str, kind: Kind, members: Sequence[TensorSpec]) -> TensorSpec:
    """Return the tensor that some travel as."""
    values = sum(member.elements for member in members)
    return TensorSpec(name, (values,), kind, tuple(members))


def arranged(
    plain: Sequence[TensorSpec],
    fine: Mapping[str, TensorSpec],
    layers: Iterable[tuple[str, str]],
) -> tuple[TensorSpec, ...]:
    """Return the tensors of a model as they travel; what travels as one comes last.

    Parameters
    ----------
    plain : sequence of TensorSpec
    fine : mapping of str to TensorSpec
        Statistics, by name.
    layers : iterable of (str, str)
        Names of a running mean and its variance.
    """
    small = [t for t in plain if t.elements < SMALL and t.kind == Kind.CODED]
    tensors = list(plain)
    if len(small) > MANY:
        together = {t.name for t in small}
        tensors = [t for t in plain if t.name not in together]
        tensors.append(group("small tensors", Kind.CODED, small))
    others, statistics = dict(fine), []
    for mean, variance in layers:
        if mean in others and variance in others:
            for name, kind in ((mean, Kind.MEAN), (variance, Kind.VARIANCE)):
                statistics.append(replace(others.pop(name), kind=kind))
    statistics.extend(others.values())
    if statistics:
        tensors.append(group("statistics", Kind.STATISTICS, statistics))
    return tuple(tensors)


@dataclass(frozen=True)
class ModelSpec:
    """The signature of a model.

    Attributes
    ----------
    tensors : tuple of TensorSpec
        In the order in which they travel, statistics last.
    classes : tuple of str
        What its outputs stand for, in their order; empty where the task does not say.
    frozen : bytes
        Digest of the values that never travel because both sides have them; empty for none.
    """

    tensors: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()
    frozen: bytes = b""

    @cached_property
    def named(self) -> tuple[tuple[TensorSpec, slice], ...]:
        """The model's own tensors, members for groups, and where each lies in the flat array."""
        own = [member for tensor in self.tensors for member in tensor.members or (tensor,)]
        return tuple(zip(own, _side_by_side([tensor.elements for tensor in own]), strict=True))

    @cached_property
    def has_statistics(self) -> bool:
        """Whether the last tensor is a group of statistics."""
        return any(tensor.kind == Kind.STATISTICS for tensor in self.tensors[-1:])

    @cached_property
    def statistics(self) -> slice:
        """Where the statistics lie in the flat array: at its end; empty if there are none."""
        first = self.parameters - (self.elements[-1] if self.has_statistics else 0)
        return slice(first, self.parameters)

    @cached_property
    def coded_elements(self) -> tuple[int, ...]:
        """`elements`, 0 for the statistics."""
        return tuple(0 if t.kind == Kind.STATISTICS else t.elements for t in self.tensors)

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
        return tuple(_side_by_side(self.elements))

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
                if mine and theirs and (mine.members or theirs.members):
                    return _member_difference(mine, theirs)
                return (
                    f"tensor {number} is {mine or 'missing'} here and {theirs or 'missing'} there"
                )
        if self.frozen != other.frozen:
            return (
                "weights that never travel (frozen) have other values here and there; both sides "
                "must have them from the same seed and the same version of torch, or from the "
                "same file by --from"
            )
        return None


def _side_by_side(sizes: Sequence[int]) -> Iterator[slice]:
    ends = np.cumsum((0, *sizes)).tolist()
    return (slice(a, b) for a, b in pairwise(ends))


def _member_difference(mine: TensorSpec, theirs: TensorSpec) -> str:
    pairs = zip_longest(mine.members or (mine,), theirs.members or (theirs,))
    here, there = next(((a, b) for a, b in pairs if a != b), (mine, theirs))
    return f"of {mine.name}, {here or 'nothing'} is here and {there or 'nothing'} there"


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


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes that a task states, if they can be stated.

    Raises
    ------
    UserError
        If they are no names, too many, or not told apart.
    """
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


def digest(flat: Floats, past: NDArray[np.uint8] | None = None) -> bytes:
    """Return 8 bytes that tell models apart: BLAKE2b of the little-endian float32 values.

    `past`, a byte for each value, is what else is known of it (`given.Past`). It follows the
    values, unless all of it is 0.
    """
    return hashed(flat, past).digest()


def hashed(flat: Floats, past: NDArray[np.uint8] | None = None) -> blake2b:
    """Return the hash of a model and its past (`digest`), to which more may be added."""
    found = blake2b(flat.astype("<f4", copy=False).data, digest_size=DIGEST_BYTES)
    if past is not None and past.any():
        found.update(past.data)
    return found


def to_message(spec: ModelSpec) -> pb.ModelSignature:
    """Return the signature as it travels."""
    return pb.ModelSignature(
        tensors=map(_tensor_message, spec.tensors), classes=spec.classes, frozen=spec.frozen
    )


def _tensor_message(tensor: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=tensor.name,
        shape=tensor.shape,
        dtype=pb.DATA_TYPE_FLOAT32,
        kind=pb.TensorKind.Name(tensor.kind),
        members=map(_tensor_message, tensor.members),
    )


def from_message(message: pb.ModelSignature) -> ModelSpec:
    """Read a signature that came from a peer or a file.

    Raises
    ------
    ValueError
        If it has too many tensors, dimensions, values or classes, a dtype other than float32, or
        groups that cannot be.
    """
    _check_size_of(message.classes)
    count = len(message.tensors) + sum(len(tensor.members) for tensor in message.tensors)
    if count > MAX_TENSORS:
        raise ValueError(f"the model signature lists more than {MAX_TENSORS} tensors")
    if len(message.frozen) > FROZEN_DIGEST_BYTES:
        raise ValueError(f"its digest of frozen weights has {len(message.frozen)} bytes")
    tensors = []
    for tensor in message.tensors:
        members = tuple(map(_from_tensor_message, tensor.members))
        if any(member.members for member in tensor.members):
            raise ValueError(f"tensor {tensor.name!r} is a group of groups")
        one = replace(_from_tensor_message(tensor), members=members)
        if members and one.shape != (sum(member.elements for member in members),):
            raise ValueError(f"tensor {tensor.name!r} has other values than its members")
        tensors.append(one)
    return ModelSpec(tuple(tensors), tuple(message.classes), message.frozen)


def _from_tensor_message(tensor: pb.TensorSpec) -> TensorSpec:
    if tensor.dtype != pb.DATA_TYPE_FLOAT32:
        raise ValueError(f"tensor {tensor.name!r} is not float32")
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {tensor.name!r} has more than {MAX_DIMENSIONS} dimensions")
    if prod(tensor.shape) > MAX_ELEMENTS:
        raise ValueError(f"tensor {tensor.name!r} has more than {MAX_ELEMENTS} values")
    try:
        kind = Kind(tensor.kind)
    except ValueError:
        raise ValueError(f"tensor {tensor.name!r} is of an unknown kind {tensor.kind}") from None
    return TensorSpec(tensor.name, tuple(tensor.shape), kind)
