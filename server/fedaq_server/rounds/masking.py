"""The sum of a round's masked updates: who shares masks with whom, and how they come off.

The server learns this sum, and what is in no update: who was there, and when. The clients of a
round are numbered in the order of their names.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec.common_grid import Figures, mean_figures
from fedaq.codec.payload import Payload, TensorCode
from fedaq.codec.subset import Places, Subset
from fedaq.errors import ProtocolError
from fedaq.privacy.keys import Authority, PublicKeys, to_message
from fedaq.privacy.layout import Layout, layout_of
from fedaq.privacy.member import context_of
from fedaq.privacy.neighbours import FEWEST, Circle, circle_of, neighbours
from fedaq.privacy.sums import MaskedSum, Sums
from fedaq.privacy.unmasking import UnfitSharesError, left_in_sum
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.rounds.aggregation import Aggregate
from fedaq_server.rounds.incoming import Incoming
from fedaq_server.rounds.private import charge
from fedaq_server.rounds.reports import Report
from fedaq_server.rounds.round import Round
from fedaq_server.rounds.steps import Steps, too_few
from fedaq_server.schemes.masked_bytes import widths_of


class Step(IntEnum):
    """What the clients of a round bring, one after another."""

    KEYS = 0
    SHARES = 1
    CHECK = 2
    UPDATE = 3
    UNMASKING = 4


NAMES = ("your keys", "your shares", "what you say of shares", "your update", "what you reveal")
# By when each step closes, as a share of the round's deadline. Training comes before the first.
ENDS = (0.6, 0.7, 0.75, 0.9, 0.97)


@dataclass
class Masking:
    """What a round's clients brought, and what follows from it.

    Attributes
    ----------
    current : Round
    authority : Authority, optional
        By which keys must be proved.
    steps : Steps
    down : dict of str to int
        Bytes that each client was sent alone.
    reports : dict of str to Report
        Of the clients whose updates are in the sum; empty before there is one.
    figures : Figures, optional
        Those of the sum; none of a private one.
    count : int
        Of a private one: the noisy count of updates that were short enough.
    """

    current: Round
    authority: Authority | None
    steps: Steps
    down: Counter[str] = field(default_factory=Counter)
    reports: dict[str, Report] = field(default_factory=dict)
    figures: Figures | None = None
    count: int = 0
    _keys: Mapping[str, PublicKeys] = field(default_factory=dict)
    _members: frozenset[int] = frozenset()
    _charged: "asyncio.Task[None] | None" = None
    _sum: "asyncio.Task[frozenset[int]] | None" = None
    _dealer: str = ""

    @cached_property
    def context(self) -> bytes:
        """What all keys and masks of this round are bound to."""
        return context_of(self.current.federation.ledger.run_id, self.current.number)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each client of the round."""
        return {name: at for at, name in enumerate(sorted(self.current.weights), 1)}

    @cached_property
    def names(self) -> dict[int, str]:
        """And the other way round."""
        return {number: name for name, number in self.numbers.items()}

    @cached_property
    def total_weight(self) -> int:
        """The weight of all clients of the round."""
        return sum(self.current.weights.values())

    @cached_property
    def layout(self) -> Layout:
        """What each client masks."""
        state = self.current.state
        widths = widths_of(self.current.plan.grid, self.total_weight, state.release)
        return layout_of(self.subset.counts, widths)

    @cached_property
    def subset(self) -> Subset:
        """Which values each client masks."""
        current = self.current
        return Subset(
            current.state.spec, current.federation.settings.seed, current.number,
            current.plan.one_in,
        )  # fmt: skip

    @cached_property
    def plan(self) -> Circle:
        """How many neighbours those have who brought keys, and how many shares join a secret."""
        return circle_of(len(self._keys))

    @cached_property
    def circle(self) -> dict[int, tuple[int, ...]]:
        """The neighbours of each of them."""
        members = [self.numbers[name] for name in self._keys]
        return neighbours(members, self.plan.degree, self.context)

    def paid_up(self, name: str, size: int) -> None:
        """Charge a client for what it sent."""
        charged = self.current.charged
        charged[name] = charged.get(name, 0) + size

    def near(self, name: str) -> set[int]:
        """Return a client and its neighbours, as many as are members."""
        number = self.numbers[name]
        return {number, *self.circle[number]} & self._members

    async def brought_keys(self, name: str, keys: PublicKeys) -> pb.MaskRoster:
        """Bring keys; return those of the neighbours."""
        self._keys = await self.steps.meet(Step.KEYS, name, keys)
        number, release = self.numbers[name], self.current.state.release
        fewest = fewest_of(len(self._keys))
        noise, of_count = (0.0, 0.0) if release is None else release.shares(fewest)
        return pb.MaskRoster(
            round=self.current.number,
            number=number,
            threshold=self.plan.threshold,
            peers=[
                pb.MaskPeer(number=one, name=self.names[one], keys=to_message(self._keys[known]))
                for one in self.circle[number]
                for known in [self.names[one]]
            ],
            noise=noise,
            count_noise=of_count,
        )

    async def brought_shares(self, name: str, sealed: Mapping[int, bytes]) -> pb.MaskShares:
        """Bring shares for the neighbours; return those that they have for this client."""
        brought = await self.steps.meet(Step.SHARES, name, sealed)
        number = self.numbers[name]
        shares = [
            pb.SealedShare(peer=one, sealed=brought[self.names[one]][number])
            for one in self.circle[number]
            if self.names[one] in brought
        ]
        return pb.MaskShares(round=self.current.number, shares=shares)

    async def brought_check(self, name: str, unfit: frozenset[int]) -> pb.MaskSet:
        """Bring whose shares do not fit; return with whom masks are shared.

        Raises
        ------
        ProtocolError
            If so many say it of this client that its secrets could not be joined.
        """
        brought = await self.steps.meet(Step.CHECK, name, unfit)
        if not self._members:
            self._members = self._fit(brought)
        if self.numbers[name] not in self._members:
            raise ProtocolError(
                pb.REFUSAL_REASON_KEYS,
                "the shares that you sent do not fit: so say others",
            )
        near = self.near(name)
        if len(near) < self.plan.threshold:
            raise too_few(
                f"{len(near)} clients are left around one, and {self.plan.threshold} are needed"
            )
        return pb.MaskSet(round=self.current.number, members=sorted(near - {self.numbers[name]}))

    async def brought_update(self, report: Report, update: Incoming) -> pb.UnmaskRequest:
        """Bring a masked update; return which shares take masks off the sum."""
        brought = await self.steps.meet(Step.UPDATE, report.client.name, (report, update))
        if self.current.state.release is not None:
            # With what is asked for next, the sum is there.
            if self._charged is None:
                self._charged = asyncio.create_task(charge(self.current.federation))
            await asyncio.shield(self._charged)
        counted = {self.numbers[name] for name in brought}
        near = self.near(report.client.name)
        return pb.UnmaskRequest(
            round=self.current.number, counted=sorted(near & counted), gone=sorted(near - counted)
        )

    async def brought_unmasking(self, name: str, revealed: Mapping[int, bytes]) -> None:
        """Bring shares, and wait for the sum.

        Raises
        ------
        ProtocolError
            If there is none, or the shares do not fit.
        """
        brought = await self.steps.meet(Step.UNMASKING, name, revealed)
        if self._sum is None:
            self._sum = asyncio.create_task(self._add_up(brought))
        try:
            liars = await asyncio.shield(self._sum)
        except ProtocolError:
            if name == self._dealer:
                raise ProtocolError(
                    pb.REFUSAL_REASON_KEYS,
                    "the shares that you dealt do not belong together: the round has no sum",
                ) from None
            raise
        if self.numbers[name] in liars:
            raise ProtocolError(pb.REFUSAL_REASON_KEYS, "the shares that you revealed do not fit")

    def close(self) -> None:
        """Give files back."""
        self.steps.stop()
        for _, update in self.steps.came(Step.UPDATE).values():
            update.close()

    def _fit(self, brought: Mapping[str, frozenset[int]]) -> frozenset[int]:
        """Return who has sent fitting shares to enough of those who are still there."""
        here = {self.numbers[name]: unfit for name, unfit in brought.items()}
        fit = set()
        for one in here:
            holders = {one, *self.circle[one]} & here.keys()
            happy = [holder for holder in holders if one not in here[holder]]
            if len(happy) >= self.plan.threshold:
                fit.add(one)
        return frozenset(fit)

    async def _add_up(self, revealed: Mapping[str, Mapping[int, bytes]]) -> frozenset[int]:
        """Make the sum; return whose shares do not fit."""
        updates = self.steps.came(Step.UPDATE)
        try:
            liars, sums = await self.current.on_worker(
                self._unmasked, {name: update for name, (_, update) in updates.items()}, revealed
            )
        except UnfitSharesError as error:
            why = f"the shares of {self.names[error.number]} do not fit"
            self.steps.failure = why
            self._dealer = self.names[error.number] if error.dealt else ""
            raise too_few(why) from None
        weight = sum(self.current.weights[name] for name in updates)
        train_loss = nan
        if self.current.state.release is None:
            self.figures = mean_figures(sums, weight)
            train_loss = self.figures.train_loss
        else:
            self.count = sums[0]
        for name in sorted(updates):
            report, _ = updates[name]
            self.reports[name] = report.of_sum(train_loss, self.current.charged[name])
        return liars

    def _unmasked(
        self,
        updates: Mapping[str, Incoming],
        revealed: Mapping[str, Mapping[int, bytes]],
    ) -> tuple[frozenset[int], list[int]]:
        aggregate, grid = self.current.aggregate, self.current.plan.grid
        assert isinstance(aggregate, Aggregate)
        weight = sum(self.current.weights[name] for name in updates)
        sums, drawn = self._sums(aggregate, grid)
        figures: NDArray[Any] = np.zeros(1 + len(grid), np.int64)
        total = MaskedSum(self.layout, (*sums, figures))
        for update in updates.values():
            update.rewind()
            total.add(update.read)
        circle = {one: set(self.circle[one]) & self._members for one in self._members}
        left = left_in_sum(
            self.context,
            {one: self._keys[self.names[one]] for one in self._members},
            circle,
            {self.numbers[name] for name in updates},
            self.plan.threshold,
            {self.numbers[name]: shares for name, shares in revealed.items()},
        )
        total.unmask(left.masks)
        if self.current.state.release is not None:
            total.center(self.current.state.release.room)
        for part, places, code, found in drawn:
            # All that is not sent is 0.
            aggregate.total[part] = code.zero * weight
            aggregate.total[part][places] = found
        aggregate.settle(Payload(self.current.state.spec, grid), weight)
        return left.liars, figures.tolist()

    def _sums(
        self, aggregate: Aggregate, grid: Sequence[TensorCode]
    ) -> tuple[list[Sums], list[tuple[slice, Places, TensorCode, Sums]]]:
        """Return where each tensor that is sent is added up; and again, of which a part is sent."""
        sums, drawn = [], []
        parts = zip(self.current.state.spec.slices, self.subset.places, grid, strict=True)
        for part, places, code in parts:
            if not code.bits:
                continue
            if places is None:
                sums.append(aggregate.total[part])
            else:
                sums.append(np.zeros(len(places), np.int64))
                drawn.append((part, places, code, sums[-1]))
        return sums, drawn


def masking_of(current: Round, authority: Authority | None) -> Masking:
    """Return what masks the updates of a round that begins now."""
    ends = [share * current.deadline_s for share in ENDS]
    least = max(FEWEST, fewest_of(len(current.weights)))
    return Masking(current, authority, Steps(current.weights, NAMES, ends, least, fewest_of))


def fewest_of(clients: int) -> int:
    """Return how many of so many clients must stay: up to a third may drop out."""
    return clients - clients // 3
