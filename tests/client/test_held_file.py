"""What a client holds, on the disk: it is there again whole, or not at all."""

import logging
from pathlib import Path

import numpy as np
import pytest

from client.script import task
from fedaq.tasks import Training
from fedaq_client.held_file import HeldFile
from fedaq_client.training import Learner


def learner(folder: Path, run_id: str = "run", name: str = "anna") -> Learner:
    part = Learner(task(), task().train_data(None), state=folder)
    part.resume(name)
    part.begin(run_id)
    return part


def left_unsent(part: Learner, number: int, sent: tuple[bool, bool]) -> list[float]:
    """Train a round, send some of its two tensors, and return the update."""
    part.train(Training(), 1, "anna", number)
    update = [float(part.weights[0]), float(part.weights[-1])]
    part.keep_unsent(number, sent)
    part.save()
    return update


def file_in(folder: Path) -> Path:
    [path] = folder.glob("held-*.safetensors")
    return path


def test_what_is_held_and_unsent_outlives_a_restart(tmp_path: Path) -> None:
    first = learner(tmp_path)
    first.held[:] = 3.0
    assert left_unsent(first, 1, (False, True)) == [1.0, 1.0]
    second = learner(tmp_path)
    np.testing.assert_array_equal(second.held, first.held)
    assert left_unsent(second, 2, (False, True)) == [2.0, 1.0]
    # A round that is trained again, for the server was stopped in it, gives the same.
    again = learner(tmp_path)
    assert left_unsent(again, 2, (True, True)) == [2.0, 1.0]
    # What was about to be sent when it was killed is not sent twice.
    assert left_unsent(learner(tmp_path), 3, (True, True)) == [1.0, 1.0]
    last = learner(tmp_path)
    last.end()
    assert list(tmp_path.iterdir()) == []


def test_another_run_begins_without_what_was_unsent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_unsent(learner(tmp_path), 1, (False, False))
    with caplog.at_level(logging.INFO, "fedaq_client"):
        assert left_unsent(learner(tmp_path, "other"), 2, (True, True)) == [1.0, 1.0]
    assert "another run" in caplog.text


def test_clients_of_other_names_have_other_files(tmp_path: Path) -> None:
    part = learner(tmp_path)
    part.held[:] = 3.0
    part.save()
    assert not learner(tmp_path, name="bob").held.any()
    assert learner(tmp_path).held.all()


def test_damaged_files_are_begun_anew_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = learner(tmp_path)
    part.held[:] = 3.0
    left_unsent(part, 1, (False, True))
    path = file_in(tmp_path)
    whole = path.read_bytes()
    step = max(1, len(whole) // 60)
    for at in range(0, len(whole), step):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            caplog.clear()
            again = learner(tmp_path)
            assert not again.held.any()
            assert "begun anew" in caplog.text
            assert left_unsent(again, 2, (False, True)) == [1.0, 1.0]
    path.write_bytes(whole)
    assert learner(tmp_path).held.all()


def test_a_file_of_another_model_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = learner(tmp_path)
    part.save()
    from torch import nn

    from fedaq.tasks import signature_of

    assert HeldFile(tmp_path, "anna", part.spec).read() is not None
    other = HeldFile(tmp_path, "anna", signature_of(task(), nn.Linear(3, 2)))
    assert other.read() is None
    assert "another model" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_of_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    part = learner(tmp_path / "file")
    part.save()
    assert "cannot be written" in caplog.text
