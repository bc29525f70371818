"""The clients that are connected, and the messages between them and the round loop."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from fedaq.codec.chunks import Chunk, kind_of
from fedaq.codec.quantizer import Spread
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError, ProtocolError
from fedaq.v1 import federation_pb2 as pb

# Chunks of one client that wait for the one that is folded in.
INBOX = 1
OF_A_ROUND = ("range_report", "update", "chunk")
# Clients that are gone of which is remembered when and how; of more, those that went first
# are forgotten.
REMEMBERED = 1000


class Phase(StrEnum):
    """What a client does in the round that was last opened to it."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    TRAINING = "training"
    SENDING = "sending"
    DONE = "done"


class Stream(Protocol):
    """The server's end of one client's stream."""

    async def read(self) -> pb.ClientMessage | Chunk | None:
        """Return the next message, or None when the client has closed the stream."""

    async def write(self, frame: bytes) -> None:
        """Send a serialized `ServerMessage`.

        Raises
        ------
        DisconnectedError
            If the stream has ended.
        """

    def received_bytes(self) -> int:
        """Return the bytes that have come on its connection so far; 0 where nobody knows."""


class DisconnectedError(FedaqError):
    """The client's stream has ended."""


@dataclass(eq=False)
class Client:
    """One connected client.

    Attributes
    ----------
    name : str
        Its identity.
    examples : int
        The weight of its updates.
    radio : RadioCost, optional
        Joules per bit of its link as it states them itself; None where the server's energy
        model applies.
    holds : bytes
        Digest of the model that it has shown to hold; empty for none.
    round : int
        The last that was opened to it; 0 before.
    reader : Task, optional
        Reads its stream; is cancelled where the server parts with the client.
    parting : str
        Why the server does.
    process : bytes
        Random number of its process; empty for none.
    left : bool
        Whether it said that it leaves, or was sent away: then no round waits for its return.
    on_refusal : callable
        Told of every refusal that is sent.
    phase : Phase
        In its round.
    moved_bytes : int
        Payload bytes that have crossed in this phase.
    refusals : int
        Those that were sent in this run.
    refusal : str
        What the last of them said.
    """

    name: str
    examples: int
    radio: RadioCost | None
    stream: Stream
    holds: bytes = b""
    process: bytes = b""
    left: bool = False
    on_refusal: Callable[[ProtocolError], None] = lambda error: None
    last_seen: float = field(default_factory=time.monotonic)
    round: int = 0
    reader: "asyncio.Task[None] | None" = None
    parting: str = ""
    phase: Phase = Phase.WAITING
    moved_bytes: int = 0
    refusals: int = 0
    refusal: str = ""
    _credit: int = 0
    _inbox: asyncio.Queue[pb.ClientMessage | Chunk | None] | None = None
    _refused: int = -1
    _gone: bool = False

    async def send(self, message: pb.ServerMessage) -> None:
        """Send one message.

        Raises
        ------
        DisconnectedError
            If the stream has ended.
        """
        await self.stream.write(message.SerializeToString())

    async def refuse(self, round_number: int, error: ProtocolError) -> None:
        """Tell the client, once per round, why the round goes on without it."""
        if self._refused == round_number:
            return
        self._refused = round_number
        self.refusals, self.refusal = self.refusals + 1, str(error)
        self.on_refusal(error)
        refusal = pb.Refusal(round=round_number, reason=error.reason, message=str(error))
        await self.send(pb.ServerMessage(refusal=refusal))

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase of the round."""
        self.phase, self.moved_bytes = phase, 0

    def open_round(self, round_number: int) -> None:
        """Let the messages of this round through to `expect`."""
        self.round = round_number
        self._inbox = asyncio.Queue(INBOX)
        if self._gone:
            self._inbox.put_nowait(None)

    def close_round(self) -> None:
        """Refuse whatever else arrives for this round."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            _empty(inbox)

    async def expect(self, kind: str) -> pb.ClientMessage | Chunk:
        """Return the next message of the round, which must be of this kind.

        Raises
        ------
        ProtocolError
            If it is of another kind.
        DisconnectedError
            If the stream has ended.
        """
        assert self._inbox is not None
        message = await self._inbox.get()
        self._inbox.task_done()
        if message is None:
            raise DisconnectedError(f"{self.name} disconnected")
        if kind_of(message) != kind:
            raise ProtocolError(
                pb.REFUSAL_REASON_OUT_OF_ORDER,
                f"{kind_of(message)} arrived where {kind} was due",
            )
        return message

    def give_credit(self, messages: int) -> None:
        """Let so many messages of rounds through `uses_credit`, and what is left of one before."""
        self._credit = min(self._credit, messages) + messages

    def uses_credit(self, message: pb.ClientMessage | Chunk) -> bool:
        """Tell whether a message is of a round that was opened, and not one too many.

        Those of a round that is over count, too: a late client may still be sending.
        """
        if kind_of(message) not in OF_A_ROUND or not 0 < _round_of(message) <= self.round:
            return False
        if self._credit == 0:
            return False
        self._credit -= 1
        return True

    async def deliver(self, message: pb.ClientMessage | Chunk) -> ProtocolError | None:
        """Hand a message that was read from the stream to the round that waits for it.

        Returns
        -------
        ProtocolError or None
            What the client was told if none does.

        Raises
        ------
        DisconnectedError
            If the client has come back on another stream.
        """
        if self._gone:
            raise DisconnectedError(f"{self.name} has come back on another stream")
        self.last_seen = time.monotonic()
        kind = kind_of(message)
        if kind in ("heartbeat", None):
            return None
        if kind == "join":
            again = ProtocolError(pb.REFUSAL_REASON_OUT_OF_ORDER, "you have joined already")
            await self.refuse(0, again)
            return again
        round_number = _round_of(message)
        inbox = self._inbox
        if inbox is not None and round_number == self.round:
            await inbox.put(message)
            # What comes after it stays with gRPC, and behind that with the sender.
            await inbox.join()
            return None
        stale = ProtocolError(
            pb.REFUSAL_REASON_STALE_ROUND,
            f"{kind} for round {round_number}, which is not open to you",
        )
        await self.refuse(round_number, stale)
        return stale

    def hang_up(self) -> None:
        """Let a waiting round, and those to come, know that the stream has ended."""
        self._gone = True
        if self._inbox is not None:
            _empty(self._inbox)
            self._inbox.put_nowait(None)


