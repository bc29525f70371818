"""What a client leaves out of an update comes later, also after a restart."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from client.test_residuals import SIZES, learner, trained
from fedaq.codec import payload
from fedaq.codec.payload import ZERO, Payload
from fedaq.codec.quantizer import Floats
from fedaq.codec.sparse import Sparsity
from fedaq.errors import FedaqError
from fedaq.v1 import federation_pb2 as pb
from fedaq_client.demands import checked_plan
from fedaq_client.training import Learner
from fedaq_server.schemes.scheme import granted_up
from fedaq_server.schemes.sparse import step_grant

STC, TOPK = Sparsity(0.1, ternary=True), Sparsity(0.1, ternary=False)


def send(part: Learner, number: int, sparsity: Sparsity, levels: int) -> Floats:
    """Send the update that was trained, and return what arrives of it."""
    part.leave_out(sparsity)
    spreads = payload.tensor_spreads(part.spec, part.weights.__getitem__)
    grant = granted_up(step_grant(part.spec, spreads, levels), spreads, part.spec)
    update = payload.plan_payload(part.spec, grant.bits, spreads, grant.steps)
    arrived = np.zeros_like(part.weights)
    for tensor, where in enumerate(part.spec.slices):
        step = update.codes[tensor].step
        if step:
            arrived[where] = np.rint(part.weights[where] / step) * np.float32(step)
    part.keep_rest(number, update)
    return arrived


@given(st.lists(st.sampled_from([(STC, 1), (TOPK, 3), (TOPK, 127)]), min_size=1, max_size=8))
@profile(max_examples=30)
def test_all_that_training_added_is_sent_or_left(rounds: list[tuple[Sparsity, int]]) -> None:
    part = learner()
    added, sent = np.zeros(sum(SIZES)), np.zeros(sum(SIZES))
    for number, (sparsity, levels) in enumerate(rounds, 1):
        added += trained(part, number)
        sent += send(part, number, sparsity, levels)
    added += trained(part, len(rounds) + 1)
    np.testing.assert_allclose(sent + part.weights, added, atol=2e-5)


def test_an_update_of_which_nothing_is_sent_is_left_whole() -> None:
    part = learner()
    first = trained(part, 1)
    part.leave_out(STC)
    part.keep_rest(1, Payload(part.spec, (ZERO,) * len(SIZES)))
    second = trained(part, 2)
    np.testing.assert_allclose(part.weights, first + second, atol=1e-6)


def test_a_round_that_is_trained_again_gives_the_same_update() -> None:
    part = learner()
    trained(part, 1)
    send(part, 1, STC, 1)
    trained(part, 2)
    first = send(part, 2, STC, 1)
    trained(part, 2)
    assert send(part, 2, STC, 1).tobytes() == first.tobytes()


def kept_on_disk(folder: Path) -> Learner:
    part = learner()
    part = Learner(part.task, part.task.train_data(None), state=folder)
    part.resume("anna")
    part.begin("run")
    return part


@pytest.mark.parametrize(("sparsity", "levels"), [(STC, 1), (TOPK, 7)], ids=["stc", "topk"])
def test_what_is_left_out_outlives_a_restart(
    sparsity: Sparsity, levels: int, tmp_path: Path
) -> None:
    calm, part = learner(), kept_on_disk(tmp_path)
    for number in range(1, 6):
        trained(calm, number)
        expected = send(calm, number, sparsity, levels)
        trained(part, number)
        part.save()
        # Killed before the update was sent: it is trained again.
        part = kept_on_disk(tmp_path)
        trained(part, number)
        assert send(part, number, sparsity, levels).tobytes() == expected.tobytes()
        part.save()
        # And killed as soon as it was.
        part = kept_on_disk(tmp_path)


@pytest.mark.parametrize("keep", [-0.1, 1.5, float("nan"), float("inf")])
def test_an_impossible_share_is_refused(keep: float) -> None:
    with pytest.raises(FedaqError, match="of an update, which cannot be"):
        checked_plan(pb.RoundPlan(round=1, chunk_bytes=1024, keep=keep))
    checked_plan(pb.RoundPlan(round=1, chunk_bytes=1024, keep=1.0))
