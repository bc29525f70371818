"""What an operator sees of a server and its clients: logs, metrics, health, reflection."""

import asyncio
import json
import socket
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from prometheus_client.parser import text_string_to_metric_families

from fedaq.errors import UserError
from fedaq.net.grpc_options import SERVICE
from fedaq.v1 import federation_pb2 as pb
from fedaq_server.metrics import Metrics, exposed
from fedaq_server.run import Run
from system.commands import Commands, free_port
from system.live import learner, live_server, settings_of, take_part
from system.raw_client import raw_client

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_logs_tell_a_run_from_the_first_client_to_the_last(commands: Commands) -> None:
    port, metrics_port = free_port(), free_port()
    server = commands.start(
        "server", "--task", "digits", "--clients", 2, "--rounds", 2, "--port", port,
        "--metrics-port", metrics_port, "--json-logs", "--out", "run",
    )  # fmt: skip
    # A client that finds nobody yet says so.
    server.wait_for('"listening"', on_error=True)
    with_json, quiet = (
        commands.start("client", "--server", f"127.0.0.1:{port}", "--partition", part, flag)
        for part, flag in (("1/2", "--json-logs"), ("2/2", "--quiet"))
    )
    ended = server.wait()
    assert (ended.code, ended.out) == (0, "")
    lines = events_of(ended.err)
    names = [line["event"] for line in lines]
    assert names[:2] == ["metrics listening", "listening"]
    assert names[2:4] == ["client joined"] * 2
    assert names[4:9] == ["round began", "round committed"] * 2 + ["run over"]
    assert names[9:] == ["client left"] * 2, lines[9:]
    for line in lines:
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert line["level"] == "info"
    recorded = json.loads((commands.folder / "run" / "run.json").read_text())["rounds"]
    committed = [line for line in lines if line["event"] == "round committed"]
    assert [{name: line[name] for name in recorded[0]} for line in committed] == recorded

    ended = with_json.wait()
    assert (ended.code, ended.out) == (0, "")
    assert [line["event"] for line in events_of(ended.err)] == [
        "started", "joined", "round done", "round done", "run over"
    ]  # fmt: skip
    ended = quiet.wait()
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_with_json_logs_a_failure_is_an_event_too(commands: Commands) -> None:
    port = free_port()
    ended = commands.run(
        "server", "--clients", 1, "--port", port, "--json-logs",
        "--set", "network.join_timeout_s=0.1",
    )  # fmt: skip
    assert (ended.code, ended.out) == (1, "")
    failed = events_of(ended.err)[-1]
    assert (failed["event"], failed["level"], failed["exit_code"]) == ("failed", "error", 1)
    assert failed["message"].startswith("0 of 1 clients connected")


def test_a_quiet_server_still_says_what_went_wrong(commands: Commands) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = commands.run(
            "server", "--quiet", "--port", 0, "--metrics-port", taken.getsockname()[1]
        )
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("fedaq: metrics: cannot listen on 127.0.0.1:")
    assert len(ended.err.splitlines()) == 1


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Return the samples by name and the value of their one label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_the_sums_of_the_record_and_name_what_was_refused(tmp_path: Path) -> None:
    settings = settings_of(2, rounds=3, energy__budget_j=1.0)

    async def lie(run: Run, address: str) -> None:
        async with raw_client(address, run.spec) as client:
            await client.join()
            plan = (await client.receive("plan")).plan
            await client.report(plan.round, ranges=[])
            refusal = (await client.receive("refusal")).refusal
            assert refusal.reason == pb.REFUSAL_REASON_WRONG_SHAPE
        async with raw_client(address, run.spec) as client:
            await client.join(protocol_version=1)
            await client.status()

    async def scenario() -> tuple[Run, dict[tuple[str, str], float]]:
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            await asyncio.gather(take_part(address, "honest", learner(0, 1)), lie(run, address))
        with exposed(run.metrics, "127.0.0.1", 0) as port:
            return run, await asyncio.to_thread(scrape, port)

    run, samples = asyncio.run(scenario())
    assert samples["fedaq_rounds_total", ""] == 3
    assert samples["fedaq_updates_total", ""] == 3
    assert samples["fedaq_joins_total", ""] == 2
    assert samples["fedaq_connected_clients", ""] == 0
    assert samples["fedaq_refusals_total", "wrong_shape"] == 1
    assert samples["fedaq_left_out_total", "wrong_shape"] == 1
    assert samples["fedaq_refusals_total", "deadline"] == 0
    assert samples["fedaq_join_refusals_total", "failed_precondition"] == 1
    energy_j = sum(record.energy_j for record in run.records)
    assert samples["fedaq_energy_joules_total", ""] == pytest.approx(energy_j)
    assert samples["fedaq_energy_budget_left_joules", ""] == pytest.approx(1.0 - energy_j)
    for way in ("uplink", "downlink"):
        for kind in ("payload", "wire"):
            name = f"{way}_{kind}_bytes"
            total = sum(getattr(record, name) for record in run.records)
            assert samples[f"fedaq_{name}_total", ""] == total > 0
    assert samples["fedaq_test_accuracy_ratio", ""] == run.records[-1].test_accuracy
    for phase in ("broadcast", "exchange", "aggregation", "evaluation"):
        assert samples["fedaq_phase_seconds_count", phase] == 3
    assert samples["fedaq_round_seconds_sum", ""] == pytest.approx(
        sum(record.seconds for record in run.records)
    )


def test_health_and_reflection_of_a_live_server(tmp_path: Path, commands: Commands) -> None:
    async def scenario() -> list[int]:
        settings = settings_of(1, rounds=1)
        async with live_server(settings, tmp_path, lambda run, record: None) as (_, address):
            async with grpc.aio.insecure_channel(address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                statuses = [
                    (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status
                    for service in ("", SERVICE)
                ]
                with pytest.raises(grpc.aio.AioRpcError) as unknown:
                    await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
                assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
            await asyncio.to_thread(reflects, address)
            healthy = await asyncio.to_thread(commands.run, "health", address)
            assert (healthy.code, healthy.out) == (0, f"{address}: SERVING\n")
            watching = asyncio.create_task(watch(address, statuses))
            await take_part(address, "only", learner(0, 1))
            await watching
        gone = await asyncio.to_thread(commands.run, "health", address)
        assert (gone.code, gone.out) == (1, "")
        assert gone.err.startswith(f"fedaq: {address}: ")
        assert len(gone.err.splitlines()) == 1
        return statuses

    assert asyncio.run(scenario()) == [SERVING, SERVING, SERVING, NOT_SERVING]


async def watch(address: str, statuses: list[int]) -> None:
    """Append what a watcher is told until the server stops."""
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
            statuses.append(answer.status)
            if answer.status == NOT_SERVING:
                return


def reflects(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        assert database.FindFileContainingSymbol(SERVICE).name == "fedaq/v1/federation.proto"


def test_a_port_of_metrics_that_is_taken_is_a_mistake_of_the_user() -> None:
    with (
        exposed(Metrics(None), "127.0.0.1", 0) as port,
        pytest.raises(UserError, match=f"metrics: cannot listen on 127.0.0.1:{port}"),
        exposed(Metrics(None), "127.0.0.1", port),
    ):
        pass
