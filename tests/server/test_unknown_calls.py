"""What grpcio's server would not outlive: calls by names of any bytes, the end of its loop."""

import asyncio
import gc
import importlib.util
import logging
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc

from fedaq.net.grpc_options import PATH, SERVICE
from fedaq_server.transport import grpc_workaround
from fuzz.raw_bytes import HEADERS, PREFACE, SETTINGS, frame, header_block
from system.live import learner, live_server, settings_of, take_part

PATHS = [b"/fedaq.v1.Fe\xe4eration/Participate", b"\xff", b"/", PATH.encode() + b"s"]
END_OF_HEADERS = 4
GC_HEAD_BYTES, EMPTY_BYTES = 16, sys.getsizeof(b"")


@pytest.mark.parametrize("path", PATHS)
def test_a_call_of_an_unknown_method_is_answered_and_the_run_goes_on(
    tmp_path: Path, path: bytes
) -> None:
    async def scenario() -> int:
        settings = settings_of(1, rounds=1)
        async with live_server(settings, tmp_path, lambda run, record: None) as (run, address):
            host, _, port = address.partition(":")
            for _ in range(3):  # the first could be the last that is taken
                reader, writer = await asyncio.open_connection(host, int(port))
                block = header_block({":path": path})
                writer.write(PREFACE + frame(SETTINGS, 0, 0, b""))
                writer.write(frame(HEADERS, END_OF_HEADERS, 1, block))
                async with asyncio.timeout(10):
                    answer = b""
                    while b"grpc-status" not in answer:
                        answer += await reader.read(4096)
                writer.close()
            async with grpc.aio.insecure_channel(address) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as unknown:
                    await channel.unary_unary(f"/{SERVICE}/Nothing")(b"")  # type: ignore[call-arg]
                assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
            await take_part(address, "honest", learner(0, 1))
        return len(run.records)

    assert asyncio.run(scenario()) == 1


def test_grpc_writes_into_nothing_that_was_freed_when_all_tasks_are_cancelled() -> None:
    """As at the end of `asyncio.run`: of grpcio's own server, all of these were written to."""

    def waiting_calls() -> int:
        return sum(type(each) is cygrpc.RPCState for each in gc.get_objects())

    async def scenario() -> None:
        server = grpc_workaround.robust_server([])
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
        methods = {f"M{number}": handler for number in range(20)}
        server.add_registered_method_handlers("a.B", methods)
        server.add_insecure_port("127.0.0.1:0")
        before, others_wait = waiting_calls(), set(grpc_workaround._waiting)
        await server.start()
        await asyncio.sleep(0.05)
        assert waiting_calls() == before + 21
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.05)
        assert waiting_calls() == before + 21
        # What takes the place of memory that was freed.
        size = cygrpc.RPCState.__basicsize__ + GC_HEAD_BYTES - EMPTY_BYTES
        others = [b"\xff" * size for _ in range(3000)]
        with suppress(asyncio.CancelledError):  # of the task that hands on calls
            await server.stop(0.1)
        await asyncio.sleep(0.05)
        assert (waiting_calls(), grpc_workaround._waiting) == (before, others_wait)
        assert not [each for each in others if each.count(0)]

    async def within_a_time() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(within_a_time())


# ---- Another grpcio ----------------------------------------------------------

PARTS, ATTRIBUTES = grpc_workaround._PARTS, grpc_workaround._ATTRIBUTES


def loaded_with(monkeypatch: pytest.MonkeyPatch, cygrpc: object) -> ModuleType:
    """Return a fresh copy of the module, that found this in the place of grpcio's core."""
    import grpc._cython

    monkeypatch.setattr(grpc._cython, "cygrpc", cygrpc)
    spec = importlib.util.spec_from_file_location("fresh_copy", grpc_workaround.__file__)
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def core_without(part: str) -> SimpleNamespace:
    """Return what grpcio's core offers, without one part of it."""
    owner, _, attribute = part.rpartition(".")
    offered = dict(vars(cygrpc))
    if not owner:
        del offered[part]
    else:
        there = getattr(cygrpc, owner)
        kept = {name: getattr(there, name) for name in dir(there) if not name.startswith("__")}
        del kept[attribute]
        offered[owner] = type(owner, (), kept)
    return SimpleNamespace(**offered)


