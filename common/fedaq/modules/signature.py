"""The signature of a torch module: what of it travels, and in which order."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedaq.codec.model import (
    FROZEN_DIGEST_BYTES,
    MAX_ELEMENTS,
    MAX_TENSORS,
    Kind,
    ModelSpec,
    TensorSpec,
    arranged,
    checked_classes,
)
from fedaq.errors import UserError
from fedaq.modules.places import Place, identity, may_overlap_itself, own_tensors, place
from fedaq.modules.policies import Policy, policies_of, variances_of

# They travel as float32 values.
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
COMPLEX_TYPES = (torch.complex64, torch.complex128)
NO_PATTERNS: Mapping[str, str] = MappingProxyType({})


def spec_of(
    module: nn.Module, classes: Sequence[str] = (), patterns: Mapping[str, str] = NO_PATTERNS
) -> ModelSpec:
    """Return the signature of a torch module.

    Tensors that are one and the same view of their memory (tied weights) travel once, under the
    first name.

    Parameters
    ----------
    module : nn.Module
    classes : sequence of str
        As the task states them.
    patterns : mapping of str to str
        Of names of tensors to a `fedaq.modules.policies.Policy`, as the task states them.

    Raises
    ------
    UserError
        If there is something in it that cannot travel, or nothing that can. A
        `fedaq.modules.bound.Bound` can be made of every module that is not refused.
    """
    if not isinstance(module, nn.Module):
        raise UserError(
            f"model: model() must return a torch.nn.Module, and returned {type(module).__name__}"
        )
    own, state = own_tensors(module), module.state_dict(keep_vars=True)
    for name, value in state.items():
        _check_kept(name, value)
    policies = policies_of(state, patterns)
    sent: dict[Place | int, str] = {}
    for name, value in state.items():
        if policies[name] in (Policy.CODED, Policy.FINE, Policy.SERVER):
            _check_sent(name, value, own)
            sent.setdefault(identity(value), name)
    if len(sent) > MAX_TENSORS:
        raise UserError(f"model: it has more than {MAX_TENSORS} tensors")
    _check_apart(own, {place for place in sent if isinstance(place, Place)})
    frozen = {
        name: value
        for name, value in state.items()
        if policies[name] is Policy.FROZEN and identity(value) not in sent
    }
    tensors = {name: TensorSpec(name, shape_of(state[name])) for name in sent.values()}
    spec = ModelSpec(
        _in_order(tensors, policies, module), checked_classes(classes), _digest_of(frozen)
    )
    if not spec.parameters:
        raise UserError(
            "model: it has no floating-point value to train; let model() return a module with "
            "parameters that have requires_grad"
        )
    return spec


def shape_of(value: Tensor) -> tuple[int, ...]:
    """Return the shape in which a tensor travels: a complex number is two."""
    return (*value.shape, 2) if value.is_complex() else tuple(value.shape)


def _in_order(
    tensors: Mapping[str, TensorSpec], policies: Mapping[str, Policy], module: nn.Module
) -> tuple[TensorSpec, ...]:
    """Return what travels, in the order of the module; what travels as one comes last."""
    kinds = {Policy.CODED: Kind.CODED, Policy.SERVER: Kind.SERVER}
    plain = [
        TensorSpec(t.name, t.shape, kinds[policies[name]])
        for name, t in tensors.items()
        if policies[name] is not Policy.FINE
    ]
    fine = {name: t for name, t in tensors.items() if policies[name] is Policy.FINE}
    return arranged(plain, fine, variances_of(module))


def _digest_of(frozen: Mapping[str, Tensor]) -> bytes:
    """Return a digest of the values that never travel; empty if there are none."""
    if not frozen:
        return b""
    digest = blake2b(digest_size=FROZEN_DIGEST_BYTES)
    for name, value in frozen.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(_bytes_of(value))
    return digest.digest()


def _bytes_of(value: Tensor) -> memoryview:
    if value.is_quantized:
        value = value.int_repr()
    elif value.layout != torch.strided:
        value = value.to_dense()
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return dense.view(torch.uint8).numpy().data


# ---- What cannot travel ----------------------------------------------------------


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
    if value.device.type == "meta":
        raise UserError(
            f"model: tensor {name} is on device meta and has no values; build the model on a "
            "device that has memory"
        )


def _check_sent(name: str, value: Tensor, own: Mapping[int, object]) -> None:
    """Refuse a tensor whose values cannot be read and written."""
    if value.dtype not in (*TYPES, *COMPLEX_TYPES):
        raise UserError(
            f"model: tensor {name} is {value.dtype}, and only floating-point values of 16 bits "
            "and more are averaged; .float() makes them so, or the task says that it is frozen or "
            f"local: tensors={{{name!r}: 'frozen'}}"
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
    if value.numel() and place(value) is None:
        raise UserError(
            f"model: tensor {name} is a {type(value).__name__} without memory of its own; every "
            "tensor must be an ordinary one"
        )
    if value.is_neg() or value.is_conj() or (value.numel() and may_overlap_itself(value)):
        raise UserError(
            f"model: tensor {name} is a view whose values share memory (expand, conj and the "
            "like); .clone(memory_format=torch.contiguous_format) gives each its own"
        )
    if not _is_finite(value):
        raise UserError(
            f"model: tensor {name} has NaN or infinity before any training; where it is a range "
            "that an observer has yet to see, let model() run the module on an example first"
        )


def _is_finite(value: Tensor) -> bool:
    value = value.detach()
    # Nearly always that is enough, and it takes no memory.
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def _check_apart(own: Mapping[int, tuple[str, Tensor]], sent: set[Place]) -> None:
    """Refuse tensors that overlap one that is sent, but are not the same view of it."""
    names: dict[Place, str] = {}
    for name, value in own.values():
        lies = place(value)
        if lies is not None:
            names.setdefault(lies, name)
    open_ones: list[Place] = []
    for lies in sorted(names, key=lambda one: one.address):
        open_ones = [other for other in open_ones if other.end > lies.address]
        for other in open_ones:
            if not sent.isdisjoint((lies, other)) and np.shares_memory(lies, other):
                raise UserError(
                    f"model: {names[other]} and {names[lies]} share memory but are not the same "
                    "view of it, and would part from one another; .clone() parts them, and to tie "
                    "weights, give both modules the same nn.Parameter"
                )
        open_ones.append(lies)
