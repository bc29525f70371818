"""A server that follows a script, and a client's session with it."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fedaq import PROTOCOL_VERSION
from fedaq.codec import chunks, payload
from fedaq.codec.quantizer import Range
from fedaq.energy.cost import RadioCost
from fedaq.errors import FedaqError
from fedaq.tasks import Evaluation, Examples, Task, Training
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Event, Sent
from fedaq_client.session import Session
from fedaq_client.training import Learner

Message = pb.ServerMessage
CHUNK_BYTES = 1024
PATIENCE_S = 20


class Weights(nn.Module):
    """Two tensors: one of more than a chunk at 32 bits, one of a single value."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.zeros(300))
        self.single = nn.Parameter(torch.zeros(()))


def add_one(model: nn.Module, data: Any, training: Training, seed: int) -> float:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    return 0.25


def task(train: Callable[..., float] = add_one) -> Task:
    data = Examples(torch.zeros(7, 1), torch.zeros(7, dtype=torch.int64))
    return Task(
        "script", Weights, lambda _: data, lambda _: data, train=train,
        evaluate=lambda model, data: Evaluation(0.5, 1.0),
    )  # fmt: skip


class ScriptedLink:
    """A server that says its lines one by one, whatever it hears.

    A number among the lines makes it wait until it has heard as many messages,
    heartbeats aside.
    """

    def __init__(self, lines: Iterable[Message | int | FedaqError | None]) -> None:
        self._lines = list(lines)
        self._heard = asyncio.Condition()
        self.said: list[pb.ClientMessage] = []
        self.heartbeats = 0

    async def send(self, frame: bytes) -> None:
        message = pb.ClientMessage.FromString(frame)
        if message.WhichOneof("kind") == "heartbeat":
            self.heartbeats += 1
            return
        async with self._heard:
            self.said.append(message)
            self._heard.notify_all()

    async def receive(self) -> Message | chunks.Chunk | None:
        assert self._lines, "the session reads on after the last line"
        line = self._lines.pop(0)
        if isinstance(line, int):
            async with self._heard:
                await self._heard.wait_for(lambda: len(self.said) >= line)
            return await self.receive()
        if isinstance(line, FedaqError):
            raise line
        return None if line is None else chunks.parse(line.SerializeToString(), Message)

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("kind") for message in self.said]


class Play:
    """A session, its link and what it told of its rounds."""

    def __init__(
        self,
        lines: Iterable[Message | int | FedaqError | None],
        train: Callable[..., float] = add_one,
        radio: RadioCost | None = None,
        on_training: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.on_training = on_training
        self.progress: list[Sent] = []
        self.events: list[Event] = []
        self.learner = Learner(task(train), task().train_data(None))
        self.lines = lines
        self.radio = radio
        self.link: ScriptedLink

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Sent):
            self.progress.append(event)

    def act(self) -> str:
        async def play() -> str:
            self.link = ScriptedLink(self.lines)
            session = Session(
                self.link, "anna", self.learner, self.radio, self._hear,
                on_training=self.on_training,
            )  # fmt: skip
            async with asyncio.timeout(PATIENCE_S):
                return await session.participate()

        return asyncio.run(play())


SPEC = Learner(task(), task().train_data(None)).spec
RAW = (32, 32)


def welcome(heartbeat_interval_s: float = 1000.0) -> Message:
    return Message(
        welcome=pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            seed=5,
            training=pb.Training(local_epochs=1, batch_size=1, learning_rate=0.1, momentum=0.5),
            heartbeat_interval_s=heartbeat_interval_s,
        )
    )


def training_of(**asked: Any) -> Message:
    message = welcome()
    for name, value in asked.items():
        setattr(message.welcome.training, name, value)
    return message


def plan(round_number: int, bits: tuple[int, ...] = RAW) -> Message:
    round_plan = pb.RoundPlan(
        round=round_number, rounds=9, downlink_bits=bits, chunk_bytes=CHUNK_BYTES
    )
    return Message(plan=round_plan)


def model_of(round_number: int, value: float = 2.0) -> list[Message]:
    """The model with every weight `value`, raw, in two chunks."""
    header = payload.plan_payload(SPEC, RAW, (Range(0, 0), Range(0, 0)))
    flat = np.full(SPEC.parameters, value, np.float32).tobytes()
    lines = [Message(model=payload.to_message(header, round_number))]
    for offset, length in header.chunks(CHUNK_BYTES):
        data = flat[offset : offset + length]
        lines.append(Message(chunk=pb.Chunk(round=round_number, offset=offset, data=data)))
    return lines


def grant(round_number: int, bits: tuple[int, ...] = RAW, steps: Sequence[float] = ()) -> Message:
    return Message(grant=pb.UplinkGrant(round=round_number, uplink_bits=bits, uplink_steps=steps))


def receipt(round_number: int) -> Message:
    return Message(receipt=pb.Receipt(round=round_number))


def refusal(round_number: int) -> Message:
    return Message(refusal=pb.Refusal(round=round_number, message="for a reason"))


def whole_round(number: int) -> list[Message]:
    return [plan(number), *model_of(number), grant(number), receipt(number)]


FINISH = Message(finish=pb.Finish(reason="enough", over=True))
# What a client says in a round that goes well: its update takes two chunks.
ROUND = ["range_report", "update", "chunk", "chunk"]