def core_with(part: str, instead: object) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(cygrpc), part: instead})


def is_ordinary(fresh: ModuleType, caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """Check that there is grpcio's own server, and one line that says what is lost and why."""

    async def server() -> Any:
        return fresh.robust_server([("grpc.so_reuseport", 0)])

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        made = asyncio.run(server())
    assert type(made) is grpc.aio._server.Server
    (line,) = caplog.messages
    assert line.startswith(f"grpcio {grpc.__version__}: ")
    assert line.endswith("; a request for a method whose name is not UTF-8 can end this server")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("part", PARTS)
def test_where_a_part_of_grpcio_is_missing_there_is_its_own_server(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = loaded_with(monkeypatch, core_without(part))
    monkeypatch.undo()
    is_ordinary(fresh, caplog, part.rpartition(".")[2])


@pytest.mark.parametrize("part", [name for name, known in PARTS.items() if known is not None])
def test_where_a_part_takes_something_else_too(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, _, attribute = part.rpartition(".")
    there: Any = lambda nothing_that_is_known: None  # noqa: E731
    if owner:
        changed = core_with(owner, type(owner, (cygrpc.AioServer,), {attribute: there}))
    else:
        changed = core_with(part, there)
    fresh = loaded_with(monkeypatch, changed)
    monkeypatch.undo()
    is_ordinary(fresh, caplog, f"{part} takes (nothing_that_is_known)")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_where_the_server_keeps_its_parts_elsewhere(
    attribute: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from grpc.aio import _server

    other = {name: f"self.{name} = None" for name in ATTRIBUTES if name != attribute}
    scope: dict[str, Any] = {}
    exec(f"class Server:\n    def __init__(self):\n        {'; '.join(other.values())}", scope)
    monkeypatch.setattr(_server, "Server", scope["Server"])
    fresh = loaded_with(monkeypatch, cygrpc)
    monkeypatch.undo()
    is_ordinary(fresh, caplog, f"grpc.aio.Server has no {attribute}")


def test_where_there_is_no_such_core_or_another_constructor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "grpc.aio._server", None)
    monkeypatch.delattr("grpc.aio._server")
    fresh = loaded_with(monkeypatch, cygrpc)
    monkeypatch.undo()
    is_ordinary(fresh, caplog, "grpc.aio._server")

    class More(cygrpc.AioServer):  # type: ignore[misc]
        def __init__(self, *six: Any, xds: bool) -> None:
            super().__init__(*six)

    fresh = loaded_with(monkeypatch, core_with("AioServer", More))
    monkeypatch.undo()
    is_ordinary(fresh, caplog, "xds")


def test_every_private_part_that_is_used_is_looked_for() -> None:
    """Whatever the module takes from grpcio's core by name stands in its list."""
    source = Path(grpc_workaround.__file__).read_text()
    used = set(re.findall(r"\bcygrpc\.(\w+)", source)) - {"AioServer"}
    listed = {part for part in PARTS if "." not in part} - {"AioServer"}
    assert used == listed
    assert set(re.findall(r"super\(\)\.(\w+)", source)) <= {p.rpartition(".")[2] for p in PARTS}
    assert set(re.findall(r"self\.(_\w+) = ", source)) == set(ATTRIBUTES)


def test_this_grpcio_has_them_all(caplog: pytest.LogCaptureFixture) -> None:
    async def server() -> Any:
        return grpc_workaround.robust_server([])

    made = asyncio.run(server())
    assert type(made) is grpc_workaround._Server
    assert not caplog.messages
