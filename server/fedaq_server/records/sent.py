"""What is kept of the differences that clients were sent: the facts, and where the files lie.

The messages of differences lie in segments. Each begins with a snapshot of what clients held
before its first difference; the first one has none, for there they held the model of the seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Difference:
    """One difference that was sent: where its messages lie, and where it leads from.

    Attributes
    ----------
    number : int
        How many were sent before it in the run.
    base : bytes
        Digest of the model before it.
    payload_bytes : int
        What it costs to send.
    segment : int
        Number of the first difference in its file.
    start : int
        Offset of its messages in the file.
    lengths : tuple of int
        Bytes of each message: a header, then chunks.
    """

    number: int
    base: bytes
    payload_bytes: int
    segment: int
    start: int
    lengths: tuple[int, ...]

    @property
    def end(self) -> int:
        """Offset of what follows it in the file."""
        return self.start + sum(self.lengths)


@dataclass(frozen=True)
class Snapshot:
    """What clients held after `number` differences, and the digest of it."""

    number: int
    digest: bytes


@dataclass(frozen=True)
class Sent:
    """All that a run keeps of what it has sent.

    Attributes
    ----------
    differences : tuple of Difference
        The last ones, without a gap.
    snapshot : Snapshot, optional
        The last one; None before the first.
    digest : bytes
        Of what clients held after all of them; empty where that is not known.
    """

    differences: tuple[Difference, ...] = ()
    snapshot: Snapshot | None = None
    digest: bytes = b""

    @property
    def count(self) -> int:
        """How many differences were sent in the run."""
        return self.differences[-1].number + 1 if self.differences else 0

    @property
    def segment(self) -> int:
        """The segment that further differences go to."""
        return 0 if self.snapshot is None else self.snapshot.number

    @property
    def end(self) -> int:
        """Where in the segment they go to."""
        last = self.differences[-1] if self.differences else None
        return last.end if last is not None and last.segment == self.segment else 0

    @property
    def since_snapshot(self) -> tuple[Difference, ...]:
        """The differences that the snapshot does not have."""
        segment = self.segment
        return tuple(each for each in self.differences if each.number >= segment)

    def without_old(self, most_bytes: int) -> "Sent":
        """Return it without the differences before the snapshot from which on all cost so much.

        The last difference is kept whatever it costs.
        """
        segment, total, too_old = self.segment, sum(d.payload_bytes for d in self.differences), 0
        for difference in self.differences[:-1]:
            if difference.number >= segment or total < most_bytes:
                break
            total -= difference.payload_bytes
            too_old += 1
        return replace(self, differences=self.differences[too_old:])


def segment_path(folder: Path, segment: int) -> Path:
    """Return where the messages of a segment lie."""
    return folder / f"differences-{segment:06}.bin"


def snapshot_path(folder: Path, number: int) -> Path:
    """Return where a snapshot lies."""
    return folder / f"held-{number:06}.bin"


def needed(folder: Path, sent: Sent) -> Iterator[Path]:
    """Yield the files without which a run that has sent this cannot go on."""
    for segment in {sent.segment, *(difference.segment for difference in sent.differences)}:
        yield segment_path(folder, segment)
    if sent.snapshot is not None:
        yield snapshot_path(folder, sent.snapshot.number)
