"""Runs federations one after the other, each in a fork of its own, with faults on their files.

Started by `faults.run` with the injector preloaded. A line of JSON on standard input is a job; a
line on standard output is how it ended.
"""

import asyncio
import ctypes
import gc
import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedaq.cli.wording import sentence_of
from fedaq.settings import load_settings
from fedaq.tasks import load_task
from fedaq_lab.local import federate
from fedaq_server.records import ledger
from fedaq_server.records.run_folder import new_run, resumed_run
from fedaq_server.rounds import differences
from fedaq_server.run import Run

ROUNDS = 3
FLAGS: dict[str, Any] = {
    "task": "system.exact_model:task", "clients": 2, "rounds": ROUNDS, "scheme": "fixed",
    "fixed.uplink_bits": 3, "fixed.downlink_bits": 2, "coding.downlink": "difference",
    "coding.entropy": True, "capture": True,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run, or one to go on with, and what befalls it.

    Attributes
    ----------
    folder, log, said : str
        Of the run; where the injector lists the calls; where goes what the run prints.
    resume : bool
    mode : int
        As in inject.c: 0 only lists, 1 lets one call fail, 2 fills the disk, 3 kills.
    at : int
        Number of the call.
    error : int
        What the system is to say.
    """

    folder: str
    log: str
    said: str
    resume: bool = False
    mode: int = 0
    at: int = 0
    error: int = 0


def carry_out(job: Job) -> None:
    """Run the federation of a job in this process."""
    folder = Path(job.folder)
    if job.resume:
        opened = resumed_run(
            folder,
            lambda begun: load_settings(environment={}, flags={} if begun else FLAGS, begun=begun),
        )
    else:
        opened = new_run(folder, load_settings(environment={}, flags=FLAGS))
    with opened as (settings, kept):
        asyncio.run(federate(Run(settings, kept, lambda record: None)))


def main() -> None:
    """Do jobs until there are no more."""
    injector = ctypes.CDLL(os.environ["LD_PRELOAD"])
    # Every round then has a snapshot and brings the log into the ledger.
    differences.MOST_SINCE, ledger.LOG_S = 1, -1.0
    load_task(FLAGS["task"], None)
    gc.freeze()  # no fork has to look through it
    for line in sys.stdin:
        job = Job(**json.loads(line))
        process = os.fork()
        if not process:
            _end(job, injector)
        _, status = os.waitpid(process, 0)
        print(json.dumps(asdict(job) | {"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _end(job: Job, injector: ctypes.CDLL) -> None:
    out = os.open(job.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 0
    injector.faults_arm(
        job.folder.encode(), job.log.encode(), job.mode, ctypes.c_long(job.at), job.error
    )
    try:
        carry_out(job)
    except Exception as error:
        code = 1
        said = sentence_of(error)
        print(f"fedaq: {said}")
        if "this is a bug" in said:
            traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
