"""What secure aggregation costs: masks, keys, shares, and taking masks off.

    python benchmarks/masks.py                 # masks of 10 M values; 10, 50 and 200 clients
    python benchmarks/masks.py --values 1e6 --clients 3 20
    python benchmarks/masks.py --parts masks   # only one part: masks, shares or rounds

One thread, no network; seconds are the processor's. Bytes are those of the messages that a client
sends and is sent, per round, besides the masked update. With pycryptodome installed, its secret
sharing stands beside ours.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from rich.table import Table

from fedaq.privacy.keys import to_message
from fedaq.privacy.layout import Segment
from fedaq.privacy.masks import Mask, Masks
from fedaq.privacy.member import Member, Peer, context_of
from fedaq.privacy.neighbours import circle_of, neighbours
from fedaq.privacy.shares import SECRET_BYTES, join, split
from fedaq.privacy.unmasking import left_in_sum
from fedaq.process.terminal import console
from fedaq.v1 import federation_pb2 as pb

CONTEXT = context_of("benchmark", 1)
REPEATS = 5
PARTS = ("masks", "shares", "rounds")


def timed(work: Callable[[], object]) -> float:
    """Return the median time of a few runs, in seconds of the processor's."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return median(times)


def masks(values: int) -> None:
    """Show how fast masks are drawn and added, in bytes of masked words."""
    table = Table(title=f"masks of {values:,} values, one core")
    for column in ("bits a value", "masks", "s", "GB/s"):
        table.add_column(column, justify="right")
    for width in (8, 16, 32):
        segment = Segment(values, width)
        words = np.ones(values, segment.dtype)
        for count in (1, 9):
            seeds = [Mask(os.urandom(32), (-1) ** at) for at in range(count)]

            def mask(
                segment: Segment = segment, words: np.ndarray = words, seeds: list[Mask] = seeds
            ) -> None:
                streams = Masks(seeds)
                for block in segment.blocks():
                    streams.apply(words[block])

            seconds = timed(mask)
            speed = count * words.nbytes / seconds / 1e9
            table.add_row(str(width), str(count), f"{seconds:.3f}", f"{speed:.2f}")
    console.print(table)


def shares(clients: list[int]) -> None:
    """Show how long one secret takes to be shared out and joined."""
    table = Table(title="one secret of 16 bytes")
    for column in ("holders", "threshold", "split, ms", "join, ms", "pycryptodome's split, join"):
        table.add_column(column, justify="right")
    secret = os.urandom(SECRET_BYTES)
    for count in clients:
        plan = circle_of(count)
        holders = range(1, plan.degree + 2)
        shared = split(secret, holders, plan.threshold)
        chosen = {one: shared[one] for one in list(shared)[: plan.threshold]}

        def join_them(chosen: dict[int, bytes] = chosen) -> None:
            join(chosen)

        def split_it(holders: range = holders, threshold: int = plan.threshold) -> None:
            split(secret, holders, threshold)

        table.add_row(
            str(len(holders)), str(plan.threshold), f"{1e3 * timed(split_it):.2f}",
            f"{1e3 * timed(join_them):.3f}", _pycryptodome(secret, len(holders), plan.threshold),
        )  # fmt: skip
    console.print(table)


def _pycryptodome(secret: bytes, holders: int, threshold: int) -> str:
    try:
        from Crypto.Protocol.SecretSharing import Shamir
    except ImportError:
        return "not installed"
    began = time.process_time()
    shared = Shamir.split(threshold, holders, secret)
    split_s = time.process_time() - began
    began = time.process_time()
    assert Shamir.combine(shared[:threshold]) == secret
    return f"{1e3 * split_s:.1f}, {1e3 * (time.process_time() - began):.1f}"


@dataclass
class Cost:
    """What one client takes on average, and the server, in one round."""

    share_s: float = 0.0
    receive_s: float = 0.0
    agree_s: float = 0.0
    unmask_s: float = 0.0
    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)


def played(clients: int) -> Cost:
    """Play a round of so many clients, a third of which drop out before their update."""
    cost, plan = Cost(), circle_of(clients)
    members = {number: Member(f"client-{number}", CONTEXT) for number in range(1, clients + 1)}
    circle = neighbours(members, plan.degree, CONTEXT)
    began = time.process_time()
    sealed = {
        number: member.share(
            number,
            {one: Peer(f"client-{one}", members[one].public) for one in circle[number]},
            plan,
        )
        for number, member in members.items()
    }
    cost.share_s = (time.process_time() - began) / clients
    began = time.process_time()
    for number, member in members.items():
        member.receive({one: sealed[one][number] for one in circle[number]})
    cost.receive_s = (time.process_time() - began) / clients
    began = time.process_time()
    for member in members.values():
        member.masks(members)
    cost.agree_s = (time.process_time() - began) / clients
    counted = set(range(1, clients + 1 - clients // 3))
    revealed = {}
    for number in counted:
        near = {number, *circle[number]}
        revealed[number] = members[number].reveal(near & counted, near - counted)
        _weigh(cost, number, members, circle[number], sealed, revealed[number], counted)
    began = time.process_time()
    keys = {number: member.public for number, member in members.items()}
    left_in_sum(CONTEXT, keys, circle, counted, plan.threshold, revealed)
    cost.unmask_s = time.process_time() - began
    return cost


def _weigh(
    cost: Cost,
    number: int,
    members: dict[int, Member],
    near: tuple[int, ...],
    sealed: dict[int, dict[int, bytes]],
    revealed: dict[int, bytes],
    counted: set[int],
) -> None:
    everyone = {number, *near}
    peers = [
        pb.MaskPeer(number=one, name=f"client-{one}", keys=to_message(members[one].public))
        for one in near
    ]
    ours = [pb.SealedShare(peer=one, sealed=words) for one, words in sealed[number].items()]
    theirs = [pb.SealedShare(peer=one, sealed=sealed[one][number]) for one in near]
    given = [pb.RevealedShare(peer=one, share=share) for one, share in revealed.items()]
    up = (
        to_message(members[number].public), pb.MaskShares(round=1, shares=ours),
        pb.ShareCheck(round=1), pb.Unmasking(round=1, shares=given),
    )  # fmt: skip
    down = (
        pb.MaskRoster(round=1, number=number, threshold=1, peers=peers),
        pb.MaskShares(round=1, shares=theirs), pb.MaskSet(round=1, members=near),
        pb.UnmaskRequest(round=1, counted=everyone & counted, gone=everyone - counted),
    )  # fmt: skip
    cost.up.append(sum(each.ByteSize() for each in up))
    cost.down.append(sum(each.ByteSize() for each in down))


def rounds(clients: list[int]) -> None:
    """Show what keys and shares take."""
    table = Table(title="keys and shares of a round, per client; a third drops out at the update")
    for column in (
        "clients", "neighbours", "threshold", "B up", "B down", "share s", "open s",
        "agree s", "server s",
    ):  # fmt: skip
        table.add_column(column, justify="right")
    for count in clients:
        plan, cost = circle_of(count), played(count)
        table.add_row(
            str(count), str(plan.degree), str(plan.threshold), f"{median(cost.up):,.0f}",
            f"{median(cost.down):,.0f}", f"{cost.share_s:.4f}", f"{cost.receive_s:.4f}",
            f"{cost.agree_s:.4f}", f"{cost.unmask_s:.2f}",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--values", type=float, default=1e7)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    if "masks" in options.parts:
        masks(int(options.values))
    if "shares" in options.parts:
        shares(options.clients)
    if "rounds" in options.parts:
        rounds(options.clients)


if __name__ == "__main__":
    main()
