"""A server process, two client processes, and hostile clients in this one.

What a hostile client may try, one by one, is in tests/server:
test_protocol.py, test_streams.py, test_joins.py.
"""

import asyncio
import json

from fedaq.codec.model import ModelSpec
from fedaq.modules.signature import spec_of
from fedaq.tasks import load_task
from fedaq.v1 import federation_pb2 as pb
from system.commands import Commands, free_port
from system.raw_client import EndedError, raw_client

ROUNDS = 3


async def lies_about_its_size(address: str, spec: ModelSpec) -> list[str]:
    """Return what it is told in every round."""
    told = []
    async with raw_client(address, spec) as client:
        await client.join(client="mallory-1")
        try:
            while True:
                number = (await client.receive("plan")).plan.round
                header = await client.granted(number)
                header.code_bytes += 1
                await client.announce(header)
                told.append((await client.receive("refusal")).refusal.message)
        except EndedError:
            return [*told, (await client.status())[1]]


async def breaks_off(address: str, spec: ModelSpec) -> list[str]:
    """Hang up in the middle of the first update."""
    async with raw_client(address, spec) as client:
        await client.join(client="mallory-2")
        header = await client.granted((await client.receive("plan")).plan.round)
        await client.announce(header)
        await client.chunk(1, 0, b"\xff" * 800)
        client.hang_up()
    return []


async def talks_nonsense(address: str, spec: ModelSpec) -> list[str]:
    """Send bytes that are no message."""
    async with raw_client(address, spec) as client:
        await client.join(client="mallory-3")
        await client.receive("plan")
        await client.send(b"\xff\xff")
        return [(await client.status())[1]]


async def never_answers(address: str, spec: ModelSpec) -> list[str]:
    """Take a plan and let the deadline pass."""
    async with raw_client(address, spec) as client:
        await client.join(client="mallory-4")
        await client.receive("plan")
        refusal = (await client.receive("refusal")).refusal
        assert refusal.reason == pb.REFUSAL_REASON_DEADLINE
        return [refusal.message]


HOSTILE = (lies_about_its_size, breaks_off, talks_nonsense, never_answers)


def test_the_honest_clients_get_the_model_they_would_get_alone(commands: Commands) -> None:
    # Steps that follow from noise are finer the fewer take part, and those who attack count.
    steps = ("--set", "fedaq.uplink_resolution=0.1", "--set", "fedaq.downlink_resolution=0.03")
    common = ("--task", "digits", "--rounds", ROUNDS, "--seed", 3)
    alone = commands.start(
        "run", *common, *steps, "--clients", 2, "--engine", "local", "--out", "alone"
    )  # fmt: skip
    port = free_port()
    server = commands.start(
        "server", *common, *steps, "--clients", 2 + len(HOSTILE), "--port", port, "--out", "beset",
        "--set", "network.round_deadline_s=8", "--set", "network.return_wait_s=0.5",
        "--set", "limits.examples_factor=1000",
    )  # fmt: skip
    clients = [
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part, "--seed", 3)
        for part in ("1/2", "2/2")
    ]
    spec = spec_of(load_task("digits", None).model())

    async def attack() -> list[list[str]]:
        return await asyncio.gather(*(act(f"127.0.0.1:{port}", spec) for act in HOSTILE))

    lied, _, garbled, silent = asyncio.run(attack())
    assert len(lied) == ROUNDS + 1
    assert "its shapes and bits need" in lied[0]
    assert lied[-1].startswith("shut out of this run after 3 refusals; the last, in round 3: the p")
    assert garbled == ["a message is not a fedaq.v1.ClientMessage"]
    assert silent == ["the update was not there 8 s after the round began"]

    for running in (server, *clients, alone):
        ended = running.wait()
        assert (ended.code, ended.err) == (0, "")
        assert "Traceback" not in ended.out
    beset = commands.folder / "beset"
    result, expected = (
        (folder / "model.safetensors").read_bytes() for folder in (beset, commands.folder / "alone")
    )
    assert result == expected
    run = json.loads((beset / "run.json").read_text())
    assert [entry["name"] for entry in run["shut_out"]] == ["mallory-1"]
    rounds = run["rounds"]
    assert [(entry["clients"], entry["left_out"]) for entry in rounds] == [(2, 4), (2, 1), (2, 1)]
