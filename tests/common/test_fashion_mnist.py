"""Reading Fashion-MNIST, whose files may be wrong."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.small_tasks import in_memory, weights_of
from fedaq.errors import UserError
from fedaq.tasks import (
    fashion_mnist,
    load_task,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Pixels and labels.
Clothes = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def idx(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def clothes(tmp_path: Path) -> Clothes:
    """Write a folder as the official one, train compressed and test not; return its arrays."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 28, 28), np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(pixels[:7]))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:7]))
    return pixels, labels


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion-mnist-cnn"])
def test_fashion_mnist_reads_both_parts(name: str, clothes: Clothes, tmp_path: Path) -> None:
    pixels, labels = clothes
    task = load_task(name, tmp_path)
    train, test = in_memory(task.train_data(tmp_path)), in_memory(task.test_data(tmp_path))
    assert np.array_equal(train.inputs.numpy()[:, 0], pixels)
    assert train.targets.tolist() == labels.tolist()
    assert np.array_equal(test.inputs.numpy()[:, 0], pixels[:7])
    model = task.model()
    before = weights_of(model)
    assert task.train(model, train, task.training, 1) > 0
    assert not torch.equal(weights_of(model), before)
    assert 0 <= task.evaluate(model, test).accuracy <= 1


def test_fashion_mnist_names_the_files_it_misses(clothes: Clothes, tmp_path: Path) -> None:
    task = fashion_mnist.mlp
    both = "train-images-idx3-ubyte and train-labels-idx1-ubyte, each with .gz at its end or"
    for data in (None, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=both):
            task.train_data(data)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="must hold t10k-images-idx3-ubyte and t10k-labels"):
        task.test_data(tmp_path)


GOOD = idx(np.zeros((3, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file"),
        (GOOD[:15], "not an IDX file"),
        (b"\x00\x00\x09" + GOOD[3:], "not an IDX file"),
        (idx(np.zeros(9, np.uint8)), "not an IDX file of bytes with 3 dimensions"),
        (GOOD[:-1], "2367 bytes; its header says 16 \\+ 3x28x28"),
        (GOOD + b"\x00", "damaged"),
        (idx(np.zeros((3, 28, 27), np.uint8)), "28x27; 28x28 is needed"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_damaged_idx_file_is_named(
    content: bytes, reason: str, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"images{ending}"
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(UserError, match=reason) as caught:
        fashion_mnist.read_idx(path, (28, 28))
    assert str(caught.value).startswith(f"{path}: ")


PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    "content",
    [PACKED[:-9], PACKED[:9], PACKED[:10] + b"\xff" + PACKED[11:], PACKED[:-1] + b"\xff", GOOD],
)
def test_a_damaged_gzip_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        fashion_mnist.read_idx(path, (28, 28))


def test_a_header_cannot_make_the_reader_allocate(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 28, 28))
    tracemalloc.start()
    with pytest.raises(UserError, match="4294967295x28x28"):
        fashion_mnist.read_idx(path, (28, 28))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_labels_must_fit_the_images(clothes: Clothes, tmp_path: Path) -> None:
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(6, np.uint8)))
    with pytest.raises(UserError, match="6 labels for 7 images"):
        fashion_mnist.mlp.test_data(tmp_path)
    path.write_bytes(idx(np.full(7, 10, np.uint8)))
    with pytest.raises(UserError, match="label 10; labels are 0 to 9"):
        fashion_mnist.mlp.test_data(tmp_path)
