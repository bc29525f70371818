"""What the server holds and writes does not tell two runs apart that have the same sum."""

import asyncio
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaq.codec.chunks import Chunk
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.training import Learner
from privacy.federation import Change, Message, federate, honest, kind_of

CLIENTS = 4
# Columns of the ledger that no two runs have in common.
TIMES = ("seconds", "uplink_wire_bytes", "downlink_wire_bytes")


def _heard(heard: list[Message]) -> Change:
    """Note what a client sends to the server."""

    def change(message: Message) -> Iterable[Message]:
        if isinstance(message, Chunk):
            heard.append(Chunk(message.round, message.offset, bytes(message.data)))
        elif kind_of(message) != "heartbeat":
            copy = pb.ClientMessage()
            copy.CopyFrom(message)
            heard.append(copy)
        yield message

    return change


def _ran(
    folder: Path, parts: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[int, list[Message]], dict[str, Any]]:
    """Run with client n adding `parts[n]` to every weight; return what the server got and wrote."""
    heard: dict[int, list[Message]] = {number: [] for number in parts}
    train = Learner.train

    def trained(
        self: Learner, training: Any, seed: int, name: str, *others: Any, **more: Any
    ) -> float:
        train(self, training, seed, name, *others, **more)
        self.weights[:] = parts[int(name.removeprefix("client-"))]
        return 1.0

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "train", trained)
        changes = {number: _heard(said) for number, said in heard.items()}
        done = asyncio.run(
            federate(folder / "run", changes, CLIENTS, fedaq__uplink_resolution=1 / 8, rounds=2)
        )
    facts = json.loads((folder / "run" / "run.json").read_text())
    for entry in facts["rounds"]:
        for name in ("seconds", "uplink_wire_bytes", "downlink_wire_bytes"):
            entry.pop(name)
    facts.pop("id")
    facts["summary"] = {k: v for k, v in facts["summary"].items() if not k.endswith(TIMES)}
    facts["ledger"] = rows_of(folder / "run" / "ledger.sqlite")
    facts["model"] = done.model.tolist()
    facts["transfers"] = done.transfers
    facts["ranges"] = done.ranges
    return heard, facts


def rows_of(ledger: Path) -> dict[str, list[Any]]:
    """All that the ledger holds, but for names and times of the run."""
    with closing(sqlite3.connect(ledger)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master")]
        rows = {}
        for table in tables:
            if table.startswith("sqlite_"):
                continue
            cursor = database.execute(f"select * from {table} order by 1, 2")
            kept = [at for at, column in enumerate(cursor.description) if column[0] not in TIMES]
            rows[table] = [tuple(row[at] for at in kept) for row in cursor]
    return rows


def _shape(message: Message) -> Any:
    """What of a message is not masked, sealed or drawn at random."""
    if isinstance(message, Chunk):
        return ("chunk", message.round, message.offset, len(message.data))
    copy = pb.ClientMessage()
    copy.CopyFrom(message)
    kind = copy.WhichOneof("kind")
    if kind == "join":
        copy.join.process = b""
    elif kind == "range_report":
        keys = copy.range_report.keys
        keys.CopyFrom(pb.MaskKeys(cipher_key=bytes(len(keys.cipher_key))))
        copy.range_report.training_s = 0
    elif kind == "mask_shares":
        for sealed in copy.mask_shares.shares:
            sealed.sealed = bytes(len(sealed.sealed))
    elif kind == "unmasking":
        for revealed in copy.unmasking.shares:
            revealed.share = bytes(len(revealed.share))
    return copy.SerializeToString()


def test_runs_with_one_sum_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for name, parts in (
        ("first", {1: 2.0, 2: -1.0, 3: 0.25, 4: 0.75}),
        ("second", {1: -1.0, 2: 2.0, 3: 0.75, 4: 0.25}),
    ):
        (tmp_path / name).mkdir()
        runs.append(_ran(tmp_path / name, parts, monkeypatch))
    (first_heard, first), (second_heard, second) = runs
    assert first == second
    for number in first_heard:
        ours, theirs = first_heard[number], second_heard[number]
        assert [_shape(message) for message in ours] == [_shape(message) for message in theirs]


def test_masked_updates_of_one_value_are_uniform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a client sends of its update, over many rounds: chi-squared of its bytes."""
    heard: list[Message] = []
    asyncio.run(
        federate(
            tmp_path / "run", {1: _heard(heard), 2: honest}, CLIENTS, rounds=12,
            fedaq__uplink_resolution=2.0**-6, limits__norm_factor=0,
        )
    )  # fmt: skip
    sent = b"".join(bytes(message.data) for message in heard if isinstance(message, Chunk))
    counts = np.bincount(np.frombuffer(sent, np.uint8), minlength=256)
    expected = len(sent) / 256
    squares = float(((counts - expected) ** 2 / expected).sum())
    assert len(sent) > 4000
    assert abs(squares - 255) < 6 * (2 * 255) ** 0.5
