"""The page of the wire format, and the vectors that both decoders are held against."""

import json
import re
from pathlib import Path
from typing import Any

from fedaq.codec.quantizer import Range
from wire import coded_vectors, oracle

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "wire-format.md").read_text()
VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())
NAMES = [f"{vector['bits']} bits" for vector in VECTORS]
ALL_CODED: list[dict[str, str]] = json.loads(coded_vectors.FILE.read_text())
CODED = [vector for vector in ALL_CODED if "values" in vector]
CODED_NAMES = [vector["name"] for vector in CODED]
LONG = [vector for vector in ALL_CODED if "values" not in vector]
LONG_NAMES = [vector["name"] for vector in LONG]


def count_of(vector: dict[str, Any]) -> int:
    return len(vector["values"])


def range_of(vector: dict[str, Any]) -> Range:
    return Range(*(oracle.from_pattern(vector[end] or "00000000") for end in ("lo", "hi")))


def digest_of(patterns: list[str]) -> str:
    """Return the digest of values that are given as bit patterns."""
    return oracle.digest([oracle.from_pattern(pattern) for pattern in patterns]).hex()


def file_of(vector: dict[str, str]) -> bytes:
    return bytes.fromhex(vector["file"])


def patterns_of(vector: dict[str, str]) -> list[str]:
    found: list[str] = re.findall("........", vector["values"])
    return found
