"""What the doctor says to healthy and to ailing machines."""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedaq.cli import checkup
from fedaq.cli.checkup import Finding
from fedaq.errors import FedaqError, UserError
from fedaq.net.grpc_options import DESCRIBE_PATH, SERVICE
from fedaq.process import limits
from fedaq.settings import Settings, load_settings
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.cli.checkup import Described, client_findings, clocks, describe
from fedaq_client.transport.access import PLAIN, access_of
from fedaq_server.cli.checkup import room, server_findings
from fedaq_server.identity.certificates import issue
from fedaq_server.identity.tokens import make_tokens
from fedaq_server.transport.rate_limit import CALLS
from system.commands import Commands, free_port

PORT = free_port()
ADDRESS = f"localhost:{PORT}"
OTHER_TASK = """
from dataclasses import replace
from torch import nn
from fedaq.tasks.digits import task as digits
task = replace(digits, model=lambda: nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def folder(lasting_commands: Commands) -> Iterator[Path]:
    """Certificates and tokens, and a server that wants both."""
    folder = lasting_commands.folder
    issue(folder / "certs", hosts=["localhost"], clients=["kitchen"])
    issue(folder / "others", hosts=["localhost"], clients=["kitchen"])
    make_tokens(folder / "tokens", ["kitchen"])
    (folder / "stranger.token").write_text("kitchen:wrong")
    server = lasting_commands.start(
        "server", "--clients", 2, "--rounds", 9, "--port", PORT, "--out", "run",
        "--tls", folder / "certs" / "server", "--tokens", folder / "tokens",
    )  # fmt: skip
    server.wait_for("listening on")
    yield folder


def settings_of(**flags: Any) -> Settings:
    return load_settings(
        environment={}, flags={name.replace("__", "."): value for name, value in flags.items()}
    )


def client(folder: Path, **flags: Any) -> dict[str, Finding]:
    known = {
        "client__server": ADDRESS,
        "network__tls": folder / "certs" / "clients" / "kitchen",
        "network__token_file": folder / "kitchen.token",
    }
    found = client_findings(settings_of(**{**known, **flags}))
    return {finding.subject: finding for finding in found}


def test_a_client_in_order(folder: Path) -> None:
    found = client(folder)
    assert not [finding for finding in found.values() if finding.verdict == "wrong"]
    assert [*found] == [
        "system", "versions", "clock", "cores", "threads", "codec", "identity", "certificates",
        "reach", "server", "both clocks", "task", "data", "memory",
    ]  # fmt: skip
    assert found["identity"].says == "kitchen, proved by a token"
    assert "kitchen, valid for 364 days" in found["certificates"].says
    assert "task digits, round 0 of 9 is over, 0 clients are there" in found["server"].says
    assert found["task"].says == "digits, the model is the server's"
    assert found["data"].says == "1,437 examples are this client's, of 1,437 here"


AILING: dict[str, tuple[Callable[[Path], dict[str, Any]], str, str, str]] = {
    "a wrong token": (
        lambda f: {"network__token_file": f / "stranger.token"},
        "server", "the server does not know this client: not authenticated", "",
    ),
    "another authority": (
        lambda f: {"network__tls": f / "others/clients/kitchen"},
        "server", "is not signed by", "",
    ),
    "no TLS": (
        lambda f: {"network__tls": None},
        "server", "speaks TLS: give this client certificates with --tls FOLDER", "",
    ),
    "no server": (
        lambda f: {"client__server": f"localhost:{free_port()}"},
        "reach", "is there, and nobody listens on port", "start fedaq server, with --host 0.0.0.0",
    ),
    "no such name": (
        lambda f: {"client__server": "nowhere.invalid:50051"},
        "reach", "there is no address for the name nowhere.invalid", "is it spelled right?",
    ),
    "another name": (
        lambda f: {"client__name": "garden"},
        "identity", "the certificate or token is for kitchen", "",
    ),
    "another model": (
        lambda f: {"task": "doctors_other:task"},
        "task", "the model is not the server's: tensor 1 is weight 10x64", "the server's task, ",
    ),
    "no such task": (
        lambda f: {"task": "digit"},
        "task", "task 'digit' is unknown", "fedaq check-task digit says more",
    ),
    "no data": (
        lambda f: {"client__partition": "1/9999"},
        "data", "1437", "fedaq check-task digits says more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AILING)
def test_a_client_that_could_not_take_part(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, subject, says, remedy = AILING[name]
    (tmp_path / "doctors_other.py").write_text(OTHER_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    found = client(folder, **change(folder))
    assert [f.subject for f in found.values() if f.verdict == "wrong"] == [subject]
    assert says in found[subject].says
    assert remedy in found[subject].remedy


def test_a_port_that_does_not_speak_grpc(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedaq_client.transport.diagnosis.PATIENCE_S", 0.2)
    monkeypatch.setattr("fedaq_client.cli.checkup.PATIENCE_S", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        found = client(folder, client__server=f"127.0.0.1:{mute.getsockname()[1]}")
    assert found["server"].verdict == "wrong"


def test_a_server_of_another_program(folder: Path) -> None:
    """It answers, with bytes that are no description."""
    server = grpc.server(ThreadPoolExecutor(1))
    method = DESCRIBE_PATH.rpartition("/")[2]
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff\xff")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(UserError, match="is not fedaq's server"):
            asyncio.run(describe(f"127.0.0.1:{port}", PLAIN))
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    ("ahead_s", "verdict"), [(-3600, "look"), (0.5, "ok"), (90, "look"), (nan, "look")]
)
def test_clocks_that_differ(ahead_s: float, verdict: str) -> None:
    described = Described(pb.Description(unix_time_s=1000), 999 + ahead_s, 1001 + ahead_s)
    found = clocks(described)
    assert found.verdict == verdict
    assert ("ahead of" if ahead_s > 0 else "behind") in found.says


def server(**flags: Any) -> dict[str, Finding]:
    found = server_findings(settings_of(**flags), None)
    return {finding.subject: finding for finding in found}


def test_a_server_in_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = server(
        network__host="0.0.0.0", network__port=free_port(),
        network__tls=folder / "certs" / "server",
    )  # fmt: skip
    assert {finding.verdict for finding in found.values() if finding.subject != "cores"} == {"ok"}
    assert found["clients"].says == "each proves who it is by a certificate"


def test_a_server_whose_port_is_taken_and_whose_folder_is_a_file(folder: Path) -> None:
    taken = server(network__port=PORT)["port"]
    assert (taken.verdict, taken.says) == ("wrong", f"127.0.0.1:{PORT}: Address already in use")
    file = folder / "stranger.token"
    assert checkup.disk(file / "runs", 1, "a run").verdict == "wrong"
    assert checkup.disk(folder / "new" / "runs", 2**60, "a run").verdict == "wrong"
    assert checkup.disk(folder / "new" / "runs", 1, "a run").verdict == "ok"


@pytest.mark.parametrize(
    ("name", "processor", "verdict", "says"),
    [
        ("Linux", "x86_64", "ok", "Linux on x86_64: FedAQ is made for it and tested on it"),
        ("Linux", "aarch64", "ok", "Linux on aarch64: FedAQ is made for it; a client was tested"),
        ("Darwin", "arm64", "look", "macOS on arm64: FedAQ is built for it, and was never run"),
        ("Windows", "AMD64", "look", "Windows on AMD64: FedAQ is built for it, and was never run"),
        ("FreeBSD", "amd64", "look", "FreeBSD on amd64: FedAQ is neither built nor tested for it"),
        ("Windows", "ARM64", "look", "Windows on ARM64: FedAQ is neither built nor tested for it"),
    ],
)
def test_which_systems_are_meant(name: str, processor: str, verdict: str, says: str) -> None:
    found = checkup.system(name, processor)
    assert (found.verdict, found.says[: len(says)]) == (verdict, says)


def test_every_wheel_is_for_a_system_that_the_doctor_knows() -> None:
    """As `native/compile.py` names them, as Python does, and as the page does."""
    names = {
        "x86_64-linux": ("Linux", "x86_64", "Linux on x86-64"),
        "aarch64-linux": ("Linux", "aarch64", "Linux on aarch64"),
        "aarch64-macos": ("Darwin", "arm64", "macOS on arm64"),
        "x86_64-macos": ("Darwin", "x86_64", "macOS on x86-64"),
        "x86_64-windows": ("Windows", "AMD64", "Windows on x86-64"),
    }
    root = Path(__file__).parents[2]
    source = (root / "native" / "compile.py").read_text()
    targets = re.findall(r'^    "(\w+-\w+)": Target\(', source, re.MULTILINE)
    assert set(targets) == set(names)
    known = {(name, processor) for name, processor, _ in names.values()}
    assert {*checkup.TESTED, *checkup.ONLY_BUILT} == known
    page = (root / "docs" / "reference" / "other-systems.md").read_text()
    for _, _, there in names.values():
        assert f"\n| {there} | " in page


def test_limits_of_the_machine() -> None:
    assert room(settings_of(clients=500), 1024).verdict == "wrong"
    assert room(settings_of(clients=450), 1024).verdict == "ok"
    assert room(settings_of(clients=450, network__dashboard_port=0), 1024).verdict == "wrong"
    assert room(settings_of(clients=800, clients_per_round=50), 1024).verdict == "ok"
    assert checkup.clock(0.0).verdict == "wrong"
    assert checkup.clock(time.time()).verdict == "ok"
    assert checkup.cores(2, 9.0).verdict == "look"
    assert checkup.cores(2, 0.5).verdict == "ok"
    free = limits.free_memory()
    assert checkup.memory(free).verdict == "wrong"
    assert checkup.memory(int(0.9 * free / 4 / checkup.MODELS_BESIDE)).verdict == "look"
    assert checkup.memory(1000).verdict == "ok"


def test_a_machine_without_room_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Thread

    started = iter(range(5))

    def start(self: Thread) -> None:
        if next(started, None) is None:
            raise RuntimeError("can't start new thread")
        self._started.set()  # type: ignore[attr-defined]

    monkeypatch.setattr(Thread, "start", start)
    monkeypatch.setattr(Thread, "join", lambda self: None)
    found = checkup.threads()
    assert (found.verdict, found.says) == ("wrong", "no more than 5 of 24 could be started")


def test_a_library_of_the_codec_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedaq.codec import kernels

    def missing() -> None:
        raise FedaqError("the codec's library cannot be loaded")

    assert checkup.codec().verdict == "ok"
    monkeypatch.setattr(kernels, "_loops", missing)
    assert checkup.codec().verdict == "wrong"


def test_memory_and_cores_within_a_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "control_group", {
        "memory.max": "1000", "memory.current": "400", "cpu.max": "50000 100000",
        "memory.stat": "anon 300\ninactive_file 50",
    }.__getitem__)  # fmt: skip
    assert limits.free_memory() == 650
    assert limits.usable_cores() == 0.5
    monkeypatch.setattr(limits, "control_group", lambda name: "max")
    assert limits.free_memory() > 1e8
    assert limits.usable_cores() == len(os.sched_getaffinity(0))


def test_a_system_without_control_groups_of_version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "4:memory:/docker/1\n1:name=systemd:/\n")
    assert limits.control_group("memory.max") == ""


def test_the_commands_end_with_what_they_found(folder: Path, commands: Commands) -> None:
    healthy = commands.run(
        "doctor", "client", "--server", ADDRESS, "--token-file", folder / "kitchen.token",
        "--tls", folder / "certs/clients/kitchen",
    )  # fmt: skip
    assert (healthy.code, healthy.err) == (0, "")
    assert healthy.out.splitlines()[-1] == "nothing is in the way"
    ailing = commands.run("doctor", "server", "--port", PORT)
    assert (ailing.code, ailing.err) == (1, "")
    assert "✗ port" in ailing.out
    assert ailing.out.splitlines()[-1] == "1 must be put right before this can work"


def test_a_service_manager_hears_of_a_client(commands: Commands) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(commands.folder / "notify"))
        manager.settimeout(60)
        commands.start("server", "--clients", 1, "--rounds", 2, "--port", port)
        client = commands.start(
            "client", "--server", f"127.0.0.1:{port}",
            env={"NOTIFY_SOCKET": str(commands.folder / "notify")},
        )  # fmt: skip
        assert client.wait().code == 0
        states = [manager.recv(100).decode() for _ in range(4)]
    assert states == [
        "READY=1", "STATUS=round 1 of 2 is done", "STATUS=round 2 of 2 is done", "STOPPING=1"
    ]  # fmt: skip


def test_a_describing_server_is_asked_by_nobody_unknown(folder: Path) -> None:
    """The description names the task and the model: as secret as the run itself."""
    settings = settings_of(network__tls=folder / "certs" / "clients" / "kitchen")
    with pytest.raises(Exception, match="does not know this client"):
        asyncio.run(describe(ADDRESS, access_of(settings.network, ADDRESS, {})))


def test_a_flood_of_questions_is_not_answered(folder: Path) -> None:
    """The last of them all: this address is not answered for a while."""
    access = access_of(
        settings_of(
            network__tls=folder / "certs" / "clients" / "kitchen",
            network__token_file=folder / "kitchen.token",
        ).network,
        ADDRESS,
        {},
    )

    async def flood() -> str:
        try:
            for _ in range(2 * CALLS):
                await describe(ADDRESS, access)
        except FedaqError as error:
            return str(error)
        return ""

    assert "asked too often" in asyncio.run(flood())
