"""An update on disk for as long as its round lasts: what an undo or a median needs again."""

import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from fedaq.codec.coding import Codes, Content
from fedaq.codec.kernels import GROUP
from fedaq.codec.payload import Payload, Piece
from fedaq.codec.quantizer import Floats, packed_bytes
from fedaq.files import naming


@dataclass(frozen=True)
class _Kept:
    """A run of codes in the file."""

    piece: Piece
    width: int
    offset: int

    @property
    def size(self) -> int:
        return packed_bytes(self.piece.values, self.width)


def _begins(kept: _Kept) -> tuple[int, int]:
    return kept.piece.tensor, kept.piece.first


class Spool:
    """The codes of one update in an unnamed file, in the form in which they arrived.

    Parameters
    ----------
    header : Payload
        How the update is coded.
    folder : Path
        Where the file is.
    """

    def __init__(self, header: Payload, folder: Path) -> None:
        self.header = header
        self._folder = folder
        with naming(folder):
            # Without a buffer: what could not be written is not tried again later.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._kept: list[_Kept] = []
        self._end = 0

    def keep(self, content: Content) -> None:
        """Add the codes of the next chunk, or raise an OSError and add none of them."""
        kept, end = [], self._end
        for piece, codes in content:
            kept.append(_Kept(piece, codes.width, end))
            end += codes.data.size
        with naming(self._folder):
            self._file.seek(self._end)
            left = memoryview(b"".join(codes.data.data for _, codes in content))
            while left:
                left = left[self._file.write(left) :]
        self._kept += kept
        self._end = end

    def content(self) -> Iterator[tuple[Piece, Codes]]:
        """Yield what was kept, in its order."""
        for kept in self._kept:
            yield kept.piece, self._codes(kept, 0, kept.piece.values)

    def read(self, tensor: int, first: int, out: Floats) -> None:
        """Write values of a tensor, from number `first` on, to `out`; 0 where nothing was sent."""
        out.fill(0)
        last = first + out.size
        # Runs are kept in the order of the payload; the one before may reach into what is wanted.
        at = max(bisect_right(self._kept, (tensor, first), key=_begins) - 1, 0)
        for kept in islice(self._kept, at, None):
            begin, end = kept.piece.first, kept.piece.first + kept.piece.values
            if _begins(kept) >= (tensor, last):
                break
            if kept.piece.tensor != tensor or end <= first:
                continue
            wanted = slice(max(first, begin), min(last, end))
            # Codes are read from the beginning of a group on.
            before = (wanted.start - begin) % GROUP
            values = np.empty(wanted.stop - wanted.start + before, np.float32)
            self._codes(kept, wanted.start - begin - before, values.size).dequantize(values)
            out[wanted.start - first : wanted.stop - first] = values[before:]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _codes(self, kept: _Kept, first: int, values: int) -> Codes:
        code = self.header.codes[kept.piece.tensor]
        self._file.seek(kept.offset + packed_bytes(first, kept.width))
        data = np.frombuffer(self._file.read(packed_bytes(values, kept.width)), np.uint8)
        return Codes(code, data, kept.width, values)
