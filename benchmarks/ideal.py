"""What a round takes at the least: bytes over this machine's loopback, and the codec's work."""

import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from fedaq.codec import coding, model, payload
from fedaq.codec.given import Dither
from fedaq.codec.model import ModelSpec
from fedaq.tasks import load_task, signature_of
from fedaq_server.rounds.aggregation import Aggregate, Contribution

CHUNK_BYTES = 64 * 1024


def spec_of(task: str) -> ModelSpec:
    loaded = load_task(task, None)
    return signature_of(loaded, loaded.model())


def loopback_bps(size: int = 2**29) -> float:
    """Return how many bits a second one connection of this machine to itself carries."""
    piece = bytes(256 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending = socket.create_connection(listening.getsockname())
        receiving, _ = listening.accept()

    def send() -> None:
        with sending:
            for _ in range(size // len(piece)):
                sending.sendall(piece)

    thread = threading.Thread(target=send)
    began, buffer = time.monotonic(), bytearray(len(piece))
    thread.start()
    with receiving:
        while receiving.recv_into(buffer):
            pass
    thread.join()
    return 8 * size / (time.monotonic() - began)


@dataclass(frozen=True)
class CodecTime:
    """Seconds of a processor for one client's round."""

    client_s: float
    server_s: float


def codec_time(task: str, uplink_bits: float, folder: Path, times: int = 20) -> CodecTime:
    """Measure the codec on an update that takes about so many bits per value."""
    spec = spec_of(task)
    values = np.random.default_rng(1).standard_normal(spec.parameters, np.float32) * 0.01
    candidates = (_coded(spec, values, 0.01 * 2.0**power) for power in range(-4, 8))
    step, _ = min(candidates, key=lambda each: abs(each[1] - uplink_bits * spec.parameters / 8))
    clients, servers = [], []
    total = np.zeros(spec.parameters, np.int64)
    for _ in range(times):
        began = time.thread_time()
        header, chunks, keys = _encoded(spec, values, step)
        model.digest(values)
        clients.append(time.thread_time() - began)
        began = time.thread_time()
        contribution = Contribution(
            Aggregate(spec, 2 * times, folder, total), header, 1, "a", Dither(keys.__getitem__)
        )
        for chunk in chunks:
            contribution.add(chunk)
        contribution.commit()
        servers.append(time.thread_time() - began)
    # A client decodes what comes down, too, which is coded as an update is.
    return CodecTime(median(clients) + median(servers), median(servers))


def _coded(spec: ModelSpec, values: Any, step: float) -> tuple[float, int]:
    _, chunks, _ = _encoded(spec, values, step)
    return step, sum(len(chunk.data) for chunk in chunks)


def _encoded(spec: ModelSpec, values: Any, step: float) -> tuple[Any, list[Any], Any]:
    count = len(spec.tensors)
    spreads = payload.tensor_spreads(spec, values.__getitem__)
    header = payload.plan_payload(spec, (16,) * count, spreads, (step,) * count)
    keys = payload.transfer_keys(spec, 1, "uplink", "a", 1)
    chunks = [
        coding.encode(
            header, values.__getitem__, keys, offset, length, 1, squeeze=True,
            known=Dither(keys.__getitem__),
        )[0]
        for offset, length in header.chunks(CHUNK_BYTES)
    ]  # fmt: skip
    return header, chunks, keys
