"""Handshakes that failed, told to the operator.

They end inside gRPC's core, which hands no event to Python. It does write a trace of them
to file descriptor 2. Where the setting ``network.log_tls_failures`` asks for it, this module
reads that in its place: what is the core's becomes our log lines, everything else goes on to
standard error as it is. Python's own words, and with them the log, do not go that way.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TextIO
from urllib.parse import unquote

from fedaq.process.outputs import dropping

log = logging.getLogger(__name__)

# A client that is refused tries again at once; nobody wants to read that every time.
QUIET_S = 10.0
_MAX_REMEMBERED = 1000
_JOIN_S = 5.0

_CORE = re.compile(rb"[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w./-]+\.(?:cc|h):\d+\] (.*)", re.S)
_CORE_MORE = re.compile(rb"=== Source Location Trace|src/core/\S+:\d+\s*$| shutdown=")
_FAILED = re.compile(rb"CallNextHandshakerLocked: error=(?!OK )(.*)", re.S)
_PEER = re.compile(rb"endpoint_peer_address=([^,}]+)")

# What a failure means, by the words of OpenSSL and of the core in it; the first that fits.
_REASONS = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "it showed no certificate"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet; are the clocks right?"),
    ("certificate purpose", "its certificate is not a client's"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by our ca.crt"),
    ("ALERT_UNKNOWN_CA", "it does not trust the authority of our server.crt"),
    ("ALERT_BAD_CERTIFICATE", "it knows us by another name than those in our server.crt"),
    ("CERTIFICATE_EXPIRED", "it found our server.crt expired; are the clocks right?"),
    ("ALERT_CERTIFICATE_UNKNOWN", "it does not accept our server.crt"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; does it have --tls?"),
    ("HTTP_REQUEST", "it does not speak TLS; does it have --tls?"),
    ("UNSUPPORTED_PROTOCOL", "it speaks a version of TLS that is too old"),
    (
        "Socket closed",
        "it hung up during the handshake; it may not trust our server.crt, or know us by a name "
        "that is not in it",
    ),
    ("timed out", "it did not finish the handshake in time"),
)


def reason_of(error: str) -> str:
    """Return for the operator what an error of the core's means."""
    for words, meaning in _REASONS:
        if words in error:
            return meaning
    return f"the handshake failed: {error.strip()}"


@dataclass
class Trace:
    """Takes the lines of standard error apart.

    Attributes
    ----------
    refused : dict
        When (host, reason) was last told.
    """

    refused: dict[tuple[str, str], float] = field(default_factory=dict)
    _error: bytes | None = None
    _in_core: bool = False

    def take(self, line: bytes) -> bytes:
        """Return what of a line is not gRPC's core's."""
        core = _CORE.match(line)
        if core is None and not (self._in_core and self._continues(line)):
            self._in_core = False
            self._error = None
            return line
        self._in_core = True
        if core is not None:
            failed = _FAILED.match(core[1])
            self._error = failed[1] if failed else None
        if self._error is not None and (b" args={" in line):
            peer = _PEER.search(line)
            self._tell(unquote(peer[1].decode(errors="replace")) if peer else "a stranger")
            self._error = None
        return b""

    @staticmethod
    def _continues(line: bytes) -> bool:
        return not line.strip() or _CORE_MORE.match(line) is not None

    def _tell(self, peer: str) -> None:
        assert self._error is not None
        reason = reason_of(self._error.partition(b" shutdown=")[0].decode(errors="replace"))
        key = (peer.rpartition(":")[0], reason)
        now = time.monotonic()
        if now - self.refused.get(key, -QUIET_S) < QUIET_S:
            return
        if len(self.refused) >= _MAX_REMEMBERED:
            self.refused.clear()
        self.refused[key] = now
        log.warning("refused %s: %s", peer, reason)


@contextmanager
def reported() -> Iterator[None]:
    """Log every failed handshake while the block runs.

    It must begin before gRPC is imported, which reads its environment then. Who set
    ``GRPC_TRACE`` wants to see the core's own words and gets nothing else.
    """
    if os.environ.get("GRPC_TRACE") or "grpc" in sys.modules:
        why = "GRPC_TRACE is set" if os.environ.get("GRPC_TRACE") else "gRPC was loaded before"
        log.warning("network.log_tls_failures does nothing here: %s", why)
        yield
        return
    os.environ.update(GRPC_VERBOSITY="INFO", GRPC_TRACE="handshaker")
    real = os.dup(2)
    with (
        os.fdopen(os.dup(real), "w", buffering=1) as direct,
        _python_writes_to(dropping(direct)),
    ):
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        reader = threading.Thread(target=_pass_on, args=(reading, real), daemon=True)
        reader.start()
        try:
            yield
        finally:
            os.dup2(real, 2)
            reader.join(_JOIN_S)


@contextmanager
def _python_writes_to(direct: TextIO) -> Iterator[None]:
    """Let `sys.stderr`, and the handlers of the log that write there, be this file."""
    before = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is before
    ]
    before.flush()
    sys.stderr = direct
    for handler in handlers:
        handler.setStream(direct)
    try:
        yield
    finally:
        sys.stderr = before
        for handler in handlers:
            handler.setStream(before)


def _pass_on(reading: int, real: int) -> None:
    trace = Trace()
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            rest = trace.take(line)
            if rest:
                with suppress(OSError):  # gRPC would wait for who reads no more
                    os.write(real, rest)
