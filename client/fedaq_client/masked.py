"""A client's side of the exchange of a masked update, from the end of its training on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np

from fedaq.codec import quantizer
from fedaq.codec.chunks import Chunk, expected
from fedaq.codec.common_grid import cut, figures_of, largest_code, reached_code, sum_bits
from fedaq.codec.kernels import GROUP
from fedaq.codec.payload import Payload, transfer_keys
from fedaq.codec.quantizer import Floats, Key, Spread
from fedaq.codec.subset import Subset
from fedaq.errors import FedaqError, NotFiniteError
from fedaq.privacy import keys
from fedaq.privacy.clipping import COUNT_UNIT
from fedaq.privacy.layout import WIDEST_CODES, Layout, Words, layout_of
from fedaq.privacy.member import MaskingError, Member, Peer
from fedaq.privacy.neighbours import Circle
from fedaq.privacy.noise import MOST_DEVIATION, discrete_gaussian
from fedaq.privacy.sums import WordsOf, masked
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.clipping import clip, shorten
from fedaq_client.demands import is_grid
from fedaq_client.training import Learner

Expect = Callable[[str], Awaitable[pb.ServerMessage | Chunk]]
Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class Masked:
    """An update that is to be masked.

    Attributes
    ----------
    values : float32, shape (parameters,)
    header : Payload
        The grid on which all updates of the round are coded.
    subset : Subset
        Which of the values are sent.
    layout : Layout
    weight : int
        What codes and figures are multiplied by.
    keys : tuple of Key
        Random stream of each tensor.
    figures : tuple of int
    private : bool
        Whether noise is added to it.
    """

    values: Floats
    header: Payload
    subset: Subset
    layout: Layout
    weight: int
    keys: tuple[Key, ...]
    figures: tuple[int, ...]
    private: bool = False

    def words(self, number: int, block: slice) -> Words:
        """Return weighted codes of a segment, or the weighted figures."""
        sent = [at for at, code in enumerate(self.header.codes) if code.bits]
        if number == len(sent):
            weighted = np.array(self.figures, np.int64) * self.weight
            return weighted[block].view(np.uint64)
        tensor, dtype = sent[number], self.layout.segments[number].dtype
        places = self.subset.places[tensor]
        if places is None:
            words = self._codes(tensor, block).astype(dtype)
        else:
            # What a code is follows from where its value lies in the tensor.
            here = places[block]
            first = int(here[0]) - int(here[0]) % GROUP
            words = self._codes(tensor, slice(first, int(here[-1]) + 1))[here - first].astype(dtype)
        words *= dtype.type(self.weight)
        return words

    def _codes(self, tensor: int, block: slice) -> Words:
        grid, first = self.header.codes[tensor].grid, self.header.spec.slices[tensor].start
        assert grid is not None
        values = self.values[first + block.start : first + block.stop]
        codes = np.empty(2 * values.size, np.uint8)
        quantizer.quantize(values, grid, self.keys[tensor], first=block.start, out=codes, width=16)
        return codes.view("<u2")


def masked_update(
    learner: Learner,
    plan: pb.RoundPlan,
    subset: Subset,
    name: str,
    spreads: tuple[Spread, ...],
    loss: float,
) -> Masked:
    """Return the update that a learner has as the server wants it masked.

    Tensors that are not sent of it are kept. Where the model is to be private, it is clipped.

    Raises
    ------
    NotFiniteError
        If the loss is not finite.
    FedaqError
        If the server asks for what cannot be.
    """
    if not isfinite(loss):
        raise NotFiniteError(f"the training loss is {loss}")
    spec, asked = learner.spec, plan.masking
    tensors = len(spec.tensors)
    parts = (asked.steps, asked.reaches, asked.widths)
    if not (all(len(part) == tensors for part in parts) and is_grid(asked.steps, asked.reaches)):
        raise FedaqError("the server asks for a grid of masked updates that cannot be")
    codes = tuple(map(reached_code, asked.steps, asked.reaches))
    widths = tuple(asked.widths)
    # More than its own, for the others.
    fits = (
        sum_bits(largest_code(code), asked.weight) <= width <= WIDEST_CODES
        and (width > 0) == bool(code.bits)
        for code, width in zip(codes, widths, strict=True)
    )
    if asked.weight < 1 or not all(fits):
        raise FedaqError(f"the server asks for masked values of {list(widths)} bits: too few")
    learner.keep_unsent(plan.round, (code.bits > 0 for code in codes))
    cut(learner.weights, asked.reaches, spec.slices)
    header, layout = Payload(spec, codes), layout_of(subset.counts, widths)
    streams = transfer_keys(spec, subset.seed, "uplink", name, plan.round)
    figures = figures_of(spreads, loss)
    is_private = plan.HasField("clipping")
    if is_private:
        within = clip(learner.weights, plan.clipping.norm)
        shorten(learner.weights, header, streams, plan.clipping.rounded)
        counted = (1 if within else -1) * COUNT_UNIT * plan.clipping.count
        figures = (counted, *(0 for _ in spreads))
    return Masked(
        learner.weights, header, subset, layout, asked.weight, streams, figures, is_private
    )


async def send_masked(
    update: Masked,
    member: Member,
    report: pb.RangeReport,
    chunk_bytes: int,
    expect: Expect,
    send: Send,
    on_transfer: Callable[[bool, int, int], None],
) -> int:
    """Go through all steps up to the unmasking; return the payload bytes that were sent.

    Raises
    ------
    MaskingError
        If the server asks for what would give this client away.
    """
    number, sent = report.round, 0

    async def say(message: pb.ClientMessage, size: int) -> None:
        nonlocal sent
        sent += size
        await send(message.SerializeToString())

    report.keys.CopyFrom(keys.to_message(member.public))
    await say(pb.ClientMessage(range_report=report), report.keys.ByteSize())
    roster = (await expected(expect, "mask_roster")).mask_roster
    sealed = await asyncio.to_thread(
        member.share, roster.number, _peers(roster), Circle(len(roster.peers), roster.threshold)
    )
    shares = pb.MaskShares(
        round=number,
        shares=[pb.SealedShare(peer=one, sealed=words) for one, words in sealed.items()],
    )
    await say(pb.ClientMessage(mask_shares=shares), shares.ByteSize())
    mine = (await expected(expect, "mask_shares")).mask_shares
    unfit = await asyncio.to_thread(
        member.receive, {share.peer: share.sealed for share in mine.shares}
    )
    check = pb.ShareCheck(round=number, unfit=sorted(unfit))
    await say(pb.ClientMessage(share_check=check), check.ByteSize())
    members = (await expected(expect, "mask_set")).mask_set.members
    masks = await asyncio.to_thread(member.masks, members)
    words_of = _noisy(update, roster) if update.private else update.words
    size = update.layout.packed_bytes
    header = pb.PayloadHeader(round=number, code_bytes=size)
    await say(pb.ClientMessage(update=header), 0)
    offset = 0
    pieces = _pieces(masked(update.layout, words_of, masks), chunk_bytes)
    while piece := await asyncio.to_thread(next, pieces, b""):
        await send(Chunk(number, offset, piece).frame(pb.ClientMessage))
        offset += len(piece)
        on_transfer(False, offset, size)
    request = (await expected(expect, "unmask")).unmask
    revealed = member.reveal(request.counted, request.gone)
    unmasking = pb.Unmasking(
        round=number,
        shares=[pb.RevealedShare(peer=one, share=share) for one, share in revealed.items()],
    )
    await say(pb.ClientMessage(unmasking=unmasking), unmasking.ByteSize())
    return sent + size


def _noisy(update: Masked, roster: pb.MaskRoster) -> WordsOf:
    """Return an update's words with this client's share of the noise in them.

    Raises
    ------
    MaskingError
        If the server asks for none, or for what cannot be.
    """
    noise, of_count = roster.noise, roster.count_noise
    if not (0 < noise <= MOST_DEVIATION and 0 <= of_count <= MOST_DEVIATION):
        raise MaskingError(
            f"the server asks for noise of {noise:g} steps, and {of_count:g} on a count, where "
            f"more than 0 and at most {MOST_DEVIATION:g} hides an update"
        )
    figures = len(update.layout.segments) - 1

    def words_of(number: int, block: slice) -> Words:
        words = update.words(number, block)
        if number < figures:
            words += discrete_gaussian(noise, words.size).astype(words.dtype)
        elif of_count and block.start == 0:
            words[:1] += discrete_gaussian(of_count, 1).astype(words.dtype)
        return words

    return words_of


def _peers(roster: pb.MaskRoster) -> dict[int, Peer]:
    peers = {peer.number: Peer(peer.name, keys.from_message(peer.keys)) for peer in roster.peers}
    if len(peers) < len(roster.peers):
        raise MaskingError("the server numbers the clients of the round wrongly")
    return peers


def _pieces(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes, so many at a time."""
    left = bytearray()
    for block in blocks:
        left += block
        whole = len(left) - len(left) % size
        for start in range(0, whole, size):
            yield bytes(left[start : start + size])
        del left[:whole]
    if left:
        yield bytes(left)
