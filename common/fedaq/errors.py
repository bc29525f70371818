"""The errors that a person or a peer is meant to read."""

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that only prints its help does without protobuf
    from fedaq.v1 import federation_pb2 as pb

_LONGEST_SENTENCE = 500

_OF_ANOTHER = "it is another user's: sudo chown it, or choose another folder"
# What helps against what a system refuses.
_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room, or have the quota raised",
    errno.EFBIG: "raise the limit of the size of files: ulimit -f, or LimitFSIZE= of the unit",
    errno.EROFS: "mount it writable (a disk that fails is mounted read-only: see dmesg), or choose "
    "another folder",
    errno.EMFILE: "raise the limit of open files: ulimit -n, or LimitNOFILE= of the unit",
    errno.ENFILE: "the whole machine has too many files open: sysctl fs.file-max",
    errno.EACCES: _OF_ANOTHER,
    errno.EPERM: _OF_ANOTHER,
    errno.EIO: "the disk fails: see dmesg, and copy the folder to another one",
    errno.ENOMEM: "the machine has no memory left: end something else, or take a smaller model",
}


def printable(sentence: str) -> str:
    """Return what a peer said, cut to a sentence and cleared of what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in sentence[:_LONGEST_SENTENCE])


class FedaqError(Exception):
    """Something outside the user's hands failed; ends a command with exit code 1."""


class SystemFaultError(FedaqError):
    """The system refused what it was asked for: a disk is full or fails, a limit is reached."""


class UserError(FedaqError):
    """The user asked for something that cannot be; ends a command with exit code 2.

    The message is one line: what was wrong, where, and what would be right.
    """


class NotFiniteError(FedaqError):
    """A tensor holds NaN or infinity, or a range too wide for float32."""


class CodecError(FedaqError, ValueError):
    """Tensors that cannot be encoded as asked, or bytes that are no archive of tensors.

    The message is one line: which tensor or what of the bytes, and what would be right.
    """


class ProtocolError(FedaqError):
    """A peer broke the protocol; the message is sent back to it.

    Parameters
    ----------
    reason : RefusalReason
        The machine-readable reason.
    message : str
        One sentence for the peer's operator.
    """

    def __init__(self, reason: "pb.RefusalReason", message: str) -> None:
        super().__init__(message)
        self.reason = reason


def refused(error: OSError) -> str | None:
    """Return what the system refused, of which file, and what helps; None if it did not say."""
    if error.errno is None or error.strerror is None:
        return None
    return why(error) if error.filename is None else f"{error.filename}: {why(error)}"


def why(error: OSError) -> str:
    """Return why the system refused something, and what helps."""
    remedy = _REMEDIES.get(error.errno or 0)
    return (error.strerror or str(error)) + (f"; {remedy}" if remedy else "")


def reason_name(reason: int) -> str:
    """Return a refusal's reason as logs and metrics name it, for example ``wrong_shape``."""
    from fedaq.v1 import federation_pb2 as pb

    try:
        name = pb.RefusalReason.Name(reason)
    except ValueError:  # a newer peer's
        return f"reason_{reason}"
    return name.removeprefix("REFUSAL_REASON_").lower()
