"""Bytes by key: those that were used last lie in memory, the others on the disk."""

from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory


class Shelf:
    """What many clients keep, of whom few are at work.

    Parameters
    ----------
    folder : Path
        Gets a folder of its own for the files, once there are some.
    memory_bytes : int
        As much is in memory at the most, and one content.
    """

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._used_bytes = 0
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._place: TemporaryDirectory[str] | None = None

    @property
    def spilled(self) -> int:
        """Number of files."""
        return 0 if self._place is None else sum(1 for _ in Path(self._place.name).iterdir())

    def put(self, key: str, content: bytes) -> None:
        """Keep a content, in the place of one of this key."""
        self.drop(key)
        self._hold(key, content)

    def get(self, key: str) -> bytes:
        """Return what is kept.

        Raises
        ------
        KeyError
            If nothing is.
        """
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None
        # Its file stays: to spill it again costs nothing.
        self._hold(key, content)
        return content

    def drop(self, key: str) -> None:
        """Forget what is kept, if something is."""
        self._used_bytes -= len(self._held.pop(key, b""))
        if self._place is not None:
            self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        if self._place is not None:
            self._place.cleanup()

    def _hold(self, key: str, content: bytes) -> None:
        self._held[key] = content
        self._used_bytes += len(content)
        while self._used_bytes > self._memory_bytes and len(self._held) > 1:
            oldest, spilt = self._held.popitem(last=False)
            self._used_bytes -= len(spilt)
            path = self._path(oldest)
            if not path.exists():
                path.write_bytes(spilt)

    def _path(self, key: str) -> Path:
        if self._place is None:
            self._place = TemporaryDirectory(prefix="clients-", dir=self._folder)
        # Keys are not made for paths.
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return Path(self._place.name) / name
