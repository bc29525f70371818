"""Secrets shared among holders, any `threshold` of whom can join them (Shamir 1979).

A secret is the value at 0 of a random polynomial over a prime field, a share its value at the
holder's number. Libraries for this work bit by bit in Python; integers of Python's are faster by
two orders (benchmarks/masks.py).
"""

import secrets
from collections.abc import Collection, Mapping
from functools import lru_cache

SECRET_BYTES = 16
SHARE_BYTES = 17
# The least above all secrets.
PRIME = 2**128 + 51


def split(secret: bytes, holders: Collection[int], threshold: int) -> dict[int, bytes]:
    """Share a secret out.

    Parameters
    ----------
    secret : bytes
        `SECRET_BYTES` of them.
    holders : collection of int
        Their numbers, from 1.
    threshold : int
        How many of them can join it; fewer learn nothing.

    Returns
    -------
    dict of int to bytes
        The share of each holder, `SHARE_BYTES` long.

    Raises
    ------
    ValueError
        If the secret has another length, or no such sharing can be.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes; {SECRET_BYTES} are shared")
    if not 1 <= threshold <= len(holders) or min(holders) < 1:
        raise ValueError(f"{threshold} of {len(holders)} holders, numbered from {min(holders)}")
    highest_first = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    highest_first.append(int.from_bytes(secret, "big"))
    return {
        holder: _value(highest_first, holder).to_bytes(SHARE_BYTES, "big") for holder in holders
    }


def join(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret of which these are the shares, as many as its threshold.

    None if they are shares of none: too long, or beyond the field, or of no such secret.
    """
    values = [int.from_bytes(share, "big") for share in shares.values()]
    if not all(is_share(share) for share in shares.values()):
        return None
    factors = _factors_at_zero(tuple(shares))
    secret = sum(value * factor for value, factor in zip(values, factors, strict=True)) % PRIME
    return None if secret >> 8 * SECRET_BYTES else secret.to_bytes(SECRET_BYTES, "big")


def is_share(share: bytes) -> bool:
    """Tell whether bytes can be a share."""
    return len(share) == SHARE_BYTES and int.from_bytes(share, "big") < PRIME


def _value(highest_first: list[int], at: int) -> int:
    value = 0
    for coefficient in highest_first:
        value = (value * at + coefficient) % PRIME
    return value


# Of one round, secrets of the same holders are joined one after another.
@lru_cache(maxsize=256)
def _factors_at_zero(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Return what the values at these numbers count in the value at 0 (Lagrange)."""
    below = []
    for number in numbers:
        product = number
        for other in numbers:
            if other != number:
                product = product * (other - number) % PRIME
        below.append(product)
    above = 1
    for number in numbers:
        above = above * number % PRIME
    return tuple(above * inverse % PRIME for inverse in _inverses(below))


def _inverses(numbers: list[int]) -> list[int]:
    """Return the inverses of numbers other than 0, for the price of one (Montgomery)."""
    products = [1]
    for number in numbers:
        products.append(products[-1] * number % PRIME)
    inverse = pow(products[-1], -1, PRIME)
    found = []
    for number, before in zip(reversed(numbers), reversed(products[:-1]), strict=True):
        found.append(inverse * before % PRIME)
        inverse = inverse * number % PRIME
    return found[::-1]