def _empty(inbox: asyncio.Queue[pb.ClientMessage | Chunk | None]) -> None:
    while not inbox.empty():
        inbox.get_nowait()
        inbox.task_done()


def _round_of(message: pb.ClientMessage | Chunk) -> int:
    """Return the round of a message of a round."""
    if isinstance(message, Chunk):
        return message.round
    round_number: int = getattr(message, str(kind_of(message))).round
    return round_number


@dataclass(frozen=True)
class Gone:
    """What is remembered of a client that was connected.

    Attributes
    ----------
    at : float
        When its connection ended, in seconds since 1970.
    left, radio, refusals, refusal
        As the client had them.
    """

    at: float
    left: bool
    radio: RadioCost | None
    refusals: int
    refusal: str


class Roster:
    """Who is connected, and who of them is waited for.

    A client that missed a deadline is set aside until it is heard of again, so that it
    holds up one round and not all of them.

    Attributes
    ----------
    ranges : dict of str to tuple of Spread
        Of the last update of each client, connected or not.
    gone : dict of str to Gone
        Clients that were connected and have not come back.
    wanted : int
        Ready clients that are waited for; 0 while nobody waits.
    """

    def __init__(self) -> None:
        self.gone: dict[str, Gone] = {}
        self.wanted = 0
        self.ranges: dict[str, tuple[Spread, ...]] = {}
        self._clients: dict[str, Client] = {}
        self._aside: set[str] = set()
        self._lost: dict[str, float] = {}
        self._changed = asyncio.Condition()
        self.on_change: Callable[[int, int], None] = lambda count, wanted: None

    def get(self, name: str) -> Client | None:
        """Return a connected client."""
        return self._clients.get(name)

    def __len__(self) -> int:
        return len(self._clients)

    def everyone(self) -> list[Client]:
        """Return the connected clients in the order of their names."""
        return [self._clients[name] for name in sorted(self._clients)]

    def ready(self) -> list[Client]:
        """Return those of them that are not set aside."""
        return [client for client in self.everyone() if client.name not in self._aside]

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
        self._aside.discard(client.name)
        self._lost.pop(client.name, None)

    async def announce(self) -> None:
        """Wake who waits for a change of the roster."""
        self.on_change(len(self.ready()), self.wanted)
        async with self._changed:
            self._changed.notify_all()

    async def remove(self, client: Client) -> None:
        """Forget a client whose stream has ended."""
        client.hang_up()
        if self._clients.get(client.name) is not client:
            return  # it has come back on another stream, or was expelled
        del self._clients[client.name]
        self._aside.discard(client.name)
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
            time.time(), client.left, client.radio, client.refusals, client.refusal
        )
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

    async def wait_for(self, count: int, timeout_s: float) -> list[Client]:
        """Wait until `count` clients are ready and return all that are.

        Raises
        ------
        FedaqError
            If there are fewer after `timeout_s` seconds.
        """
        if not await self._wait(lambda: len(self.ready()) >= count, count, timeout_s):
            raise FedaqError(
                f"{len(self.ready())} of {count} clients connected within {timeout_s:g} s; "
                "start more of them or ask for fewer with --clients"
            )
        return self.ready()

    async def wait_for_all(self, names: set[str], timeout_s: float) -> None:
        """Wait until all these clients are ready, but no longer than `timeout_s` seconds."""
        await self._wait(
            lambda: names <= {client.name for client in self.ready()}, len(names), timeout_s
        )

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

        def back() -> Client | None:
            client = self._clients.get(gone.name)
            return None if client is gone else client

        await self._wait(lambda: back() is not None, self.wanted, timeout_s)
        return back()

    async def _wait(self, condition: Callable[[], bool], wanted: int, timeout_s: float) -> bool:
        self.wanted = wanted
        if not condition():
            self.on_change(len(self.ready()), wanted)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(condition)
        self.wanted = 0
        return condition()
