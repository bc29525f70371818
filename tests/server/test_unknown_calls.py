"""Calls of methods that the server does not have, by names of any bytes, on a raw connection."""

import asyncio
from pathlib import Path

import grpc
import pytest

from fedaq.net.grpc_options import PATH, SERVICE
from fuzz.live import HEADERS, PREFACE, SETTINGS, frame, header_block
from system.live import learner, live_server, settings_of, take_part

PATHS = [b"/fedaq.v1.Fe\xe4eration/Participate", b"\xff", b"/", PATH.encode() + b"s"]
END_OF_HEADERS = 4


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
