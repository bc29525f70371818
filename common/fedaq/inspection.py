"""Payloads and runs in words."""

import json
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from rich.table import Table

from fedaq import model, payload
from fedaq.errors import ProtocolError, UserError
from fedaq.model import ModelSpec
from fedaq.payload import Payload
from fedaq.quantizer import Range
from fedaq.terminal import console
from fedaq.v1 import federation_pb2 as pb


def show(path: Path) -> None:
    """Print what a payload file or a run folder holds.

    Raises
    ------
    UserError
        If it is neither.
    """
    if path.is_dir():
        path = path / "run.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".json":
        _show_run(path, content)
    else:
        _show_payload(path, content)


def read_payload(path: Path, content: bytes) -> tuple[pb.CapturedPayload, Payload]:
    """Read a captured payload.

    Raises
    ------
    UserError
        If the bytes are not one.
    """
    try:
        captured = pb.CapturedPayload.FromString(content)
        spec: ModelSpec = model.from_message(captured.model)
        header = payload.from_message(spec, captured.header)
    except (DecodeError, ValueError, ProtocolError) as error:
        raise UserError(f"{path}: not a captured payload: {error}") from None
    if not spec.tensors:
        raise UserError(f"{path}: not a captured payload: it has no tensors")
    if len(captured.codes) != header.code_bytes:
        raise UserError(
            f"{path}: truncated: {len(captured.codes)} of {header.code_bytes} code bytes"
        )
    return captured, header


def _show_payload(path: Path, content: bytes) -> None:
    captured, header = read_payload(path, content)
    spec = header.spec
    console.print(
        f"{path}: round {captured.header.round} from {captured.sender}; "
        f"{spec.parameters:,} values in {len(spec.tensors)} tensors\n"
        f"payload {header.payload_bytes:,} bytes ({header.code_bytes:,} of codes), "
        f"{8 * header.payload_bytes / spec.parameters:.3f} bits per value; "
        f"float32 would be {4 * spec.parameters:,} bytes"
    )
    table = Table()
    for column in ("tensor", "shape", "codec", "bits", "range", "step", "bytes"):
        table.add_column(column)
    sizes = [b - a for a, b in zip(header.starts, header.starts[1:], strict=False)]
    for tensor, code, size in zip(spec.tensors, header.codes, sizes, strict=True):
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        bits, bytes_ = str(code.bits), f"{size:,}"
        if code.grid is None:
            codec = "raw" if code.bits else "zero"
            table.add_row(tensor.name, shape, codec, bits, "", "", bytes_)
            continue
        codec = "step" if code.step else "uniform"
        ends = code.bounds or Range(code.grid.lo, code.grid.hi)
        # Not the grid's: a step is rounded to float32.
        step = code.step or ends.width / (2**code.bits - 1)
        shown = f"[{ends.lo:.6g}, {ends.hi:.6g}]".replace("[", "\\[")
        table.add_row(tensor.name, shape, codec, bits, shown, f"{step:.4g}", bytes_)
    console.print(table)


def _show_run(path: Path, content: bytes) -> None:
    try:
        run: dict[str, Any] = json.loads(content)
        summary, rounds = run["summary"], run["rounds"]
        console.print(
            f"{path}: task {run['task']}, scheme {run['scheme']}, seed {run['seed']}, "
            f"{run['clients']} clients, {run['parameters']:,} parameters\n"
            f"{len(rounds)} rounds: accuracy {summary['final_accuracy']:.4f}, "
            f"{summary['energy_j']:.4g} J, payload {summary['uplink_payload_bytes']:,} bytes up "
            f"and {summary['downlink_payload_bytes']:,} down"
        )
        if rounds:
            first, last = rounds[0], rounds[-1]
            console.print(
                f"bits per value from round {first['round']} to {last['round']}: "
                f"uplink {first['uplink_bits']:.2f} -> {last['uplink_bits']:.2f}, "
                f"downlink {first['downlink_bits']:.2f} -> {last['downlink_bits']:.2f}"
            )
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not the run.json of a fedaq run") from None
