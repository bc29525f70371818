"""What many clients keep: the last used in memory, the rest as files."""

from pathlib import Path

import pytest

from fedaq_lab.shelf import Shelf


def test_what_does_not_fit_lies_on_the_disk_and_is_the_same(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 100)
    contents = {f"client {number}": bytes([number]) * 30 for number in range(10)}
    for key, content in contents.items():
        shelf.put(key, content)
    assert shelf.spilled == 7
    assert len(list(tmp_path.rglob("*"))) == 8  # and their folder
    # In both orders, so that what was spilled is read, spilled again and read again.
    assert {key: shelf.get(key) for key in contents} == contents
    assert {key: shelf.get(key) for key in reversed(contents)} == contents
    shelf.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_content_takes_the_place_of_one_on_the_disk(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10)
    shelf.put("one", b"old" * 3)
    shelf.put("other", b"x" * 9)
    assert shelf.spilled == 1
    shelf.put("one", b"new")
    shelf.put("third", b"y" * 10)
    assert shelf.get("one") == b"new"


def test_what_is_dropped_is_gone_from_memory_and_disk(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10)
    for key in ("one", "other"):
        shelf.put(key, key.encode() * 3)
    for key in ("one", "other", "never"):
        shelf.drop(key)
        with pytest.raises(KeyError):
            shelf.get(key)
    assert shelf.spilled == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_written_while_there_is_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 1000)
    shelf.put("one", bytes(900))
    assert list(tmp_path.iterdir()) == []
