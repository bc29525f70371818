"""A model that is not where the codec's arrays are: on a GPU, and where there is none as if."""

import asyncio
from pathlib import Path

import pytest
import torch

import fedaq_client.learners
import fedaq_server.run
from fedaq_lab.local import federate
from fedaq_server.records.ledger import Ledger
from fedaq_server.run import Run
from system.live import settings_of


def carried_out(folder: Path, device: str = "cpu") -> Run:
    folder.mkdir()
    run = Run(settings_of(2, rounds=4, device=device), Ledger(folder), lambda record: None)
    asyncio.run(federate(run))
    return run


def test_modules_of_their_own_memory_give_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = carried_out(tmp_path / "plain")
    for module in (fedaq_client.learners, fedaq_server.run):
        # The processor by another name.
        monkeypatch.setattr(module, "device_named", lambda name: torch.device("cpu", 0))
    apart = carried_out(tmp_path / "apart")
    assert apart.federation.model.tobytes() == plain.federation.model.tobytes()
    assert [record.test_loss for record in apart.records] == [
        record.test_loss for record in plain.records
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_trains_and_tests_and_repeats_itself(tmp_path: Path) -> None:
    one, other = (carried_out(tmp_path / name, "cuda") for name in ("one", "other"))
    assert one.federation.model.tobytes() == other.federation.model.tobytes()
    assert one.records[-1].test_accuracy > 0.5
    plain = carried_out(tmp_path / "plain")
    assert one.records[-1].test_accuracy == pytest.approx(plain.records[-1].test_accuracy, abs=0.1)
