"""Payloads and runs in words."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from rich.table import Table

from fedaq.codec import chunks, coding, headers, holding, model
from fedaq.codec.chunks import Chunk
from fedaq.codec.given import Dither, Given, Past
from fedaq.codec.model import ModelSpec
from fedaq.codec.payload import ZERO, Payload, TensorCode
from fedaq.codec.quantizer import RAW_BITS, Floats, Key, Range
from fedaq.errors import ProtocolError, UserError
from fedaq.metric import ACCURACY, written
from fedaq.process.terminal import console, foreign
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


@dataclass(frozen=True)
class Captured:
    """A payload as it was sent.

    Attributes
    ----------
    message : CapturedPayload
    header : Payload
    chunks : list of Chunk
    """

    message: pb.CapturedPayload
    header: Payload
    chunks: list[Chunk]

    @property
    def payload_bytes(self) -> int:
        """What energy was charged for."""
        # What clients knew already did not travel.
        sent = (
            replace(chunk, past=b"") if self.message.header.base else chunk for chunk in self.chunks
        )
        return self.header.header_bytes + sum(chunk.cost_bytes for chunk in sent)

    def values(self) -> Floats:
        """Return what it stands for: float32, shape (parameters,).

        Raises
        ------
        ProtocolError
            If its codes are broken.
        """
        flat = np.zeros(self.header.spec.parameters, np.float32)
        past = Past.none(flat.size)
        known: Given = past
        if self.message.keys:
            keys = [Key.numbered(number) for number in self.message.keys]
            known = Dither(keys.__getitem__)
        for chunk in self.chunks:
            holding.take_past(self.header, chunk, past)
            coding.decode_into(self.header, chunk, flat, known=known)
        return flat


def read_payload(path: Path, content: bytes) -> Captured:
    """Read a captured payload, of any version.

    Raises
    ------
    UserError
        If the bytes are not one, or stand for more values than memory has room for.
    """
    try:
        captured = pb.CapturedPayload.FromString(content)
        spec: ModelSpec = model.from_message(captured.model)
        header = headers.from_message(spec, captured.header)
        # Files of older versions have all codes packed, whether they were sent so or not.
        sent = [chunks.read(chunk) for chunk in captured.chunks] or [
            Chunk(captured.header.round, 0, captured.codes)
        ]
        if len(captured.keys) not in (0, len(spec.tensors)):
            raise ValueError(f"{len(captured.keys)} keys for {len(spec.tensors)} tensors")
        found = Captured(captured, header, sent if header.code_bytes else [])
        size = sum(chunk.size for chunk in found.chunks)
        if size == header.code_bytes:
            found.values()
    except (DecodeError, ValueError, ProtocolError) as error:
        raise UserError(f"{path}: not a captured payload: {error}") from None
    except MemoryError:
        raise UserError(f"{path}: the values that it stands for do not fit into memory") from None
    if not spec.parameters:
        raise UserError(f"{path}: not a captured payload: its model has no values")
    if size != header.code_bytes:
        raise UserError(f"{path}: truncated: {size} of {header.code_bytes} code bytes")
    return found


def _show_payload(path: Path, content: bytes) -> None:
    found = read_payload(path, content)
    captured, header, spec = found.message, found.header, found.header.spec
    base = captured.header.base
    what = f"a difference to the model {base.hex()}" if base else "values"
    console.print(
        f"{foreign(path)}: round {captured.header.round} from {foreign(captured.sender)}: {what}; "
        f"{spec.parameters:,} values in {len(spec.tensors)} tensors\n"
        f"payload {found.payload_bytes:,} bytes ({header.payload_bytes:,} with packed codes), "
        f"{8 * found.payload_bytes / spec.parameters:.3f} bits per value; "
        f"float32 would be {4 * spec.parameters:,} bytes"
    )
    table = Table()
    for column in ("tensor", "shape", "codec", "bits", "range", "step", "bytes"):
        table.add_column(column)
    sizes = [b - a for a, b in zip(header.starts, header.starts[1:], strict=False)]
    for tensor, code, size in zip(spec.tensors, header.codes, sizes, strict=True):
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        table.add_row(foreign(tensor.name), shape, *_described(code), f"{size:,}")
    console.print(table)


def _described(code: TensorCode) -> tuple[str, str, str, str]:
    """Return codec, bits, range and step of a tensor."""
    if code.grid is None:
        return ("zero", "0", "", "") if code == ZERO else ("raw", str(RAW_BITS), "", "")
    ends = code.bounds or Range(code.grid.lo, code.grid.hi)
    return (
        "step" if code.step else "uniform",
        str(code.bits),
        f"[{ends.lo:.6g}, {ends.hi:.6g}]".replace("[", "\\["),
        f"{code.grid.step:.4g}",
    )


def _show_run(path: Path, content: bytes) -> None:
    try:
        run: dict[str, Any] = json.loads(content)
        summary, rounds = run["summary"], run["rounds"]
        name = run.get("metric", {"name": ACCURACY})["name"]
        final = summary.get("final_metric", summary["final_accuracy"])
        console.print(
            f"{foreign(path)}: task {foreign(run['task'])}, scheme {foreign(run['scheme'])}, "
            f"seed {foreign(run['seed'])}, "
            f"{foreign(run['clients'])} clients, {run['parameters']:,} parameters\n"
            f"{len(rounds)} rounds: {foreign(name)} {written(name, final)}, "
            f"{summary['energy_j']:.4g} J, payload {summary['uplink_payload_bytes']:,} bytes up "
            f"and {summary['downlink_payload_bytes']:,} down"
        )
        if rounds:
            first, last = rounds[0], rounds[-1]
            console.print(
                f"bits per value from round {first['round']:d} to {last['round']:d}: "
                f"uplink {first['uplink_bits']:.2f} -> {last['uplink_bits']:.2f}, "
                f"downlink {first['downlink_bits']:.2f} -> {last['downlink_bits']:.2f}"
            )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not the run.json of a fedaq run") from None
