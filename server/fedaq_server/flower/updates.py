"""Updates of nodes: how they are to be coded, and what came of them. Every byte is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import coding, statistics
from fedaq.codec.given import Dither
from fedaq.codec.payload import ZERO, Payload, TensorCode, coarser_steps
from fedaq.codec.quantizer import Floats, Range, derive_key
from fedaq.errors import ProtocolError
from fedaq.flower import payloads
from fedaq.v1 import federation_pb2
from fedaq.v1 import flower_pb2 as pb
from fedaq_server.flower.reference import Reference
from fedaq_server.rounds.aggregation import check_magnitude
from fedaq_server.schemes.scheme import Grant


@dataclass(frozen=True)
class Update:
    """What a node made of the model.

    Attributes
    ----------
    arrays : dict of str to array
        The strategy's model and what the node added to it, in the dtypes that its app returned.
    header : Payload
        How it was coded.
    spreads : float32, shape (tensors, 2)
        Root mean square and mean magnitude of every tensor of it.
    """

    arrays: Mapping[str, NDArray[np.generic]]
    header: Payload
    spreads: Floats


def to_message(grant: Grant, round_number: int) -> pb.FlowerGrant:
    """Return a grant as it travels: the scheme has one step for all tensors."""
    return pb.FlowerGrant(
        round=round_number,
        step=max(grant.steps, default=0.0),
        unsent=[number for number, bits in enumerate(grant.bits) if bits == 0],
        limit_bytes=grant.limit_bytes or 0,
    )


def read(reference: Reference, up: pb.FlowerUp, grant: pb.FlowerGrant, node_id: int) -> Update:
    """Decode the update of a node.

    It is added to the exact model, as by our own server. Its statistics are changes of what the
    node held: what that lacks of the server's is not added.

    Raises
    ------
    ProtocolError, ValueError
        If it is broken, not coded as granted, or beyond what values may be.
    """
    message, spec = up.payload, reference.layout.spec
    header = payloads.header_of(spec, message)
    for tensor, code in zip(spec.tensors, header.codes, strict=True):
        _check_granted(tensor.name, code, grant.step)
    update = np.zeros(spec.parameters, np.float32)
    known = Dither(partial(derive_key, grant.round, "flower", node_id))
    for chunk in payloads.chunks_of(header, message):
        coding.decode_into(header, chunk, update, known=known)
    spreads = payloads.spreads_from_bytes(up.spreads, len(spec.tensors))
    own, held = spec.statistics, reference.held
    change = update[own].copy()
    unit = statistics.units(spec, held.flat[own], statistics.UPLINK)
    values = np.add(reference.exact, update, out=update)
    values[own] = statistics.changed(spec, held.flat[own], change, unit)
    layout = held.layout.having(message.dtypes) if message.dtypes else held.layout
    exact = message.exact if message.exact or message.dtypes else held.exact
    if len(exact) != layout.exact_bytes:
        raise ValueError(f"{len(exact)} bytes of exact arrays; they have {layout.exact_bytes}")
    return Update(layout.arrays(values, exact), header, spreads)


def _check_granted(name: str, code: TensorCode, step: float) -> None:
    if code == ZERO:
        return
    if code.grid is None or code.step not in coarser_steps(step):
        raise ProtocolError(
            federation_pb2.REFUSAL_REASON_BITS_NOT_GRANTED,
            f"tensor {name} is not coded in the step that was granted, {step:g}",
        )
    check_magnitude(name, Range(code.grid.lo, code.grid.hi))
