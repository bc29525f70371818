"""Captured payloads with tensors of every codec, in words."""

from pathlib import Path

import numpy as np
import pytest

from fedaq.cli import inspection
from fedaq.codec import model, payload
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.codec.payload import plan_payload
from fedaq.codec.quantizer import Range
from fedaq.v1 import federation_pb2 as pb


def test_every_codec_is_shown_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("uniform", "raw", "zero", "step")
    spec = ModelSpec(tuple(TensorSpec(f"of-{name}", (9,)) for name in names))
    header = plan_payload(spec, (3, 32, 0, 8), [Range(-0.5, 0.75)] * 4, (0.0, 0.0, 0.0, 0.25))
    captured = pb.CapturedPayload(
        model=model.to_message(spec),
        header=payload.to_message(header, 4),
        codes=np.zeros(header.code_bytes, np.uint8).tobytes(),
        sender="anna",
    )
    path = tmp_path / "round-0004-anna.payload"
    path.write_bytes(captured.SerializeToString())
    inspection.show(path)
    rows = {
        cells[0]: cells[2:]
        for line in capsys.readouterr().out.splitlines()
        if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) == 7
    }
    assert rows == {
        "of-uniform": ["uniform", "3", "[-0.5, 0.75]", "0.1786", "4"],
        "of-raw": ["raw", "32", "", "", "36"],
        "of-zero": ["zero", "0", "", "", "0"],
        "of-step": ["step", "3", "[-0.5, 1.25]", "0.25", "4"],
    }
