"""The masks that are left in a sum, from the shares that clients revealed."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from random import SystemRandom

from fedaq.privacy.keys import PublicKeys, agreed, digest_of_seed, mask_key, public_of
from fedaq.privacy.masks import Mask
from fedaq.privacy.member import own_mask_seed, pair_sign, pair_use
from fedaq.privacy.shares import join

Revealed = Mapping[int, Mapping[int, bytes]]
# Of sets of holders, where shares do not fit.
_TRIES = 2000


class UnfitSharesError(Exception):
    """The secret of a client cannot be joined from the shares of it.

    Attributes
    ----------
    number : int
        The client's.
    dealt : bool
        Whether it seems to have dealt them so: there were more than it takes, and no choice of them
        fits.
    """

    def __init__(self, number: int, *, dealt: bool) -> None:
        super().__init__(f"the shares of client {number} do not fit")
        self.number, self.dealt = number, dealt


@dataclass(frozen=True)
class Left:
    """What must be taken off a sum, and who revealed shares that do not fit.

    Attributes
    ----------
    masks : tuple of Mask
        To be applied to the sum of the masked updates.
    liars : frozenset of int
        Of those whose shares were needed.
    """

    masks: tuple[Mask, ...]
    liars: frozenset[int]


def left_in_sum(
    context: bytes,
    keys: Mapping[int, PublicKeys],
    circle: Mapping[int, Collection[int]],
    counted: Collection[int],
    threshold: int,
    revealed: Revealed,
) -> Left:
    """Return the masks that do not cancel in the sum of the updates that count.

    Parameters
    ----------
    context : bytes
        Of the run and the round.
    keys : mapping of int to PublicKeys
        Of all clients that masked, or were to.
    circle : mapping of int to collection of int
        The neighbours of each among them.
    counted : collection of int
        Whose updates are in the sum.
    threshold : int
        How many shares join a secret.
    revealed : mapping of int to mapping of int to bytes
        By holder, then by whose secret: the share.

    Raises
    ------
    UnfitSharesError
        If a secret cannot be joined.
    """
    counts = set(counted)
    gone = [one for one in sorted(keys.keys() - counts) if counts & set(circle[one])]
    masks: list[Mask] = []
    liars: set[int] = set()
    for one in sorted(counts):
        seed, lied = _joined(one, revealed, threshold, digest_of_seed, keys[one].seed_digest)
        liars |= lied
        masks.append(Mask(own_mask_seed(seed, context), -1))
    for one in gone:
        secret, lied = _joined(one, revealed, threshold, _public_mask_key, keys[one].mask)
        liars |= lied
        key = mask_key(secret)
        masks += [
            Mask(agreed(key, keys[other].mask, pair_use(context)), -pair_sign(other, one))
            for other in sorted(counts & set(circle[one]))
        ]
    return Left(tuple(masks), frozenset(liars))


def _joined(
    number: int,
    revealed: Revealed,
    threshold: int,
    known_of: Callable[[bytes], bytes],
    known: bytes,
) -> tuple[bytes, set[int]]:
    """Return a client's secret, and, if shares of it did not fit, who revealed those.

    `known` is what `known_of` makes of the right secret.
    """
    shares = {holder: said[number] for holder, said in sorted(revealed.items()) if number in said}
    if len(shares) < threshold:
        raise UnfitSharesError(number, dealt=False)
    for chosen in _choices(list(shares), threshold):
        secret = join({holder: shares[holder] for holder in chosen})
        if secret is not None and known_of(secret) == known:
            # While nobody's share is in the way, nobody is looked for.
            is_first = list(chosen) == list(shares)[:threshold]
            return secret, set() if is_first else _others(shares, chosen, secret)
    raise UnfitSharesError(number, dealt=len(shares) > threshold)


def _public_mask_key(secret: bytes) -> bytes:
    return public_of(mask_key(secret))


def _choices(holders: list[int], threshold: int) -> Iterator[Sequence[int]]:
    """Yield as many holders as it takes; those that lie are left out of some of these.

    All choices where they are no more than `_TRIES`.
    """
    if comb(len(holders), threshold) <= _TRIES:
        yield from combinations(holders, threshold)
        return
    yield holders[:threshold]
    draw = SystemRandom()
    for _ in range(_TRIES):
        yield sorted(draw.sample(holders, threshold))


def _others(shares: Mapping[int, bytes], chosen: Sequence[int], secret: bytes) -> set[int]:
    """Return the holders, of those who were not chosen, whose shares make another secret."""
    exact = chosen[:-1]
    return {
        holder
        for holder in shares.keys() - set(chosen)
        if join({one: shares[one] for one in (*exact, holder)}) != secret
    }
