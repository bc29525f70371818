"""What fuzzing found, one by one, and that a finding would be seen."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedaq.cli import inspection
from fedaq.codec import model
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.errors import UserError
from fedaq.process.terminal import console
from fedaq.v1 import federation_pb2 as pb
from fuzz.live import FindingError, beset
from fuzz.mutation import mutate
from fuzz.run import GROWTH_MB, Row
from fuzz.targets import SPEC, TARGETS, framed, unframed

STEERING = ("[/x]", "[bold", "\x1b[2J", "\\[/x]", "\u202e")


def captured(spec: ModelSpec, sender: str = "c") -> bytes:
    header = pb.PayloadHeader(tensors=[pb.TensorHeader(codec=pb.CODEC_ZERO)] * len(spec.tensors))
    return pb.CapturedPayload(
        model=model.to_message(spec), header=header, sender=sender
    ).SerializeToString()


@pytest.mark.parametrize("name", STEERING)
def test_names_in_a_payload_file_are_shown_as_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.payload"
    path.write_bytes(captured(ModelSpec((TensorSpec(name, (3,)),)), sender=name))
    with console.capture() as capture:
        inspection.show(path)
    shown = capture.get()
    plain = "".join(c if c.isprintable() else "?" for c in name)
    assert shown.count(plain) == 2
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_payload_file_of_no_values_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.payload"
    path.write_bytes(captured(ModelSpec((TensorSpec("empty", (0,)),))))
    with pytest.raises(UserError, match="its model has no values"):
        inspection.show(path)


def test_a_payload_file_of_too_many_values_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise MemoryError

    path = tmp_path / "x.payload"
    path.write_bytes(captured(ModelSpec((TensorSpec("vast", (2**31,)),))))
    monkeypatch.setattr(np, "zeros", full)
    with pytest.raises(UserError, match="do not fit into memory"):
        inspection.show(path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, json.dumps({"summary": [], "rounds": []}), '{"rounds": {"0": 1}}']
)
def test_a_run_file_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"not the run\.json of a fedaq run"):
        inspection.show(path)


# ---- That the fuzzer fuzzes --------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_of_a_target_is_decoded_to_its_end(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        messages = len(list(unframed(seed))) if target.framed else 1
        assert target.decode(seed) == messages


def test_messages_that_are_changed_reach_every_field() -> None:
    budget = pb.DeviceBudget(joules=1.0)
    relayed = pb.Relayed(clients=2, examples=20)
    right = pb.ClientMessage(
        join=pb.Join(client="c", model=model.to_message(SPEC), budget=budget, relayed=relayed)
    )
    changed = set()
    for number in range(500):
        other = pb.ClientMessage()
        other.CopyFrom(right)
        mutate(other, random.Random(number))
        kind = other.WhichOneof("kind")
        if kind != "join":
            changed.add(kind)
            continue
        for field in pb.Join.DESCRIPTOR.fields:
            if repr(getattr(other.join, field.name)) != repr(getattr(right.join, field.name)):
                changed.add(field.name)
    others = {field.name for field in pb.ClientMessage.DESCRIPTOR.fields} - {"join"}
    assert changed >= {field.name for field in pb.Join.DESCRIPTOR.fields} - {"radio"} | others


def test_a_finding_of_the_guided_fuzzer_ends_it_with_an_error(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    broken = Path(__file__).with_name("targets.py").read_text()
    broken = broken.replace("with suppress(DecodeError, ValueError):", "if True:")
    assert "if True:" in broken
    for name in ("guided.py", "mutation.py"):
        (tmp_path / name).write_text(Path(__file__).with_name(name).read_text())
    (tmp_path / "targets.py").write_text(broken)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "guided.py"), "signature", "20000", "1", "512",
         str(tmp_path / "found")],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode != 0
    assert list((tmp_path / "found").glob("crash-*"))


def test_a_server_that_dies_is_a_finding(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with beset("fixed", 1024, tmp_path) as (server, _):
            server.process.kill()
            server.process.wait()

    with pytest.raises(FindingError, match="the server ended with -9"):
        asyncio.run(scenario())


def test_memory_that_grows_is_a_finding() -> None:
    assert Row("x", 1, 1.0, GROWTH_MB + 1).judged().finding == "memory grows"
    assert not Row("x", 1, 1.0, GROWTH_MB - 1).judged().finding


def test_framing_is_undone() -> None:
    messages = [b"", b"a", bytes(300)]
    assert list(unframed(framed(messages))) == messages
    assert list(unframed(framed(messages)[:-1])) == [b"", b"a", bytes(299)]
