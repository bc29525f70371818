"""Token buckets: how much may come, at once and over time."""

import time
from dataclasses import dataclass, field

# Refused joins, or questions, of one address: so many at once, then one a second. More
# addresses than that are forgotten, the oldest first.
CALLS, CALLS_PER_S, ADDRESSES = 100, 1.0, 10_000


@dataclass
class Bucket:
    """Holds `capacity` tokens, and is refilled with `per_s` tokens a second."""

    capacity: float
    per_s: float
    _spent: float = 0.0
    _at_s: float = 0.0

    def take(self, tokens: float, now_s: float) -> bool:
        """Take tokens if they are there, and tell whether they were."""
        spent = self.spent(now_s) + tokens
        if spent > self.capacity:
            return False
        self._spent, self._at_s = spent, now_s
        return True

    def spent(self, now_s: float) -> float:
        """Return how many tokens are missing."""
        return max(self._spent - (now_s - self._at_s) * self.per_s, 0.0)


@dataclass(frozen=True)
class TurnedAway:
    """Streams of one address that were refused for one reason.

    Attributes
    ----------
    peer : str
        The address, and the port that the last one came from.
    at : int
        When that was, in seconds since 1970.
    """

    peer: str
    reason: str
    at: int
    times: int


@dataclass
class AddressCounts:
    """Counts calls of each address."""

    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def count(self, address: str) -> None:
        """Remember a call."""
        bucket = self._buckets.pop(address, None) or Bucket(CALLS, CALLS_PER_S)
        bucket.take(1, time.monotonic())
        self._buckets[address] = bucket
        if len(self._buckets) > ADDRESSES:
            del self._buckets[next(iter(self._buckets))]

    def are_too_many(self, address: str) -> bool:
        """Tell whether no more of this address is to be answered for now."""
        bucket = self._buckets.get(address)
        return bucket is not None and bucket.spent(time.monotonic()) > CALLS - 1
