"""A round of the protocol without a network: members, a sum, and who drops out at which step."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedaq.privacy.layout import Layout, Words
from fedaq.privacy.member import Member, Peer, context_of
from fedaq.privacy.neighbours import Circle, circle_of, neighbours
from fedaq.privacy.sums import MaskedSum, masked
from fedaq.privacy.unmasking import Left, left_in_sum

CONTEXT = context_of("a run", 7)


@dataclass
class Played:
    """What was said in a round."""

    members: dict[int, Member]
    circle: dict[int, tuple[int, ...]]
    plan: Circle
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    masked: dict[int, bytes] = field(default_factory=dict)
    revealed: dict[int, dict[int, bytes]] = field(default_factory=dict)
    left: Left | None = None


def begun(clients: int, plan: Circle | None = None) -> Played:
    """Members that have shared their secrets out."""
    members = {number: Member(f"client-{number}", CONTEXT) for number in range(1, clients + 1)}
    plan = plan or circle_of(clients)
    played = Played(members, neighbours(members, plan.degree, CONTEXT), plan)
    for number, member in members.items():
        peers = {one: Peer(f"client-{one}", members[one].public) for one in played.circle[number]}
        played.sealed[number] = member.share(number, peers, plan)
    return played


def deliver(played: Played, members: Collection[int]) -> None:
    for number in members:
        mine = {one: played.sealed[one][number] for one in played.circle[number] if one in members}
        assert played.members[number].receive(mine) == set()


def send(
    played: Played, layout: Layout, codes: Mapping[int, Sequence[Words]], members: Collection[int]
) -> None:
    """Mask among `members`; those who have codes send."""
    for number, words in codes.items():
        masks = played.members[number].masks(members)

        def words_of(at: int, block: slice, own: Sequence[Words] = words) -> Words:
            return own[at][block].copy()

        played.masked[number] = b"".join(masked(layout, words_of, masks))


def reveal(played: Played, members: Collection[int], answering: Collection[int]) -> None:
    counted = played.masked.keys()
    for number in answering:
        near = ({*played.circle[number], number}) & set(members)
        played.revealed[number] = played.members[number].reveal(near & counted, near - counted)


def summed(played: Played, layout: Layout, members: Collection[int]) -> MaskedSum:
    total = MaskedSum(
        layout, tuple(np.zeros(segment.values, np.int64) for segment in layout.segments)
    )
    for data in played.masked.values():
        at = 0

        def read(size: int, data: bytes = data) -> bytes:
            nonlocal at
            at += size
            return data[at - size : at]

        total.add(read)
        assert at == len(data)
    keys = {one: played.members[one].public for one in members}
    circle = {one: set(played.circle[one]) & set(members) for one in members}
    played.left = left_in_sum(
        CONTEXT, keys, circle, played.masked, played.plan.threshold, played.revealed
    )
    total.unmask(played.left.masks)
    return total
