"""What a client may be called."""

from fedaq.errors import UserError

# In UTF-8; a name becomes part of a file name, which may have 255 bytes.
MAX_NAME_BYTES = 64
RULE = (
    f"a client name has 1 to {MAX_NAME_BYTES} printable characters (bytes in UTF-8), "
    "no spaces or slashes"
)


def is_name(text: str) -> bool:
    """Tell whether a client may have this name."""
    return (
        0 < len(text.encode()) <= MAX_NAME_BYTES
        and text.isprintable()
        and not set(text) & set("/\\ ")
    )


def checked_name(text: str) -> str:
    """Return a name for which a file or folder is going to be made.

    Raises
    ------
    UserError
        If it cannot be one.
    """
    if not is_name(text):
        raise UserError(f"{text!r}: {RULE}")
    if text.startswith("."):
        raise UserError(f"{text}: a name that begins with a dot would be a hidden file")
    return text
