"""The program's word on whether its device is ready for rounds."""

from collections.abc import Callable

from fedaq.declines import Decline

# May block for a little; it is called on a thread, never twice at a time.
Ready = Callable[[], Decline | bool | None]


def answer_of(ready: Ready) -> Decline | None:
    """Ask, and return why the device declines; None if it is ready.

    Raises
    ------
    TypeError
        If the answer is none.
    Exception
        What the program raised, with a note that says so.
    """
    try:
        said = ready()
        if said is None or said is True:
            return None
        if isinstance(said, Decline):
            return said
        raise TypeError(
            f"ready() returned {said!r}; return True or None to take part, else a fedaq.Decline"
        )
    except Exception as error:
        error.add_note("in ready(), which the program gave to its fedaq client")
        raise
