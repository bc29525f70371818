"""What clients hold, and the differences that led there.

With ``coding.downlink = difference`` the server sends what its model gained on the one
that up-to-date clients hold, quantized. What rounding lost is in the next difference
(error feedback), so the codes may be rounded to the nearest. A client shows by a digest
what it holds; one that missed models is sent what it missed, or the whole model where
that is shorter.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from fedaq.codec import chunks, coding, headers, model, payload
from fedaq.codec.chunks import Chunk
from fedaq.codec.coding import Content
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import RAW, Payload
from fedaq.codec.quantizer import Floats
from fedaq.errors import UserError
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.records.ledger import Difference


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
    path : Path
        The file that holds the messages.
    differences : list of Difference
        Those that were sent. Of a run that goes on, they lie in the file already, and are added
        to `held`, which then is what clients build from the seed.

    Raises
    ------
    UserError
        If the file is not that of the differences.
    """

    spec: ModelSpec
    held: Floats
    path: Path
    digest: bytes = b""
    differences: list[Difference] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._file = self.path.open("r+b" if self.differences else "w+b")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None
        for difference in self.differences:
            if difference is self.differences[-1] and model.digest(self.held) != difference.base:
                raise UserError(f"{self.path}: holds other differences than the ledger beside it")
            self._replay(self._messages(difference))
        # What a round had begun to send before the server was stopped is made anew.
        self._file.truncate(self._end)
        self.digest = model.digest(self.held)

    @property
    def whole_bytes(self) -> int:
        """Payload bytes of the whole model, raw."""
        return self._whole().payload_bytes

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
        at = self.digest if count == len(self.differences) else self.differences[count].base
        # A difference that it has already does not disturb it.
        if holds in (at, self.digest):
            return UP_TO_DATE
        missed: list[Difference] = []
        known = False
        for difference in reversed(self.differences[:count]):
            if known:
                break
            missed.insert(0, difference)
            known = difference.base == holds
        missed_bytes = sum(difference.payload_bytes for difference in missed)
        if known and missed_bytes < self.whole_bytes:
            return CatchUp(tuple(missed), payload_bytes=missed_bytes)
        return self.whole()

    def whole(self) -> CatchUp:
        """Return the way for a client of which nothing is known."""
        return CatchUp(whole=True, payload_bytes=self.whole_bytes)

    def gain(self, ahead: Floats, part: slice) -> Floats:
        """Return what the model `ahead` has gained on `held` at a slice of both."""
        gained: Floats = ahead[part] - self.held[part]
        return gained

    def add(self, header: Payload, content: Content) -> None:
        """Add to `held` what one chunk of a new difference stands for."""
        coding.write(header, content, self.held, add=True)

    def advance(self, frames: Iterable[bytes], payload_bytes: int) -> None:
        """Remember the messages of a difference that was added whole.

        Parameters
        ----------
        frames : iterable of bytes
            Serialized server messages: the header, then the chunks.
        payload_bytes : int
        """
        start = self._file.seek(self._end)
        lengths = tuple(map(self._file.write, frames))
        self.differences.append(Difference(self.digest, payload_bytes, start, lengths))
        self.digest = model.digest(self.held)

    def flush(self) -> None:
        """Bring all messages to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    async def frames(self, missed: Iterable[Difference], worker: Executor) -> AsyncIterator[bytes]:
        """Yield the messages of differences that were sent before."""
        loop = asyncio.get_running_loop()
        for difference in missed:
            at = difference.start
            for length in difference.lengths:
                yield await loop.run_in_executor(worker, self._read, at, length)
                at += length

    async def whole_frames(
        self, round_number: int, chunk_bytes: int, worker: Executor
    ) -> AsyncIterator[bytes]:
        """Yield the messages of the whole model that is held, raw and exact."""
        header = self._whole()
        announcement = pb.ServerMessage(model=payload.to_message(header, round_number))
        yield announcement.SerializeToString()
        loop = asyncio.get_running_loop()
        for offset, length in header.chunks(chunk_bytes):
            yield await loop.run_in_executor(
                worker, self._whole_chunk, header, round_number, offset, length
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def _end(self) -> int:
        if not self.differences:
            return 0
        return self.differences[-1].start + sum(self.differences[-1].lengths)

    def _messages(self, difference: Difference) -> list[bytes]:
        self._file.seek(difference.start)
        return [self._file.read(length) for length in difference.lengths]

    def _replay(self, messages: list[bytes]) -> None:
        announcement = pb.ServerMessage.FromString(messages[0]).model
        header = headers.from_message(self.spec, announcement)
        for message in messages[1:]:
            chunk = chunks.parse(message, pb.ServerMessage)
            assert isinstance(chunk, Chunk)
            self.add(header, coding.decode(header, chunk))

    def _read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        return self._file.read(length)

    def _whole(self) -> Payload:
        return Payload(self.spec, (RAW,) * len(self.spec.tensors))

    def _whole_chunk(self, header: Payload, round_number: int, offset: int, length: int) -> bytes:
        values_at = self.held.__getitem__
        chunk, _ = coding.encode(header, values_at, (), offset, length, round_number, squeeze=False)
        return chunk.frame(pb.ServerMessage)
