"""gRPC's core speaks on standard error: its words become ours, and no others are lost."""

import logging
import subprocess
import sys

import pytest

from fedaq_server.transport.tls_failures import Trace

FAILURE = (
    "I1124 19:02:33.374354   19285 ssl_transport_security.cc:2563] Handshake failed with error "
    "SSL_ERROR_SSL: error:100000c0:SSL routines:OPENSSL_internal:"
    "PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate verification context\n"
    "I1124 19:02:33.374436   19285 handshaker.cc:155] CallNextHandshakerLocked: error=UNKNOWN: "
    "Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000c0:SSL routines:"
    "OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate verification "
    "context: OK\n"
    "=== Source Location Trace: === \n"
    "src/core/util/status_helper.cc:68\n"
    " shutdown=false index=2, args={endpoint=0x7f7314001c20, args={"
    "grpc.internal.endpoint_peer_address=ipv6:%5B::1%5D:{port}, grpc.so_reuseport=0}, "
    "exit_early=0}\n"
    "\n"
)


def lines(text: str) -> list[bytes]:
    return [line.encode() for line in text.splitlines(keepends=True)]


def test_a_failed_handshake_is_told_once_with_its_peer(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace()
    with caplog.at_level(logging.WARNING):
        for port in ("1", "2"):
            rest = [trace.take(line) for line in lines(FAILURE.replace("{port}", port))]
            assert not any(rest)
    assert caplog.messages == ["refused ipv6:[::1]:1: it showed no certificate"]


def test_what_nobody_foresaw_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace()
    with caplog.at_level(logging.WARNING):
        trace.take(
            b"I1124 19:02:33.374436   19285 handshaker.cc:155] CallNextHandshakerLocked: "
            b"error=UNKNOWN: the moon is full shutdown=false index=2, args={a=b}\n"
        )
    assert caplog.messages == [
        "refused a stranger: the handshake failed: UNKNOWN: the moon is full"
    ]


def test_words_of_others_pass(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace()
    others = "\nfedaq: a mistake\n shutdown=no\nTraceback (most recent call last):\n"
    mixed = [*lines(others), *lines(FAILURE), *lines("last\n\n")]
    assert b"".join(map(trace.take, mixed)).decode() == f"{others}last\n\n"


SCRIPT = """
import os, sys
from fedaq_server.transport.tls_failures import reported
with reported():
    os.write(2, b"from C\\n")
    os.system("echo from a child >&2")
    os.write(2, b"no end of line")
print(" after", file=sys.stderr)
raise SystemExit("bye")
"""


def ended(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )


def test_standard_error_is_whole_while_it_is_read() -> None:
    done = ended(SCRIPT)
    assert done.stderr == "from C\nfrom a child\nno end of line after\nbye\n"
    assert done.returncode == 1


LOG_SCRIPT = """
import os, sys
from fedaq.process import logs
from fedaq_server.transport import tls_failures
logs.begin({how})
tls_failures._pass_on = lambda reading, real: os.read(reading, 1)  # its reader dies
with tls_failures.reported():
    os.write(2, b"lost")
    for number in range(5000):  # more than a pipe holds
        tls_failures.log.warning("line %d of the log", number)
    print("from Python", file=sys.stderr)
tls_failures.log.warning("the last line")
"""


@pytest.mark.parametrize("how", ["as_json=True", "quiet=True"])
def test_the_log_does_not_depend_on_who_reads_the_trace(how: str) -> None:
    done = ended(LOG_SCRIPT.format(how=how))
    assert done.returncode == 0, done.stderr
    assert "line 4999 of the log" in done.stderr
    assert done.stderr.count("line") == 5001
    assert "from Python\n" in done.stderr
    assert "lost" not in done.stderr


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("import grpc", "gRPC was loaded before"),
        ("os.environ['GRPC_TRACE'] = 'http'", "GRPC_TRACE"),
    ],
)
def test_where_it_can_do_nothing_it_says_so(before: str, why: str) -> None:
    done = ended(f"import os\n{before}\n{SCRIPT.replace('from C', 'from C itself')}")
    assert done.stderr.startswith("network.log_tls_failures does nothing here: ")
    assert why in done.stderr
    assert done.stderr.endswith("from C itself\nfrom a child\nno end of line after\nbye\n")


def test_the_settings_are_read_before_grpc_is_loaded() -> None:
    """It looks at its environment then and never again."""
    imports = "import sys, fedaq_server.cli.server, fedaq_server.cli.server_process"
    done = ended(f"{imports}; print('grpc' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")
