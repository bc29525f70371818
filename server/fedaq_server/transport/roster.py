"""Who is connected, and who of them is waited for."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fedaq.declines import Decline
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError
from fedaq_server.transport.client import Client

# Clients that are gone of which is remembered when and how; of more, those that went first
# are forgotten.
REMEMBERED = 1000
# Clients that come back a second, where all have lost the server, and how long that may take.
RETURNS_PER_S, LONGEST_WINDOW_S = 50, 20.0


def return_window_s(clients: int) -> float:
    """Return over how many seconds so many clients spread their returns, once the server is gone.

    Those of a few are there at once.
    """
    return min(clients / RETURNS_PER_S, LONGEST_WINDOW_S)


@dataclass(frozen=True)
class Gone:
    """What is remembered of a client that was connected.

    Attributes
    ----------
    at : float
        When its connection ended, in seconds since 1970.
    left, radio, refusals, refusal, relayed
        As the client had them.
    """

    at: float
    left: bool
    radio: RadioCost | None
    refusals: int
    refusal: str
    relayed: int | None = None


class Roster:
    """Who is connected, and who of them is waited for.

    A client that missed a deadline is set aside until it is heard of again, so that it
    holds up one round and not all of them. One that declines is there, but not ready until it says
    so, whatever else is heard of it.

    Attributes
    ----------
    gone : dict of str to Gone
        Clients that were connected and have not come back.
    wanted : int
        Clients that are waited for; 0 while nobody waits.
    """

    def __init__(self) -> None:
        self.gone: dict[str, Gone] = {}
        self.wanted = 0
        self._clients: dict[str, Client] = {}
        # Of those, by name; counted at every change, however many clients there are.
        self._aside: set[str] = set()
        self._declining: set[str] = set()
        # Relays among those: one is there with its clients, before them it declines.
        self._unfilled: set[str] = set()
        self._lost: dict[str, float] = {}
        self._changed = asyncio.Condition()
        self._returns: dict[Client, asyncio.Future[Client]] = {}
        self.on_change: Callable[[int, int], None] = lambda count, wanted: None

    def get(self, name: str) -> Client | None:
        """Return a connected client."""
        return self._clients.get(name)

    def __len__(self) -> int:
        return len(self._clients)

    def everyone(self) -> list[Client]:
        """Return the connected clients in the order of their names."""
        return [self._clients[name] for name in sorted(self._clients)]

    def present(self) -> list[Client]:
        """Return those of them that are not set aside."""
        return [client for client in self.everyone() if client.name not in self._aside]

    def ready(self) -> list[Client]:
        """Return those that a round may begin with: present, and none that declines."""
        return [client for client in self.present() if client.declined is None]

    def count_ready(self) -> int:
        """Return how many are ready."""
        return len(self._clients) - len(self._aside | self._declining)

    def declined(self) -> Counter[str]:
        """Return how many decline, by the reason."""
        return Counter(
            str(client.declined.reason)
            for client in self._clients.values()
            if client.declined is not None
        )

    async def declare(self, client: Client, decline: Decline | None) -> None:
        """Begin rounds without this client, or with it again."""
        client.declare(decline)
        if self._clients.get(client.name) is client:
            self._note_readiness(client)
        await self.announce()

    def _note_readiness(self, client: Client) -> None:
        self._forget_readiness(client)
        if client.declined is not None:
            self._declining.add(client.name)
            if client.relayed is not None:
                self._unfilled.add(client.name)

    def _forget_readiness(self, client: Client) -> None:
        self._declining.discard(client.name)
        self._unfilled.discard(client.name)

    def add(self, client: Client) -> None:
        """Let a client take part; tell nobody before `announce`.

        It takes the place of one of its name, whose stream is at its end.
        """
        before = self._clients.get(client.name)
        if before is not None:
            before.hang_up()
        known = self.gone.pop(client.name, before)
        if known is not None:
            client.refusals, client.refusal = known.refusals, known.refusal
        self._clients[client.name] = client
        self._note_readiness(client)
        self._aside.discard(client.name)
        self._lost.pop(client.name, None)

    async def announce(self) -> None:
        """Wake who waits for a change of the roster."""
        self.on_change(self.count_ready(), self.wanted)
        for gone, waiting in self._returns.items():
            back = self._back(gone)
            if back is not None and not waiting.done():
                waiting.set_result(back)
        async with self._changed:
            self._changed.notify_all()

    async def remove(self, client: Client) -> None:
        """Forget a client whose stream has ended."""
        client.hang_up()
        if self._clients.get(client.name) is not client:
            return  # it has come back on another stream, or was expelled
        del self._clients[client.name]
        self._aside.discard(client.name)
        self._forget_readiness(client)
        self._remember(client)
        if not client.left:
            self._lost[client.name] = time.monotonic()
        await self.announce()

    async def expel(self, client: Client, reason: str) -> None:
        """Forget a client at once, and have its stream ended for this reason."""
        client.parting, client.left = reason, True
        await self.remove(client)
        if client.reader is not None and client.reader is not asyncio.current_task():
            client.reader.cancel()

    def _remember(self, client: Client) -> None:
        self.gone[client.name] = Gone(
            time.time(), client.left, client.radio, client.refusals, client.refusal,
            client.relayed,
        )  # fmt: skip
        if len(self.gone) > REMEMBERED:
            del self.gone[next(iter(self.gone))]

    def is_aside(self, client: Client) -> bool:
        """Tell whether rounds begin without this client."""
        return client.name in self._aside

    def set_aside(self, client: Client) -> None:
        """Begin rounds without this client until it is heard of."""
        if client.name in self._clients:
            self._aside.add(client.name)

    async def heard_of(self, client: Client) -> None:
        """Wait for this client again."""
        if client.name in self._aside:
            self._aside.remove(client.name)
            await self.announce()

    async def wait_for(self, count: int, timeout_s: float, present: int = 0) -> list[Client]:
        """Wait until `count` clients are ready, and so many `present`; return all that are ready.

        Raises
        ------
        FedaqError
            If there are fewer after `timeout_s` seconds.
        """

        def enough() -> bool:
            there = len(self._clients) - len(self._aside | self._unfilled)
            return self.count_ready() >= count and there >= present

        wanted = max(count, present)
        if not await self._wait(enough, wanted, timeout_s):
            declined = self.declined()
            if declined and len(self.present()) >= wanted:
                why = ", ".join(f"{reason} {times}" for reason, times in sorted(declined.items()))
                raise FedaqError(
                    f"{len(self.ready())} of {count} clients were ready within {timeout_s:g} s; "
                    f"{declined.total()} declined ({why}); go on with --resume, and wait longer "
                    "with --set network.join_timeout_s=..."
                )
            raise FedaqError(
                f"{len(self.present())} of {wanted} clients connected within {timeout_s:g} s; "
                "start more of them or ask for fewer with --clients"
            )
        return self.ready()

    async def wait_for_all(self, names: set[str], timeout_s: float) -> None:
        """Wait until all these clients are present, but no longer than `timeout_s` seconds."""

        def all_there() -> bool:
            # Asked at every join of thousands, and at most of them no at the first name.
            return all(name in self._clients and name not in self._aside for name in names)

        await self._wait(all_there, len(names), timeout_s)

    async def wait_for_lost(self, wait_s: float) -> None:
        """Wait for clients whose connection broke, until `wait_s` seconds after it did."""
        now = time.monotonic()
        left_s = {name: at + wait_s - now for name, at in self._lost.items() if now - at < wait_s}
        self._lost.clear()  # no round waits for them again
        if left_s:
            names = left_s.keys()
            wanted = len(self._clients) + len(left_s)
            await self._wait(lambda: names <= self._clients.keys(), wanted, max(left_s.values()))

    async def wait_for_return(self, gone: Client, timeout_s: float) -> Client | None:
        """Return the client that is back on another stream, None if it is not in time."""
        there = self._back(gone)
        if there is not None:
            return there
        # One future each: of a thousand that come back, each would wake all the others.
        back: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._returns[gone] = back
        try:
            async with asyncio.timeout(timeout_s):
                return await back
        except TimeoutError:
            return None
        finally:
            del self._returns[gone]

    def _back(self, gone: Client) -> Client | None:
        client = self._clients.get(gone.name)
        return None if client is gone else client

    async def _wait(self, condition: Callable[[], bool], wanted: int, timeout_s: float) -> bool:
        self.wanted = wanted
        if not condition():
            self.on_change(self.count_ready(), wanted)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(condition)
        self.wanted = 0
        return condition()
