"""Rounds of masked updates over gRPC: who drops out, who misbehaves, and what the sum is then."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq.codec.chunks import Chunk
from fedaq.privacy import member
from fedaq.privacy.shares import split
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.events import Event, Refused, Sent
from privacy.federation import (
    Change,
    Done,
    KilledError,
    Message,
    dies_before,
    expected,
    federate,
    honest,
    kind_of,
    weights_of,
)
from privacy.steps import STEPS


def _ran(folder: Path, changes: dict[int, Change], clients: int = 6, **flags: object) -> Done:
    return asyncio.run(federate(folder / "run", changes, clients, **flags))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", STEPS)
def test_a_third_of_the_clients_may_drop_out_at_any_step(tmp_path: Path, step: str) -> None:
    done = _ran(tmp_path, {2: dies_before(step), 5: dies_before(step)})
    counted = {1, 3, 4, 6} if step != "unmasking" else {1, 2, 3, 4, 5, 6}
    [record] = done.records
    assert record.clients == len(counted)
    np.testing.assert_array_equal(done.model, np.float32(expected(counted)))
    assert record.train_loss == pytest.approx(sum(counted) / len(counted))


@pytest.mark.parametrize("step", STEPS)
def test_with_more_there_is_no_sum_and_a_reason(
    tmp_path: Path, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        done = _ran(tmp_path, {number: dies_before(step) for number in (1, 2, 5)})
    [record] = done.records
    assert record.clients == 0
    np.testing.assert_array_equal(done.model, np.float32(1))
    assert "no sum of masked updates: 3 clients came to" in caplog.text
    assert "and 4 are needed" in caplog.text


def test_clients_drop_out_one_at_each_of_two_steps(tmp_path: Path) -> None:
    done = _ran(tmp_path, {2: dies_before("update"), 5: dies_before("unmasking")})
    np.testing.assert_array_equal(done.model, np.float32(expected({1, 3, 4, 5, 6})))


def test_weights_are_those_of_the_examples(tmp_path: Path) -> None:
    examples = {1: 10, 2: 20, 3: 35, 4: 100}
    weights = weights_of(examples)
    assert len(set(weights.values())) == 4
    done = _ran(tmp_path, {}, 4, examples=examples)
    np.testing.assert_allclose(done.model, expected(examples, weights), rtol=2**-23, atol=0)
    seen = _ran(
        tmp_path / "seen", {}, 4, examples=examples, privacy__secure_aggregation=False,
        coding__common_grid=True,
    )  # fmt: skip
    assert np.array_equal(done.model, seen.model)


def _replaced(kind: str, make: object) -> Change:
    def change(message: Message) -> Iterable[Message]:
        if kind_of(message) == kind:
            assert callable(make)
            yield from make(message)
        else:
            yield message

    return change


def _fewer_shares(message: pb.ClientMessage) -> Iterable[Message]:
    del message.mask_shares.shares[0]
    yield message


def _short_shares(message: pb.ClientMessage) -> Iterable[Message]:
    message.mask_shares.shares[0].sealed = b"short"
    yield message


def _unreadable_shares(message: pb.ClientMessage) -> Iterable[Message]:
    for share in message.mask_shares.shares:
        share.sealed = bytes(len(share.sealed))
    yield message


def _short_keys(message: pb.ClientMessage) -> Iterable[Message]:
    message.range_report.keys.mask_key = b"short"
    yield message


def _no_keys(message: pb.ClientMessage) -> Iterable[Message]:
    message.range_report.ClearField("keys")
    yield message


def _seen_header(message: pb.ClientMessage) -> Iterable[Message]:
    message.update.tensors.add()
    yield message


def _another_size(message: pb.ClientMessage) -> Iterable[Message]:
    message.update.code_bytes += 1
    yield message


def _late_chunk(chunk: Chunk) -> Iterable[Message]:
    yield Chunk(chunk.round, chunk.offset + 1, chunk.data)


def _large_chunk(chunk: Chunk) -> Iterable[Message]:
    yield Chunk(chunk.round, chunk.offset, bytes(chunk.data) + b"\0")


@pytest.mark.parametrize(
    ("kind", "make", "sentence"),
    [
        ("range_report", _short_keys, "are due"),
        ("range_report", _no_keys, "without keys"),
        ("mask_shares", _fewer_shares, "one for each of 5 is due"),
        ("mask_shares", _short_shares, "a sealed share has 50 bytes"),
        ("mask_shares", _unreadable_shares, "the shares that you sent do not fit"),
        ("update", _seen_header, "without any are due"),
        ("update", _another_size, "without any are due"),
        ("chunk", _late_chunk, "byte 0 is next"),
        ("chunk", _large_chunk, "no more"),
    ],
)
def test_who_sends_what_does_not_fit_is_told_and_the_round_goes_on(
    tmp_path: Path, kind: str, make: object, sentence: str
) -> None:
    events: dict[int, list[Event]] = {2: []}
    done = _ran(tmp_path, {2: _replaced(kind, make)}, events=events)
    np.testing.assert_array_equal(done.model, np.float32(expected({1, 3, 4, 5, 6})))
    [refused] = [event for event in events[2] if isinstance(event, Refused)]
    assert sentence in refused.message
    assert done.run.conduct.strikes == {"client-2": 1}


def _wrong_revelation(message: pb.ClientMessage) -> Iterable[Message]:
    for share in message.unmasking.shares:
        share.share = bytes(15) + b"\1\1"
    yield message


def _unasked_revelation(message: pb.ClientMessage) -> Iterable[Message]:
    message.unmasking.shares.add(peer=77, share=bytes(17))
    yield message


def _twice_masked(message: pb.ClientMessage) -> Iterable[Message]:
    """A second update where shares are due."""
    header = pb.PayloadHeader(round=message.unmasking.round, code_bytes=700)
    yield pb.ClientMessage(update=header)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_wrong_revelation, "the shares that you revealed do not fit"),
        (_unasked_revelation, "not asked for"),
        (_twice_masked, "update arrived where unmasking was due"),
    ],
)
def test_who_reveals_wrongly_is_told_and_its_update_counts(
    tmp_path: Path, make: object, sentence: str
) -> None:
    events: dict[int, list[Event]] = {2: []}
    done = _ran(tmp_path, {2: _replaced("unmasking", make)}, events=events)
    np.testing.assert_array_equal(done.model, np.float32(expected(range(1, 7))))
    [refused] = [event for event in events[2] if isinstance(event, Refused)]
    assert sentence in refused.message
    assert done.run.conduct.strikes == {"client-2": 1}


def test_who_accuses_an_honest_client_does_not_turn_it_out(tmp_path: Path) -> None:
    def accuse(message: pb.ClientMessage) -> Iterable[Message]:
        message.share_check.unfit.extend((1, 3, 4))
        yield message

    events: dict[int, list[Event]] = {number: [] for number in range(1, 7)}
    done = _ran(tmp_path, {2: _replaced("share_check", accuse)}, events=events)
    np.testing.assert_array_equal(done.model, np.float32(expected(range(1, 7))))
    assert all(any(isinstance(event, Sent) for event in heard) for heard in events.values())


def test_a_part_of_the_values_is_the_same_part_of_all_whoever_drops_out(tmp_path: Path) -> None:
    """Without steps that are set, one value in so many is sent: masked or not, the same ones."""
    drops = {2: dies_before("update"), 5: dies_before("unmasking")}
    chosen: dict[str, Any] = {
        "fedaq__uplink_resolution": None, "fedaq__downlink_resolution": None, "rounds": 2,
    }  # fmt: skip
    masked = _ran(tmp_path, drops, **chosen)
    assert [record.clients for record in masked.records] == [5, 4]
    assert len(set(masked.model.tolist())) > 1
    drops = {2: dies_before("update"), 5: _dies_in_round_2}
    seen = _ran(
        tmp_path / "seen", drops, **chosen, privacy__secure_aggregation=False,
        coding__common_grid=True,
    )  # fmt: skip
    assert [record.clients for record in seen.records] == [5, 4]
    assert np.array_equal(masked.model, seen.model)


def _dies_in_round_2(message: Message) -> Iterable[Message]:
    if isinstance(message, pb.ClientMessage) and message.range_report.round == 2:
        raise KilledError("killed")
    yield message


def test_who_deals_shares_that_do_not_belong_together_is_shut_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt: list[bytes] = []

    def split_by_2(secret: bytes, holders: list[int], threshold: int) -> dict[int, bytes]:
        """Deal both secrets of client-2 wrongly in the first round; in the next it is gone."""
        if holders[0] != 2 or len(dealt) == 2:
            return split(secret, holders, threshold)
        dealt.append(secret)
        return {holder: b"\0" + bytes([holder]) * 16 for holder in holders}

    monkeypatch.setattr(member, "split", split_by_2)
    events: dict[int, list[Event]] = {2: []}
    done = _ran(tmp_path, {2: honest}, events=events, rounds=2, limits__strikes=1)
    assert [record.clients for record in done.records] == [0, 5]
    np.testing.assert_array_equal(done.model, np.float32(expected({1, 3, 4, 5, 6})))
    [refused] = [event for event in events[2] if isinstance(event, Refused)]
    assert "the shares that you dealt do not belong together" in refused.message
    assert done.run.conduct.strikes == {"client-2": 1}


def test_nothing_of_an_update_is_kept(tmp_path: Path) -> None:
    done = _ran(tmp_path, {3: honest})
    assert done.run.conduct.medians == done.run.conduct.magnitudes == []
    assert done.ranges == {}
    [record] = done.records
    assert record.validations == {}


def test_what_is_charged_is_what_was_sent_and_no_more_than_was_planned(tmp_path: Path) -> None:
    sizes: dict[str, int] = {}

    def weigh(message: Message) -> Iterable[Message]:
        size = 0
        if isinstance(message, Chunk):
            size = len(message.data)
        elif message.WhichOneof("kind") == "range_report":
            size = message.range_report.keys.ByteSize()
        elif message.WhichOneof("kind") in ("mask_shares", "share_check", "unmasking"):
            size = getattr(message, str(message.WhichOneof("kind"))).ByteSize()
        sizes["client-3"] = sizes.get("client-3", 0) + size
        yield message

    done = _ran(tmp_path, {3: weigh}, energy__radio="wifi")
    [record] = done.records
    up = {t.client: t for t in done.transfers if t.direction == "uplink"}
    assert up["client-3"].payload_bytes == sizes["client-3"]
    assert record.uplink_payload_bytes == sum(t.payload_bytes for t in up.values())
    down = [t.payload_bytes for t in done.transfers if t.direction == "downlink"]
    assert record.downlink_payload_bytes == sum(down)
    assert min(down) > 5 * (50 + 86)
