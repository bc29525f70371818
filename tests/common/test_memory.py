"""What the garbage collector is told."""

import gc

import pytest

from fedaq.process.memory import all_so_far_kept


def test_what_was_there_before_is_left_alone_and_given_back() -> None:
    before = gc.get_freeze_count()
    with all_so_far_kept():
        assert gc.get_freeze_count() > 10_000
        mine: list[object] = [object()]
        assert any(mine is other for other in gc.get_objects())
    assert gc.get_freeze_count() == before == 0


def test_it_is_given_back_after_a_failure() -> None:
    with pytest.raises(ValueError, match="wrong"), all_so_far_kept():
        raise ValueError("wrong")
    assert gc.get_freeze_count() == 0
