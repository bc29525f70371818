"""A client that is connected, and the messages between it and the round loop."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Protocol

from fedaq.codec.chunks import Chunk, kind_of
from fedaq.declines import Decline
from fedaq.energy.budgets import MEGABYTE
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError, ProtocolError
from fedaq.settings import Settings
from fedaq.v1 import federation_pb2 as pb

MAX_EXAMPLES = 2**40
# Chunks of one client that wait for the one that is folded in.
INBOX = 1
OF_A_ROUND = ("range_report", "update", "chunk", "mask_shares", "share_check", "unmasking")


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


class DeclinedError(FedaqError):
    """The client gave up a round that was opened to it."""

    def __init__(self, name: str, decline: Decline) -> None:
        super().__init__(f"{name} declined: {decline}")
        self.decline = decline


class EmptyError(DeclinedError):
    """What the client may spend does not pay for a round that was opened to it."""


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
    radio_name : str
        Of a preset, as it states it; empty where it does not.
    tariff : float, optional
        Money for a megabyte as it states it; None where the settings' tariff applies.
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
    declined : Decline, optional
        Why rounds begin without it; None if it is ready.
    relayed : int, optional
        Clients for whom it speaks; None if it is no relay.
    most_price : float
        Of a joule, above which noise drowns their updates.
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
    declined: Decline | None = None
    radio_name: str = ""
    tariff: float | None = None
    relayed: int | None = None
    most_price: float = inf
    _credit: int = 0
    _inbox: asyncio.Queue[pb.ClientMessage | Chunk | None] | None = None
    _refused: int = -1
    _gone: bool = False
    _given_up: Decline | None = None

    def cost(self, settings: Settings, round_number: int) -> RadioCost:
        """Return what its link costs in a round."""
        energy = settings.energy
        cost = self.radio or energy.radio_cost(settings.seed, self.name, round_number)
        if self.tariff is not None:
            return replace(cost, money_per_byte=self.tariff / MEGABYTE)
        if self.radio is None:
            return cost
        return replace(cost, money_per_byte=energy.tariffs.per_byte(self.radio_name))

    def stands_for(self, said: pb.Relayed) -> None:
        """Take note of those for whom a relay speaks."""
        self.relayed = said.clients
        self.examples = max(1, min(said.examples, MAX_EXAMPLES))
        self.most_price = said.most_price if said.most_price > 0 else inf

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
        self._given_up = self.declined
        if self._gone or self._given_up:
            self._wake()

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
        DeclinedError
            If it gave up the round.
        DisconnectedError
            If the stream has ended.
        """
        assert self._inbox is not None
        message = await self._inbox.get()
        self._inbox.task_done()
        if message is None:
            self.check_readiness()
            raise DisconnectedError(f"{self.name} disconnected")
        if kind_of(message) != kind:
            raise ProtocolError(
                pb.REFUSAL_REASON_OUT_OF_ORDER,
                f"{kind_of(message)} arrived where {kind} was due",
            )
        return message

    def check_readiness(self) -> None:
        """Raise `DeclinedError` if it gave up the round that is open to it."""
        if self._given_up is not None and not self._gone:
            raise DeclinedError(self.name, self._given_up)

    def declare(self, decline: Decline | None) -> None:
        """Take note of whether it is ready; if not, a round that is open goes on without it."""
        self.declined = decline
        if decline is not None and self._inbox is not None:
            self._given_up = decline
            self._wake()

    def _wake(self) -> None:
        """Let a waiting round know that nothing more comes."""
        if self._inbox is not None:
            _empty(self._inbox)
            self._inbox.put_nowait(None)

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
        # Nobody reads on of a round that it gave up.
        if inbox is not None and round_number == self.round and self._given_up is None:
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
        self._wake()


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
