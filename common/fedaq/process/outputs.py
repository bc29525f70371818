"""Standard output and error, also where nobody hears: a terminal that has gone, a full disk."""

import errno
import os
import sys
from contextlib import suppress
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import Any, TextIO

from fedaq.errors import FedaqError

# As a process ends that SIGPIPE ends; Python ignores that signal.
_NOBODY_READS = 128 + 13


class _Output(RawIOBase):
    """Writes to a stream's descriptor; what cannot be written is dropped, or ends the command."""

    def __init__(self, stream: TextIO, raw: RawIOBase, *, drops: bool) -> None:
        self._stream = stream  # its descriptor would be closed with it
        self._raw = raw
        self.drops = drops

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()

    def write(self, data: Any) -> int:
        try:
            written = self._raw.write(data)
        except OSError as error:
            if not self.drops:
                self.drops = True  # Python flushes once more at the end
                raise _failure(error) from None
            written = None
        return len(data) if written is None else written


def prepare() -> None:
    """Make standard output and error safe to write to.

    Lines on standard error are dropped where they cannot be written; standard output, for which a
    short command was called, ends it with one sentence until `go_on_without`.
    """
    _fill_descriptors()
    sys.stdout = _watched(sys.stdout, 1, drops=False)
    sys.stderr = _watched(sys.stderr, 2, drops=True)


def go_on_without() -> None:
    """Let what this process does matter more than what it says of it: drop lines that fail."""
    output = getattr(sys.stdout, "buffer", None)
    output = getattr(output, "raw", output)
    if isinstance(output, _Output):
        output.drops = True


def dropping(stream: TextIOWrapper) -> TextIO:
    """Return a stream to the same descriptor that drops what cannot be written."""
    return _watched(stream, -1, drops=True)


def _watched(stream: TextIO | None, descriptor: int, *, drops: bool) -> TextIO:
    if stream is None:  # it was closed when Python began
        stream = os.fdopen(descriptor, "w", closefd=False)
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")  # a file on Windows may have no check marks
    buffer: Any = stream.buffer
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, RawIOBase) or isinstance(raw, _Output):
        return stream
    with suppress(OSError):
        stream.flush()
    output = _Output(stream, raw, drops=drops)
    carrier: Any = output if buffer is raw else BufferedWriter(output)
    return TextIOWrapper(
        carrier,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _failure(error: OSError) -> Exception | SystemExit:
    if error.errno == errno.EPIPE:  # who reads has seen enough
        return SystemExit(_NOBODY_READS)
    return FedaqError(f"standard output cannot be written: {error.strerror}")


def _fill_descriptors() -> None:
    """Open those of 0, 1 and 2 that are closed: else a file or a socket of ours would be one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest that is free
            os.set_inheritable(number, True)
