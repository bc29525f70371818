"""A masked update on disk for as long as its round lasts: only then it is known who counts."""

import tempfile
from pathlib import Path

from fedaq.codec.chunks import Chunk
from fedaq.errors import ProtocolError
from fedaq.files import naming
from fedaq.v1 import federation_pb2 as pb


class Incoming:
    """The bytes of one masked update in an unnamed file.

    Parameters
    ----------
    size : int
        How many are due.
    folder : Path
        Where the file is.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._size, self._folder = size, folder
        with naming(folder):
            # Without a buffer: what could not be written is not tried again later.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self.received = 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.received == self._size

    def add(self, chunk: Chunk) -> None:
        """Keep a chunk.

        Raises
        ------
        ProtocolError
            If it is not the next one, or no chunk of a masked update.
        OSError
            If it cannot be kept on the disk.
        """
        if chunk.offset != self.received:
            raise ProtocolError(
                pb.REFUSAL_REASON_OUT_OF_ORDER,
                f"a chunk for byte {chunk.offset} arrived; byte {self.received} is next",
            )
        if not chunk.data or chunk.code_bytes or chunk.coded_bytes or chunk.past:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE, "a chunk of a masked update has data alone"
            )
        if self.received + len(chunk.data) > self._size:
            raise ProtocolError(
                pb.REFUSAL_REASON_WRONG_SIZE, f"a masked update has {self._size} bytes, no more"
            )
        with naming(self._folder):
            left = memoryview(chunk.data)
            while left:
                left = left[self._file.write(left) :]
        self.received += len(chunk.data)

    def rewind(self) -> None:
        """Let `read` begin with the first byte."""
        self._file.seek(0)

    def read(self, size: int) -> bytes:
        """Return the next bytes, as many as this."""
        with naming(self._folder):
            data = self._file.read(size)
        assert data is not None
        return data

    def close(self) -> None:
        """Give the file back."""
        self._file.close()
