"""What becomes of a task's tensors, class by class, and what each class costs on the way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedaq.codec import coding, payload
from fedaq.codec.model import Kind, ModelSpec
from fedaq.codec.quantizer import Floats, Spread
from fedaq.modules.places import identity
from fedaq.modules.policies import Policy, policies_of
from fedaq.settings.schemes import CODED_UPLINK
from fedaq_client.training import Learner

_CHUNK_BYTES = 2**20
_NAMES = {Kind.CODED: "coded", Kind.STATISTICS: "statistics", Kind.SERVER: "the server's"}


@dataclass(frozen=True)
class TensorClass:
    """Tensors that are treated alike.

    Attributes
    ----------
    name : str
    tensors, values : int
        As the module has them; tied ones count once.
    whole_bytes : int
        Of a transfer in float32, without headers; 0 for what never travels.
    update_bytes : int
        Of the update that one batch made, coded at the default steps, with its headers.
    """

    name: str
    tensors: int
    values: int
    whole_bytes: int = 0
    update_bytes: int = 0


def tensor_classes(learner: Learner) -> tuple[TensorClass, ...]:
    """Return the classes of a model that has just been trained."""
    return (*_travelling(learner), *_staying(learner))


def _travelling(learner: Learner) -> Iterator[TensorClass]:
    spec, update = learner.spec, learner.weights
    finite = bool(np.isfinite(update).all())
    spreads = payload.tensor_spreads(spec, update.__getitem__) if finite else ()
    for kind, name in _NAMES.items():
        own = [tensor for tensor in spec.tensors if tensor.kind == kind]
        values = sum(tensor.elements for tensor in own)
        if own:
            goes_up = finite and kind != Kind.SERVER
            yield TensorClass(
                name,
                sum(len(tensor.members) or 1 for tensor in own),
                values,
                4 * values,
                _coded_bytes(spec, update, spreads, kind) if goes_up else 0,
            )


def _coded_bytes(spec: ModelSpec, update: Floats, spreads: tuple[Spread, ...], kind: Kind) -> int:
    bits = tuple(int(tensor.kind == kind) for tensor in spec.tensors)
    header = payload.plan_payload(spec, bits, spreads, (CODED_UPLINK,) * len(bits))
    keys = payload.transfer_keys(spec, 1, "uplink", "client-1", 1)
    chunks = (
        coding.encode(header, update.__getitem__, keys, offset, length, 1, squeeze=True)[0]
        for offset, length in header.chunks(_CHUNK_BYTES)
    )
    headers = sum(code.header_bytes for code, one in zip(header.codes, bits, strict=True) if one)
    return headers + sum(chunk.cost_bytes for chunk in chunks)


def _staying(learner: Learner) -> Iterator[TensorClass]:
    state = learner.model.state_dict(keep_vars=True)
    sent = {identity(state[tensor.name]) for tensor, _ in learner.spec.named}
    policies = policies_of(state, learner.task.tensors)
    for policy in (Policy.LOCAL, Policy.FROZEN):
        own = {
            identity(value): value.numel()
            for name, value in state.items()
            if policies[name] is policy and identity(value) not in sent
        }
        if own:
            yield TensorClass(policy, len(own), sum(own.values()))
