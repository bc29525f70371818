"""Files with a line for each client or certificate: a SHA-256, and whose it is."""

from pathlib import Path

from fedaq.errors import UserError

_DIGEST_DIGITS = 64


def read_lines(path: Path, mistake: str, *, may_lack: bool = False) -> list[str]:
    """Return the lines of a file.

    Parameters
    ----------
    path : Path
    mistake : str
        What to say of a file that is no text.
    may_lack : bool
        Whether without the file there are no lines.

    Raises
    ------
    UserError
        If it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        if may_lack and isinstance(error, FileNotFoundError):
            return []
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {mistake}") from None


def is_digest(text: str) -> bool:
    """Tell whether a text is a SHA-256, hexadecimal."""
    return len(text) == _DIGEST_DIGITS and not set(text) - set("0123456789abcdef")
