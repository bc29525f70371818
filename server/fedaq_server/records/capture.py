"""Payloads kept on disk for people who measure them; `fedaq inspect` reads the files."""

from dataclasses import dataclass
from pathlib import Path

from fedaq.codec import model, payload
from fedaq.codec.payload import Payload
from fedaq.v1 import federation_pb2 as pb


@dataclass(frozen=True)
class Capture:
    """A folder of captured payloads."""

    folder: Path

    def keep(self, header: Payload, round_number: int, sender: str, codes: bytes) -> None:
        """Write one payload to ``round-0001-<sender>.payload``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        captured = pb.CapturedPayload(
            model=model.to_message(header.spec),
            header=payload.to_message(header, round_number),
            codes=codes,
            sender=sender,
        )
        path = self.folder / f"round-{round_number:04}-{sender}.payload"
        path.write_bytes(captured.SerializeToString())
