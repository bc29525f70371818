"""What clients hold, and the differences that led there.

With ``coding.downlink = difference`` the server sends what its model gained on the one
that up-to-date clients hold, quantized. What rounding lost is in the next difference
(error feedback), so the codes may be rounded to the nearest. A client shows by a digest
what it holds; one that missed models is sent what it missed, or the whole model where
that is shorter. So differences that cost as much as the whole model are too old for everybody,
and are dropped; a snapshot of what clients hold takes their place for a run that is resumed.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BufferedRandom
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from fedaq.codec import chunks, coding, headers, holding, model, payload, statistics
from fedaq.codec.chunks import Chunk
from fedaq.codec.coding import Content
from fedaq.codec.given import Past
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import RAW, Payload
from fedaq.codec.quantizer import Floats
from fedaq.codec.statistics import Scaled
from fedaq.errors import ProtocolError, UserError
from fedaq.files import naming, replacing
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.lost import from_last_model
from fedaq_server.records.sent import Difference, Sent, Snapshot, segment_path, snapshot_path

# Differences since the last snapshot, and how many whole models they may cost: what a run that is
# resumed adds up, at the most, and what it needs on the disk. A snapshot takes as long to write as
# the model of a round does.
MOST_SINCE, MODELS_SINCE = 100, 4
# However many clients there are, chunks are no shorter, unless the settings say so.
LEAST_CHUNK_BYTES = 64 * 1024
# What stands around a past in a chunk, at the most.
PAST_OVERHEAD = 8


@dataclass(frozen=True)
class CatchUp:
    """How a client that is behind is brought to the model before this round's difference.

    Attributes
    ----------
    missed : tuple of Difference
        In their order; empty for a client that is up to date.
    whole : bool
        Send the whole model of this round instead, and no difference.
    ahead : bool
        It holds a model that the server does not know: perhaps that of this very round, if it was
        begun before the server was stopped. Then it needs nothing, else the whole model.
    payload_bytes : int
        What that costs beyond this round's difference.
    """

    missed: tuple[Difference, ...] = ()
    whole: bool = False
    ahead: bool = False
    payload_bytes: int = 0


UP_TO_DATE = CatchUp()


@dataclass
class History:
    """The model that up-to-date clients hold, and how to get there.

    Parameters
    ----------
    spec : ModelSpec
    held : float32, shape (parameters,)
        What clients build from the run's seed at first, then what was broadcast.
    folder : Path
        The folder of the run, for the files.
    sent : Sent
        What is kept of what was sent. Of a run that goes on, the files are there, and `held`
        becomes what clients then hold.
    chunk_bytes : int
        All chunks of a payload but the last will be so long at least.

    Raises
    ------
    UserError
        If the files are not those of what was sent.
    """

    spec: ModelSpec
    held: Floats
    folder: Path
    sent: Sent = field(default_factory=Sent)
    chunk_bytes: int = LEAST_CHUNK_BYTES
    digest: bytes = b""
    _before: Floats | None = None

    def __post_init__(self) -> None:
        self.past = Past.none(self.spec.parameters)
        for difference in self.sent.differences:
            self._check_file(difference)
        if self.sent.snapshot is not None:
            self._read_snapshot(self.sent.snapshot)
        for difference in self.sent.since_snapshot:
            last = difference is self.sent.differences[-1]
            if last and not self._is_held(difference.base):
                raise _other(self._path(difference))
            try:
                self._replay(self._messages(difference))
            except (ValueError, DecodeError, ProtocolError):
                raise _other(self._path(difference)) from None
        self.digest = model.digest(self.held, self.past.noted)
        if self.sent.digest not in (b"", self.digest):
            # Of a version that knew no past: its clients have none either.
            self.past.noted.fill(0)
            self.digest = model.digest(self.held)
            if self.sent.digest != self.digest:
                raise _other(segment_path(self.folder, self.sent.segment))
        self._file = self._opened()

    @cached_property
    def whole_bytes(self) -> int:
        """Payload bytes of the whole model, raw, at the most: with a past that has no pattern."""
        header = self._whole()
        # A chunk ends where a value does.
        most_chunks = header.code_bytes // max(self.chunk_bytes - 3, 1) + 1
        return header.payload_bytes + self.spec.parameters // 2 + PAST_OVERHEAD * most_chunks

    def catch_up(self, holds: bytes, count: int) -> CatchUp:
        """Return the shorter way from what a client holds to what it should hold.

        Parameters
        ----------
        holds : bytes
            Digest of what the client holds; empty for nothing.
        count : int
            It should have had so many differences: all, or all before that of the round that it
            returns to.
        """
        sent = self.sent
        place = len(sent.differences) - (sent.count - count)
        at = self.digest if count == sent.count else sent.differences[place].base
        # A difference that it has already does not disturb it.
        if holds in (at, self.digest):
            return UP_TO_DATE
        missed_bytes = 0
        for first in reversed(range(place)):
            missed_bytes += sent.differences[first].payload_bytes
            if missed_bytes >= self.whole_bytes:
                break
            if sent.differences[first].base == holds:
                return CatchUp(sent.differences[first:place], payload_bytes=missed_bytes)
        return self.whole()

    def whole(self) -> CatchUp:
        """Return the way for a client of which nothing is known."""
        return CatchUp(whole=True, payload_bytes=self.whole_bytes)

    def gain(self, ahead: Floats) -> Scaled:
        """Return what the model `ahead` has gained on `held`, as it is coded.

        It holds until the next difference is added whole.
        """
        return Scaled(self.spec, ahead, self.held)

    def add(self, header: Payload, content: Content) -> None:
        """Add to `held` what one chunk of a new difference stands for.

        Until it was added whole, `held` has no statistics.
        """
        if self._before is None:
            self._before = statistics.taken_out(self.spec, self.held)
        holding.add_difference(header, content, self.held, self.past)

    def _added(self, header: Payload) -> None:
        self.past.remember_nothing(header)
        if self._before is not None:
            statistics.put_back(self.spec, self.held, self._before)
        self._before = None

    def _is_held(self, digest: bytes) -> bool:
        """Tell whether a digest is that of what clients hold, or, of older runs, of its values."""
        return digest == model.digest(self.held, self.past.noted) or digest == model.digest(
            self.held
        )

    def advance(self, header: Payload, frames: Iterable[bytes], payload_bytes: int) -> None:
        """Remember the messages of a difference that was added whole.

        Parameters
        ----------
        header : Payload
        frames : iterable of bytes
            Serialized server messages: the header, then the chunks.
        payload_bytes : int
        """
        sent = self.sent
        self._added(header)
        with naming(segment_path(self.folder, sent.segment)):
            self._file.seek(sent.end)
            lengths = tuple(map(self._file.write, frames))
            # They are read through other handles.
            self._file.flush()
        difference = Difference(
            sent.count, self.digest, payload_bytes, sent.segment, sent.end, lengths
        )
        self.digest = model.digest(self.held, self.past.noted)
        self.sent = replace(sent, differences=(*sent.differences, difference), digest=self.digest)

    def settle(self) -> None:
        """Bring what was sent to the disk, before its round is committed; drop what is too old."""
        with naming(segment_path(self.folder, self.sent.segment)):
            os.fsync(self._file.fileno())
        since = self.sent.since_snapshot
        since_bytes = sum(difference.payload_bytes for difference in since)
        if len(since) >= MOST_SINCE or since_bytes >= MODELS_SINCE * self.whole_bytes:
            self._take_snapshot()
        # From there on `catch_up` sends the whole model.
        self.sent = self.sent.without_old(self.whole_bytes)

    async def frames(self, missed: Iterable[Difference], worker: Executor) -> AsyncIterator[bytes]:
        """Yield the messages of differences that were sent before."""
        loop = asyncio.get_running_loop()
        for difference in missed:
            at = difference.start
            for length in difference.lengths:
                yield await loop.run_in_executor(worker, _read, self._path(difference), at, length)
                at += length

    async def whole_frames(
        self, round_number: int, chunk_bytes: int, worker: Executor
    ) -> AsyncIterator[tuple[bytes, int]]:
        """Yield the messages of the whole model that is held, raw and exact, and their bytes."""
        header = self._whole()
        announcement = pb.ServerMessage(model=payload.to_message(header, round_number))
        yield announcement.SerializeToString(), header.header_bytes
        loop = asyncio.get_running_loop()
        for offset, length in header.chunks(chunk_bytes):
            yield await loop.run_in_executor(
                worker, self._whole_chunk, header, round_number, offset, length
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _path(self, difference: Difference) -> Path:
        return segment_path(self.folder, difference.segment)

    def _opened(self) -> BufferedRandom:
        """Open the segment that is being written; what was not committed of it is made anew."""
        path, end = segment_path(self.folder, self.sent.segment), self.sent.end
        try:
            file = path.open("r+b" if end else "w+b")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None
        file.truncate(end)
        return file

    def _take_snapshot(self) -> None:
        number = self.sent.count
        path = snapshot_path(self.folder, number)
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(self.held.astype("<f4", copy=False).data)
            file.write(self.past.noted.data)
        self.sent = replace(self.sent, snapshot=Snapshot(number, self.digest))
        self._file.close()
        self._file = self._opened()

    def _read_snapshot(self, snapshot: Snapshot) -> None:
        path = snapshot_path(self.folder, snapshot.number)
        try:
            with path.open("rb") as file:
                values = np.fromfile(file, "<f4", self.held.size)
                past = np.fromfile(file, np.uint8)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        # Versions that knew no past wrote none.
        if values.size != self.held.size or past.size not in (0, self.past.noted.size):
            raise _other(path)
        self.held[:] = values
        self.past.noted[: past.size] = past
        if model.digest(self.held, self.past.noted) != snapshot.digest:
            raise _other(path)

    def _check_file(self, difference: Difference) -> None:
        path = self._path(difference)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        if size < difference.end:
            raise _other(path)

    def _messages(self, difference: Difference) -> list[bytes]:
        with self._path(difference).open("rb") as file:
            file.seek(difference.start)
            return [file.read(length) for length in difference.lengths]

    def _replay(self, messages: list[bytes]) -> None:
        announcement = pb.ServerMessage.FromString(messages[0]).model
        header = headers.from_message(self.spec, announcement)
        for message in messages[1:]:
            chunk = chunks.parse(message, pb.ServerMessage)
            if not isinstance(chunk, Chunk):
                raise ValueError("not a chunk")
            self.add(header, coding.decode(header, chunk, self.past))
        self._added(header)

    def _whole(self) -> Payload:
        return Payload(self.spec, (RAW,) * len(self.spec.tensors))

    def _whole_chunk(
        self, header: Payload, round_number: int, offset: int, length: int
    ) -> tuple[bytes, int]:
        values_at = self.held.__getitem__
        chunk, _ = coding.encode(header, values_at, (), offset, length, round_number, squeeze=False)
        chunk = holding.with_past(header, chunk, self.past)
        return chunk.frame(pb.ServerMessage), chunk.cost_bytes


def _read(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _other(path: Path) -> UserError:
    return UserError(
        f"{path}: damaged, it holds other differences than the ledger beside it; "
        + from_last_model(path.parent)
    )
