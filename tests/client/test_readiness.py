"""What a session makes of the program's word on its readiness."""

import asyncio
from collections.abc import Callable

import pytest

from client.script import (
    FINISH,
    PATIENCE_S,
    ROUND,
    Message,
    ScriptedLink,
    model_of,
    plan,
    task,
    welcome,
    whole_round,
)
from fedaq.codec.chunks import Chunk
from fedaq.declines import LONGEST_DETAIL, Decline, Reason, from_message, to_message
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Declined, Event
from fedaq_client.readiness import answer_of
from fedaq_client.session import Session
from fedaq_client.training import Learner

LOW = Decline(Reason.BATTERY, "4 %")


def play(
    lines: list[Message | int], ready: Callable[[], Decline | bool | None]
) -> tuple[ScriptedLink, list[Event]]:
    events: list[Event] = []

    async def act() -> ScriptedLink:
        link = ScriptedLink(lines)
        learner = Learner(task(), task().train_data(None))
        session = Session(link, "anna", learner, None, events.append, ready=ready)
        async with asyncio.timeout(PATIENCE_S):
            assert await session.participate() == "enough"
        return link

    return asyncio.run(act()), events


def test_its_join_says_that_it_declines_and_a_message_that_it_is_ready_again() -> None:
    answers = [LOW, LOW, None]
    link, events = play(
        [welcome(0.05), 2, *whole_round(1), FINISH], lambda: answers.pop(0) if answers else None
    )
    assert link.kinds() == ["join", "readiness", *ROUND, "leave"]
    assert from_message(link.said[0].join.readiness) == LOW
    assert from_message(link.said[1].readiness) is None
    assert len(link.said[1].readiness.holds) == 8
    told = [event for event in events if isinstance(event, Declined)]
    assert told == [Declined(Reason.BATTERY, "4 %")]


def test_a_round_that_it_declines_is_neither_received_nor_trained() -> None:
    is_low = False

    class Link(ScriptedLink):
        async def receive(self) -> Message | Chunk | None:
            nonlocal is_low
            message = await super().receive()
            if isinstance(message, Message) and message.WhichOneof("kind") in ("plan", "model"):
                is_low = message.plan.round == 1
            return message

    async def act() -> ScriptedLink:
        # Its model was on its way already.
        link = Link([welcome(0.05), plan(1), 2, *model_of(1), 3, *whole_round(2), FINISH])
        learner = Learner(task(), task().train_data(None))
        session = Session(
            link, "anna", learner, None, lambda event: None, ready=lambda: LOW if is_low else None
        )
        async with asyncio.timeout(PATIENCE_S):
            await session.participate()
        return link

    link = asyncio.run(act())
    assert link.kinds() == ["join", "readiness", "readiness", *ROUND, "leave"]
    assert [from_message(message.readiness) for message in link.said[1:3]] == [LOW, None]
    assert link.said[3].range_report.round == 2


def test_a_client_that_is_always_ready_says_nothing_of_it() -> None:
    link, events = play([welcome(), *whole_round(1), FINISH], lambda: True)
    assert link.kinds() == ["join", *ROUND, "leave"]
    assert not link.said[0].join.HasField("readiness")
    assert not any(isinstance(event, Declined) for event in events)


@pytest.mark.parametrize("answer", [False, "no", 0, Reason.BUSY])
def test_an_answer_that_is_none_is_a_mistake_of_the_program(answer: object) -> None:
    with pytest.raises(TypeError, match="True or None to take part, else a fedaq"):
        answer_of(lambda: answer)  # type: ignore[arg-type,return-value]


def test_what_a_program_raises_is_told_as_its_own() -> None:
    def ready() -> bool:
        raise OSError("no battery")

    with pytest.raises(OSError, match="no battery") as caught:
        answer_of(ready)
    assert caught.value.__notes__ == ["in ready(), which the program gave to its fedaq client"]


def test_reasons_travel_and_details_are_bounded() -> None:
    for reason in Reason:
        assert from_message(to_message(Decline(reason, "why"))) == Decline(reason, "why")
    long = Decline("busy", "\x1b[31m" + "x" * 1000)  # type: ignore[arg-type]
    assert len(long.detail) == LONGEST_DETAIL
    assert long.detail.isprintable()
    with pytest.raises(ValueError, match="tired"):
        Decline("tired")  # type: ignore[arg-type]
    unknown = from_message(pb.Readiness(declined=77, detail="y" * 10_000))  # type: ignore[arg-type]
    assert unknown == Decline(Reason.OTHER, "y" * LONGEST_DETAIL)
