"""What nodes hold, and the messages that led there.

As `fedaq_server.rounds.differences` has it, in memory: the server sends what its model gained on
the one that up-to-date nodes hold, rounded to the nearest codes, and what that loses is in the next
difference. A node that missed some is sent those, or the whole model where that is shorter; so
differences that cost as much are dropped.
"""

from dataclasses import dataclass

import numpy as np

from fedaq.codec import holding, payload
from fedaq.codec.given import Past
from fedaq.codec.model import Kind
from fedaq.codec.payload import RAW, ZERO, Payload, TensorCode
from fedaq.codec.quantizer import Floats, Spread
from fedaq.codec.statistics import Scaled
from fedaq.errors import NotFiniteError, UserError
from fedaq.flower import payloads
from fedaq.flower.layout import Arrays, Layout, layout_of, to_message
from fedaq.v1 import flower_pb2 as pb
from fedaq_server.schemes.scheme import Grant

# The model that a run begins with is sent in steps of this share of a tensor's root mean square:
# six bits a value, and an error of two percent. What is left of it is in the differences after it.
BEGINNING = 2.0**-4


@dataclass(frozen=True)
class Step:
    """A model or a difference that was sent.

    Attributes
    ----------
    base : bytes
        Digest of what it is added to; empty for a model.
    message : FlowerPayload
    size : int
        Bytes of it.
    """

    base: bytes
    message: pb.FlowerPayload
    size: int


class Reference:
    """The exact model, the one that up-to-date nodes hold, and how to get there.

    Parameters
    ----------
    arrays : mapping of str to array
        The model that the run begins with.

    Attributes
    ----------
    layout : Layout
    exact : float32, shape (parameters,)
        The strategy's model.
    held : Held
        What up-to-date nodes hold.

    Raises
    ------
    UserError
        If nothing of it can be coded.
    """

    def __init__(self, arrays: Arrays) -> None:
        try:
            self.layout: Layout = layout_of(arrays)
        except ValueError as error:
            raise UserError(f"fedaq.flower: {error}") from None
        if not self.layout.spec.parameters:
            raise UserError(
                "fedaq.flower: the model has no floating-point arrays, so there is nothing to "
                "code; use the strategy without Coded"
            )
        self._exact_arrays = self.layout.as_they_are(arrays)
        self.exact = self._finite(self.layout.flat(arrays))
        self._steps = [_beginning(self.layout, self.exact, self._exact_arrays)]
        held = payloads.after(None, self._steps[0].message)
        assert held is not None
        self.held = held
        self.digest = held.digest()

    def takes(self, arrays: Arrays) -> bool:
        """Tell whether arrays are of the same names and shapes, so that a difference exists."""
        return self.layout.fits(arrays)

    def note(self, arrays: Arrays) -> bool:
        """Take the strategy's newest model; tell whether it is a new one.

        Raises
        ------
        UserError
            If it is not finite.
        """
        layout = self.layout.having(self.layout.dtypes_of(arrays))
        flat, exact = layout.flat(arrays), layout.as_they_are(arrays)
        same = layout.dtypes == self.layout.dtypes and exact == self._exact_arrays
        if same and np.array_equal(flat, self.exact):
            return False
        self.layout, self.exact, self._exact_arrays = layout, self._finite(flat), exact
        return True

    def gain(self) -> Scaled:
        """Return what the exact model has gained on the held one, as it is coded."""
        return Scaled(self.layout.spec, self.exact, self.held.flat)

    def advance(self, grant: Grant, spreads: tuple[Spread, ...], round_number: int) -> int:
        """Code a difference as it was granted, and hold what follows from it.

        Returns
        -------
        int
            Bytes of its headers and codes; 0 if there is nothing new.
        """
        spec, gain = self.layout.spec, self.gain()
        planned = payload.plan_payload(spec, grant.bits, spreads, grant.steps)
        header, coded = payloads.encoded(
            planned,
            gain.__getitem__,
            # Rounded to the nearest, values need no random numbers.
            payload.transfer_keys(spec, 0),
            round_number,
            nearest=True,
            known=self.held.past,
            limit_bytes=grant.limit_bytes or 0,
        )
        message = payloads.to_message(header, coded, round_number, self.digest)
        payload_bytes = message.ByteSize()
        if self.layout.dtypes != self.held.layout.dtypes:
            message.dtypes.extend(self.layout.dtypes)
        if self._exact_arrays != self.held.exact:
            message.exact = self._exact_arrays
        if not (any(header.bits) or message.exact or message.dtypes):
            return 0
        step = Step(self.digest, message, message.ByteSize())
        held = payloads.after(self.held, message)
        assert held is not None
        self.held, self.digest = held, held.digest()
        self._steps.append(step)
        self._drop_old()
        return payload_bytes

    def way(self, holds: bytes) -> list[Step]:
        """Return what brings a node from what it holds (empty: nothing) to the held model."""
        if holds == self.digest:
            return []
        for first, step in enumerate(self._steps):
            if step.base == holds:
                return self._steps[first:]
        return [self._whole()]

    @property
    def newest(self) -> Step:
        """The step that led to the held model."""
        return self._steps[-1]

    def _whole(self) -> Step:
        """Return the held model itself, raw and exact."""
        spec = self.held.layout.spec
        header = Payload(spec, (RAW,) * len(spec.tensors))
        return _model(self.held.layout, header, self.held.flat, self.held.exact, self.held.past)

    def _drop_old(self) -> None:
        """Drop differences from where on the whole model is shorter."""
        whole = 4 * self.layout.spec.parameters
        total = 0
        for first in reversed(range(len(self._steps))):
            total += self._steps[first].size
            if total >= whole:
                self._steps = self._steps[first + 1 :] or self._steps[-1:]
                return

    def _finite(self, flat: Floats) -> Floats:
        try:
            payload.tensor_spreads(self.layout.spec, flat.__getitem__)
        except NotFiniteError as error:
            raise UserError(f"fedaq.flower: the strategy's model: {error}") from None
        return flat


def _beginning(layout: Layout, flat: Floats, exact: bytes) -> Step:
    spec = layout.spec
    spreads = payload.tensor_spreads(spec, flat.__getitem__)
    codes = tuple(
        RAW if tensor.kind == Kind.STATISTICS else _fine_code(spread)
        for tensor, spread in zip(spec.tensors, spreads, strict=True)
    )
    return _model(layout, Payload(spec, codes), flat, exact)


def _fine_code(spread: Spread) -> TensorCode:
    if spread.is_zero:
        return ZERO
    return payload.step_code(spread, BEGINNING * float(np.hypot(spread.mean, spread.deviation)))


def _model(
    layout: Layout, header: Payload, flat: Floats, exact: bytes, past: Past | None = None
) -> Step:
    keys = payload.transfer_keys(layout.spec, 0)
    header, coded = payloads.encoded(header, flat.__getitem__, keys, 0, nearest=True)
    if past is not None:
        coded = [holding.with_past(header, chunk, past) for chunk in coded]
    message = payloads.to_message(header, coded, 0)
    message.exact = exact
    message.layout.CopyFrom(to_message(layout))
    return Step(b"", message, message.ByteSize())
