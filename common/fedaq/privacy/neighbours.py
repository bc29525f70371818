"""Who shares masks with whom, and how many must stay.

Up to `MOST_COMPLETE` clients, all do. Beyond, each has `degree` neighbours in a circle that is
drawn anew in each round, as in SecAgg+ (eprint 2020/704): what a client sends and computes grows
with their number, which hardly grows with that of all clients.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from math import comb

FEWEST = 3
MOST_COMPLETE = 50
# Of all clients, this share may drop out, and that one may side with the server.
_DROPPED, _COLLUDING = 3, 10
# A round fails for want of shares, or gives a client away, with no more than these chances.
_FAILS, _LEAKS = 2**20, 2**40


@dataclass(frozen=True)
class Circle:
    """How many neighbours each client has, and how many holders join a secret of its.

    A secret is held by the client itself and its neighbours. `threshold` is more than half of
    these, so that no two sets of holders can be asked for one secret each without a holder in
    both, who refuses.

    Attributes
    ----------
    degree, threshold : int
    """

    degree: int
    threshold: int


@lru_cache(maxsize=256)
def circle_of(clients: int) -> Circle:
    """Return what a round of so many clients takes.

    Raises
    ------
    ValueError
        If they are fewer than `FEWEST`.
    """
    if clients < FEWEST:
        raise ValueError(f"{clients} clients; at least {FEWEST} hide each other")
    if clients > MOST_COMPLETE:
        for degree in range(2, clients - 1, 2):
            threshold = degree // 2 + 1
            if _is_enough(clients, degree, threshold):
                return Circle(degree, threshold)
    return Circle(clients - 1, clients - clients // _DROPPED)


def neighbours(members: Collection[int], degree: int, salt: bytes) -> dict[int, tuple[int, ...]]:
    """Return the neighbours of each member, in the order of their numbers.

    The circle follows from `salt`, which names the run and the round, so that whoever knows the
    members can draw it.
    """
    size = len(members)
    if degree >= size - 1:
        return {one: tuple(sorted(set(members) - {one})) for one in members}
    order = sorted(members, key=lambda one: blake2b(salt + one.to_bytes(8, "big")).digest())
    reach = [step for half in range(1, degree // 2 + 1) for step in (-half, half)]
    return {
        one: tuple(sorted(order[(at + step) % size] for step in reach))
        for at, one in enumerate(order)
    }


def _is_enough(clients: int, degree: int, threshold: int) -> bool:
    """Tell whether the secrets of all clients can be joined, and by nobody else."""
    others, stay = clients - 1, clients - clients // _DROPPED
    colluding = clients // _COLLUDING
    ways = comb(others, degree)
    lost = sum(_ways(stay, others - stay, i, degree) for i in range(threshold))
    taken = sum(
        _ways(colluding, others - colluding, i, degree) for i in range(threshold, degree + 1)
    )
    return clients * lost * _FAILS <= ways and clients * taken * _LEAKS <= ways


def _ways(good: int, bad: int, of_good: int, drawn: int) -> int:
    return comb(good, of_good) * comb(bad, drawn - of_good)
