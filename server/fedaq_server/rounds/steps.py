"""Steps that the clients of a round go through together: nobody goes on before all are there.

Who leaves is waited for no longer, and who comes after a step was closed is refused. When too few
are left, the round is over for all.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from fedaq.errors import ProtocolError
from fedaq.v1 import federation_pb2 as pb


class Steps:
    """The steps of one round.

    Parameters
    ----------
    names : collection of str
        Of its clients.
    names_of_steps : sequence of str
        What each step is called in a sentence.
    durations_s : sequence of float
        When each closes at the latest, in seconds from now.
    least : int
        How many must come to the first.
    fewest : callable
        Takes how many did, and returns how many must come to each later one.
    """

    def __init__(
        self,
        names: Collection[str],
        names_of_steps: Sequence[str],
        durations_s: Sequence[float],
        least: int,
        fewest: Callable[[int], int],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._names_of_steps = names_of_steps
        self._ends = [now + seconds for seconds in durations_s]
        self._fewest, self._least = fewest, least
        self._here = set(names)
        self._came: list[dict[str, Any]] = [{} for _ in names_of_steps]
        self._closed: list[asyncio.Future[Mapping[str, Any]]] = [
            self._loop.create_future() for _ in names_of_steps
        ]
        self._now = 0
        self._timer = self._loop.call_at(self._ends[0], self._close)
        self.failure = ""

    async def meet(self, step: int, name: str, brought: Any) -> Mapping[str, Any]:
        """Bring something to a step; return what each brought, once nobody is waited for.

        Raises
        ------
        ProtocolError
            If the step is closed already, or too few came to it.
        """
        if self._closed[step].done() and not self.failure:
            raise ProtocolError(
                pb.REFUSAL_REASON_DEADLINE,
                f"{self._names_of_steps[step]} came when the others had gone on without you",
            )
        self._came[step][name] = brought
        self._look()
        return await asyncio.shield(self._closed[step])

    def leave(self, name: str) -> None:
        """Wait for a client no longer."""
        self._here.discard(name)
        self._look()

    def has_come(self, name: str) -> bool:
        """Tell whether a client came to the first step."""
        return name in self._came[0]

    def came(self, step: int) -> Mapping[str, Any]:
        """Return what was brought to a step, by whom."""
        return self._came[step]

    def stop(self) -> None:
        """Let nobody wait any more."""
        self._timer.cancel()
        self._now = len(self._closed)
        for future in self._closed:
            future.cancel()

    def _look(self) -> None:
        while self._now < len(self._closed) and self._here <= self._came[self._now].keys():
            self._close()

    def _close(self) -> None:
        """Close the step that is open, and open the next one to those who came."""
        self._timer.cancel()
        came, number = self._came[self._now], self._now
        if self._now == 0 and len(came) >= self._least:
            self._least = self._fewest(len(came))
        if len(came) < self._least:
            self._fail(
                f"{len(came)} clients came to {self._names_of_steps[number]}, and "
                f"{self._least} are needed"
            )
            return
        self._here &= came.keys()
        self._now += 1
        if self._now < len(self._closed):
            self._timer = self._loop.call_at(self._ends[self._now], self._close_and_look)
        self._closed[number].set_result(came)

    def _close_and_look(self) -> None:
        self._close()
        self._look()

    def _fail(self, failure: str) -> None:
        self.failure = failure
        self._now = len(self._closed)
        for future in self._closed:
            if not future.done():
                future.set_exception(too_few(failure))
                future.exception()  # that nobody waits for is no mistake


def too_few(why: str) -> ProtocolError:
    """Return the refusal of all updates of a round that has no sum."""
    return ProtocolError(pb.REFUSAL_REASON_TOO_FEW, f"the round has no sum: {why}")
