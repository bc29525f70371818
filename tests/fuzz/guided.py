"""One decoder under a coverage-guided fuzzer (libFuzzer, through atheris).

    python tests/fuzz/guided.py TARGET INPUTS SEED LIMIT_MB FOLDER

calls a target of `targets` with that many inputs, and prints a line of JSON at the end. It
stops at the first finding: what a target lets out, an input that takes longer than a few
seconds, or more memory than the limit. `FOLDER` then holds the input.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from random import Random

import atheris
from google.protobuf.message import DecodeError
from mutation import mutate  # type: ignore[import-not-found]

TIMEOUT_S = 10
MAX_INPUT_BYTES = 8192
# When caches are filled and the fuzzer's own tables are there.
WARM_SHARE = 0.2


def main() -> None:
    """Fuzz until the inputs are used up."""
    name, inputs, seed, limit_mb, folder = sys.argv[1:]
    with atheris.instrument_imports(
        include=["fedaq", "fedaq_server"],
        # What protobuf generates is of no concern here.
        exclude=["fedaq.v1"],
    ):
        from targets import TARGETS, framed, unframed  # type: ignore[import-not-found]

    target, total = TARGETS[name], int(inputs)
    corpus = Path(folder, "corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds()):
        target.decode(content)
        (corpus / f"seed-{number}").write_bytes(content)

    def another(data: bytes, most: int, seed: int) -> bytes:
        """Change one message of an input: a field of it, or bytes as coverage suggests."""
        random = Random(seed)
        frames = list(unframed(data)) if target.framed else [data]
        if not frames:
            return bytes(atheris.Mutate(data, most))
        at = random.randrange(len(frames))
        frame = frames[at]
        try:
            if target.message is None or random.random() < 0.5:
                raise DecodeError
            message = target.message.FromString(frame)
            mutate(message, random)
            frame = message.SerializeToString()
        except DecodeError:
            frame = bytes(atheris.Mutate(frame, max(len(frame) + 64, 64)))
        if target.framed:
            frames[at] = frame
            if random.random() < 0.1:
                frames.insert(at, frames[random.randrange(len(frames))])
            frame = framed(frames)
        return frame[:most]

    state = {"calls": 0, "messages": 0, "warm_mb": rss_mb()}
    started = time.monotonic()

    def once(data: bytes) -> None:
        state["messages"] += target.decode(data)
        state["calls"] += 1
        if state["calls"] == int(WARM_SHARE * total):
            state["warm_mb"] = rss_mb()
        if state["calls"] >= total:
            report = {
                "messages": state["messages"],
                "inputs": state["calls"],
                "seconds": time.monotonic() - started,
                "growth_mb": rss_mb() - state["warm_mb"],
            }
            print(json.dumps(report), flush=True)
            os._exit(0)

    limit_bytes = address_space_bytes() + int(limit_mb) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    atheris.Setup(
        [
            sys.argv[0], str(corpus), f"-seed={seed}", f"-timeout={TIMEOUT_S}",
            f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={folder}/", "-rss_limit_mb=0",
            "-verbosity=0", "-reload=0",
        ],
        once,
        custom_mutator=another,
    )  # fmt: skip
    atheris.Fuzz()


def rss_mb() -> float:
    """Return the resident memory of this process."""
    return _statm(1) * resource.getpagesize() / 2**20


def address_space_bytes() -> int:
    """Return the address space of this process."""
    return _statm(0) * resource.getpagesize()


def _statm(field: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[field])


if __name__ == "__main__":
    main()
