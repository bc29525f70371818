"""Secrets come back from enough shares, and from no fewer; wrong shares are known."""

import secrets
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaq.privacy import shares
from fedaq.privacy.shares import PRIME, SHARE_BYTES, join, split

SECRETS = st.binary(min_size=16, max_size=16)


def test_the_field_is_the_least_above_all_secrets() -> None:
    def is_prime(number: int) -> bool:
        # Miller and Rabin, with bases at random: a composite passes with chance 4**-40.
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for _ in range(40):
            x = pow(secrets.randbelow(number - 3) + 2, odd, number)
            passes = x in (1, number - 1)
            for _ in range(twos - 1):
                x = x * x % number
                passes = passes or x == number - 1
            if not passes:
                return False
        return True

    assert is_prime(PRIME)
    assert not any(is_prime(number) for number in range(2**128 + 1, PRIME, 2))


@settings(max_examples=60, deadline=None)
@given(secret=SECRETS, data=st.data())
def test_any_threshold_of_the_holders_joins_the_secret(secret: bytes, data: st.DataObject) -> None:
    holders = data.draw(st.sets(st.integers(1, 10_000), min_size=1, max_size=12))
    threshold = data.draw(st.integers(1, len(holders)))
    shared = split(secret, holders, threshold)
    assert shared.keys() == holders
    assert all(len(share) == SHARE_BYTES for share in shared.values())
    chosen = data.draw(st.permutations(sorted(holders)))[:threshold]
    assert join({holder: shared[holder] for holder in chosen}) == secret


@settings(max_examples=30, deadline=None)
@given(secret=SECRETS, seed=st.integers(0, 2**32))
def test_one_wrong_share_makes_another_secret(secret: bytes, seed: int) -> None:
    shared = split(secret, range(1, 6), 3)
    chosen = {holder: shared[holder] for holder in (1, 3, 5)}
    wrong = (int.from_bytes(shared[3], "big") + 1 + Random(seed).randrange(PRIME - 1)) % PRIME
    assert join({**chosen, 3: wrong.to_bytes(SHARE_BYTES, "big")}) != secret


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """With one share missing, each secret has a last share that leads to it."""
    secret, other = bytes(range(16)), bytes(16)
    shared = split(secret, (1, 2, 3), 3)
    known = {1: shared[1], 2: shared[2]}
    factors = shares._factors_at_zero((1, 2, 3))
    sum_of_known = sum(
        int.from_bytes(share, "big") * factor
        for share, factor in zip(known.values(), factors[:2], strict=True)
    )
    wanted = int.from_bytes(other, "big")
    last = (wanted - sum_of_known) * pow(factors[2], -1, PRIME) % PRIME
    assert join({**known, 3: last.to_bytes(SHARE_BYTES, "big")}) == other


def test_shares_of_one_secret_differ_each_time() -> None:
    assert split(bytes(16), (1, 2), 2) != split(bytes(16), (1, 2), 2)


@pytest.mark.parametrize("share", [b"", bytes(16), bytes(18), PRIME.to_bytes(17, "big")])
def test_what_is_no_share_joins_nothing(share: bytes) -> None:
    assert join({1: share}) is None


@pytest.mark.parametrize(("holders", "threshold"), [((1, 2), 3), ((1, 2), 0), ((0, 1), 1)])
def test_sharings_that_cannot_be_are_refused(holders: tuple[int, ...], threshold: int) -> None:
    with pytest.raises(ValueError):
        split(bytes(16), holders, threshold)
    with pytest.raises(ValueError, match="a secret of 15 bytes"):
        split(bytes(15), (1, 2), 2)
