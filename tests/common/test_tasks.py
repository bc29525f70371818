"""Tasks: reading data that may be wrong, and training against torch's own optimizer."""

import doctest
import gzip
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedaq.codec.model import ModelSpec, TensorSpec, spec_of
from fedaq.errors import UserError
from fedaq.tasks import (
    Examples,
    Normalise,
    Task,
    Training,
    evaluate_classifier,
    fashion_mnist,
    images,
    load_task,
    subset,
    train_classifier,
)
from fedaq_server.records.weights import read_weights, write_weights

# Pixels and labels.
Clothes = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as clients and server do
    yield
    torch.set_num_threads(threads)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def small_data(count: int = 50) -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 6, generator=generator)
    return Examples(inputs, torch.randint(0, 3, (count,), generator=generator))


def in_memory(data: Sized) -> Examples:
    assert isinstance(data, Examples)
    return data


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def train_with_torch(model: nn.Module, data: Examples, training: Training, seed: int) -> float:
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=training.learning_rate, momentum=training.momentum
    )
    losses = []
    for _ in range(training.local_epochs):
        for batch in torch.randperm(len(data), generator=order).split(training.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(data.inputs[batch]), data.targets[batch], reduction="none"
            )
            loss.mean().backward()
            optimizer.step()
            losses.append(loss.detach())
    return float(torch.cat(losses).double().mean())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("batch_size", [7, 50, 64])
def test_training_is_sgd_with_momentum(momentum: float, batch_size: int) -> None:
    training = Training(3, batch_size, 0.1, momentum)
    mine, reference = small_model(), small_model()
    loss = train_classifier(mine, small_data(), training, seed=4)
    expected = train_with_torch(reference, small_data(), training, seed=4)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights_of(mine), weights_of(reference), rtol=0, atol=1e-6)


def test_training_is_a_function_of_the_seed() -> None:
    trained = [small_model() for _ in range(3)]
    for model, seed in zip(trained, (4, 4, 5), strict=True):
        train_classifier(model, small_data(), Training(2, 8), seed)
    first, again, other = map(weights_of, trained)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_frozen_and_unused_weights_stay() -> None:
    model = small_model()
    first, last = model.get_parameter("0.weight"), model.get_parameter("2.weight")
    first.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    before = first.clone(), last.detach().clone()
    train_classifier(model, small_data(), Training(), 1)
    assert torch.equal(first, before[0])
    assert torch.equal(model.get_parameter("unused"), torch.ones(2))
    assert not torch.equal(last, before[1])


def test_a_dataset_trains_and_evaluates_like_examples_in_memory() -> None:
    data = small_data()
    dataset = TensorDataset(data.inputs, data.targets)
    one, two = small_model(), small_model()
    assert train_classifier(one, data, Training(), 1) == train_classifier(
        two, dataset, Training(), 1
    )
    assert torch.equal(weights_of(one), weights_of(two))
    assert evaluate_classifier(one, data) == evaluate_classifier(two, dataset)


def test_evaluation_counts_every_example_once() -> None:
    data, model = small_data(1203), small_model()
    with torch.no_grad():
        scores = model(data.inputs).double().numpy()
    chosen = scores[np.arange(1203), data.targets]
    loss = np.mean(np.log(np.exp(scores).sum(axis=1)) - chosen)
    evaluation = evaluate_classifier(model, data)
    assert evaluation.accuracy == np.mean(scores.argmax(axis=1) == data.targets.numpy())
    assert evaluation.loss == pytest.approx(loss, rel=1e-6)


def test_subset_of_examples_and_of_a_dataset() -> None:
    data = small_data()
    indices = np.array([3, 40, 7])
    part = in_memory(subset(data, indices))
    assert torch.equal(part.inputs, data.inputs[[3, 40, 7]])
    assert torch.equal(part.targets, data.targets[[3, 40, 7]])
    dataset = TensorDataset(data.inputs, data.targets)
    chosen: Any = subset(dataset, indices)
    for got, index in zip(chosen, indices, strict=True):
        assert torch.equal(got[0], data.inputs[index])
    with pytest.raises(UserError, match="list cannot be shared out"):
        subset([1, 2, 3], indices)


def test_normalise() -> None:
    pixels = torch.arange(256).view(1, 1, 16, 16).repeat(2, 3, 1, 1).to(torch.uint8)
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    expected = (pixels.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    layer = Normalise(mean, std)
    torch.testing.assert_close(layer(pixels).double(), expected, rtol=0, atol=1e-6)
    assert not layer.state_dict(), "constants must not travel with the model"


# --- finding a task


def test_a_task_of_ones_own_is_a_task_or_a_function_of_the_data_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from fedaq.tasks import Task\n"
        "plain = Task('plain', None, None, None)\n"
        "def sized(data):\n"
        "    return Task(str(data), None, None, None)\n"
        "number = 3\n"
        "def wrong(data):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("my_tasks:plain", None).name == "plain"
    assert load_task("my_tasks:sized", tmp_path).name == str(tmp_path)
    for name in ("number", "wrong"):
        with pytest.raises(UserError, match=r"is a int, not a fedaq\.tasks\.Task"):
            load_task(f"my_tasks:{name}", None)
    with pytest.raises(UserError, match="has no 'missing'"):
        load_task("my_tasks:missing", None)
    with pytest.raises(UserError, match="no module 'nowhere'"):
        load_task("nowhere:task", None)


def test_an_unknown_task_is_told_the_known_ones() -> None:
    with pytest.raises(UserError, match="digits, fashion-mnist, fashion-mnist-cnn, images"):
        load_task("fashion", None)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("digits", (5, 64), 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        ("fashion-mnist", (5, 1, 28, 28), 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        # McMahan et al., arXiv 1602.05629, section 3, count the weights of this CNN.
        ("fashion-mnist-cnn", (5, 1, 28, 28), 1_663_370),
    ],
)
def test_models_have_ten_classes_and_their_number_of_weights(
    name: str, shape: tuple[int, ...], parameters: int
) -> None:
    model = load_task(name, None).model()
    assert spec_of(model).parameters == parameters
    inputs = torch.zeros(shape) if name == "digits" else torch.zeros(shape, dtype=torch.uint8)
    assert model(inputs).shape == (5, 10)


# --- Fashion-MNIST files


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


# --- folders of images


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def paint(
    path: Path,
    colour: tuple[int, int, int] = (0, 0, 0),
    size: tuple[int, int] = (40, 30),
    mode: str = "RGB",
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name, colour in COLOURS.items():
        for number in range(4):
            paint(root / "train" / name / f"{number}.png", colour)
        paint(root / "test" / name / "a.PNG", colour)
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "blue" / "Thumbs.db").write_bytes(b"no image")
    return root


def test_images_are_labelled_by_their_folders(split_folder: Path) -> None:
    task = load_task("images", split_folder)
    train, test = in_memory(task.train_data(split_folder)), in_memory(task.test_data(split_folder))
    assert train.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert test.targets.tolist() == [0, 1, 2]
    expected = torch.tensor(list(COLOURS.values()), dtype=torch.uint8).view(3, 3, 1, 1)
    assert torch.equal(test.inputs, expected.expand(3, 3, 32, 32))
    assert torch.equal(train.inputs, test.inputs.repeat_interleave(4, dim=0))
    torch.manual_seed(0)
    model = task.model()
    assert model(train.inputs).shape == (12, 3)
    for seed in range(8):
        task.train(model, train, Training(2, 4, 0.05, 0.5), seed)
    assert task.evaluate(model, test).accuracy == 1


def test_class_folders_alone_are_split_by_every_fifth_image(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for grey in range(12):
        paint(root / "one" / f"{grey:02}.png", (grey, 0, 0))
        paint(root / "two" / f"{grey:02}.png", (100 + grey, 0, 0))
    task = load_task("images", root)
    train, test = in_memory(task.train_data(root)), in_memory(task.test_data(root))
    assert test.inputs[:, 0, 0, 0].tolist() == [4, 9, 104, 109]
    assert test.targets.tolist() == [0, 0, 1, 1]
    both = torch.cat([train.inputs, test.inputs])[:, 0, 0, 0]
    assert sorted(both.tolist()) == [*range(12), *range(100, 112)]
    assert train.targets.tolist() == [0] * 10 + [1] * 10


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "P"), ("a.png", "RGBA"), ("a.jpg", "RGB"), ("a.jpeg", "CMYK"), ("a.JPG", "RGB")],
)
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (700, 31)])
def test_every_kind_of_file_becomes_small_and_coloured(
    name: str, mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    paint(tmp_path / name, (204, 102, 51), size, mode)
    pixels = images.decode([tmp_path / name])
    assert pixels.shape == (1, 3, 32, 32)
    assert np.abs(pixels[0].reshape(3, -1).T.astype(int) - (204, 102, 51)).max() <= 6


def test_a_photograph_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64))
    picture.paste((255, 255, 255), (0, 0, 32, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # the row at the top is the visual right-hand side
    picture.save(tmp_path / "a.png", exif=exif)
    (pixels,) = images.decode([tmp_path / "a.png"])
    assert pixels[:, :12].min() > 240, "the white half is at the top"
    assert pixels[:, 20:].max() < 15


def test_a_damaged_image_is_named(split_folder: Path) -> None:
    victim = split_folder / "train" / "green" / "2.png"
    for content in (victim.read_bytes()[:60], b"not an image", b""):
        victim.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as a JPEG or PNG") as caught:
            load_task("images", split_folder).train_data(split_folder)
        assert str(caught.value).startswith(f"{victim}: ")


def test_a_truncated_photograph_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read"):
        images.decode([path])


def test_a_vanished_image_is_named(split_folder: Path) -> None:
    link = split_folder / "train" / "red" / "link.png"
    link.symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"link\.png: cannot be read: No such file"):
        load_task("images", split_folder).train_data(split_folder)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(UserError, match=r"must hold train/<class>/\*\.jpg and test/<class>"):
            load_task("images", data)
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        load_task("images", tmp_path / "nowhere")
    paint(tmp_path / "train" / "only" / "a.png")
    with pytest.raises(UserError, match="two classes or more"):
        load_task("images", tmp_path)


def test_a_machine_may_hold_one_part_and_empty_classes(tmp_path: Path) -> None:
    paint(tmp_path / "train" / "cat" / "a.png")
    (tmp_path / "train" / "dog").mkdir()
    task = load_task("images", tmp_path)
    assert in_memory(task.train_data(tmp_path)).targets.tolist() == [0]
    with pytest.raises(UserError, match="no image for test"):
        task.test_data(tmp_path)


def folders_of(root: Path, *names: str) -> Task:
    for name in names:
        paint(root / "train" / name / "a.png")
    return load_task("images", root)


def test_the_folders_are_the_classes_and_no_layer_is_called_after_them(tmp_path: Path) -> None:
    task = folders_of(tmp_path / "one", "dog", "a cat, or two", "frosch.de")
    assert tuple(task.classes) == ("a cat, or two", "dog", "frosch.de")
    other = folders_of(tmp_path / "two", "cow", "dog", "frosch.de")
    one, two = (spec_of(t.model(), t.classes) for t in (task, other))
    assert one.tensors == two.tensors
    assert one.difference(two) == ("class missing there: a cat, or two; class missing here: cow")


def test_a_folder_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    task = folders_of(tmp_path / "one", "dog", os.fsdecode(b"caf\xe9"))
    with pytest.raises(UserError, match=r"class 'caf.udce9' of the task is no UTF-8 text"):
        spec_of(task.model(), task.classes)


@pytest.mark.parametrize(
    ("names", "layer"),
    [
        (["cat", "dog"], "cat,dog"),
        (["a.b", "c"], "a_b,c"),
        ([f"n{number:08}.x" for number in range(1000)], None),
    ],
)
def test_a_file_of_an_earlier_version_is_read(
    names: list[str], layer: str | None, tmp_path: Path
) -> None:
    """It calls the last layer by its classes, cut and with a checksum where they are many."""
    task = folders_of(tmp_path / "pictures", *names)
    spec = spec_of(task.model(), task.classes)
    if layer is None:
        joined = ",".join(names).replace(".", "_")
        layer = f"{joined[:100]}~{zlib.crc32(joined.encode()):08x}"
    then = ModelSpec(
        tuple(
            TensorSpec(tensor.name.replace("output", layer), tensor.shape)
            for tensor in spec.tensors
        )
    )
    values, read = np.arange(spec.parameters, dtype=np.float32), np.zeros(spec.parameters, "f4")
    write_weights(tmp_path / "old.safetensors", then, values)
    assert f'"{layer}.weight"'.encode() in (tmp_path / "old.safetensors").read_bytes()
    read_weights(tmp_path / "old.safetensors", spec, read, task.renamed)
    assert read.tolist() == values.tolist()
    others = folders_of(tmp_path / "others", *names[:-1], "zebra")
    with pytest.raises(UserError, match=r"output\.weight is missing"):
        read_weights(
            tmp_path / "old.safetensors",
            spec_of(others.model(), others.classes),
            read,
            others.renamed,
        )


def test_a_file_of_other_classes_is_refused_and_one_of_none_is_read(tmp_path: Path) -> None:
    one, two = (ModelSpec((TensorSpec("w", (2,)),), (name, "dog")) for name in ("cat", "cow"))
    path, read = tmp_path / "model.safetensors", np.zeros(2, np.float32)
    write_weights(path, one, np.ones(2, np.float32))
    read_weights(path, one, read)
    with pytest.raises(UserError) as refused:
        read_weights(path, two, read)
    assert str(refused.value) == (
        f"{path}: its classes are not the task's: class missing there: cow; class missing here: "
        "cat (the task here, the file there)"
    )
    assert load_file(path)["w"].tolist() == [1, 1]
    save_file({"w": np.full(2, 3, np.float32)}, path, metadata={"classes": "not JSON"})
    read_weights(path, two, read)
    assert read.tolist() == [3, 3]


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Path]]:
    decoded: list[Sequence[Path]] = []
    decode = images.decode

    def counted(files: Sequence[Path]) -> images.Pixels:
        decoded.append(files)
        return decode(files)

    monkeypatch.setattr(images, "decode", counted)
    return decoded


def test_decoded_images_are_kept_for_the_next_start(
    split_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decodes(monkeypatch)
    task = load_task("images", split_folder)
    first = in_memory(task.train_data(split_folder))
    again = in_memory(load_task("images", split_folder).train_data(split_folder))
    assert len(decoded) == 1
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    task.test_data(split_folder)
    task.train_data(split_folder)
    assert len(decoded) == 2, "training and test images are kept side by side"
    (kept, _) = (cache / "fedaq").iterdir()
    assert kept.stat().st_mode & 0o077 == 0, "others may read the user's pictures"


def test_changed_images_are_decoded_again(
    split_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decodes(monkeypatch)
    task = load_task("images", split_folder)
    task.train_data(split_folder)
    changed = split_folder / "train" / "blue" / "0.png"
    size = changed.stat().st_size
    paint(changed, (0, 255, 0))
    os.utime(changed, ns=(1, 1))
    assert changed.stat().st_size == size, "only the time tells"
    assert in_memory(task.train_data(split_folder)).inputs[0, :, 0, 0].tolist() == [0, 255, 0]
    paint(split_folder / "train" / "blue" / "9.png", (7, 7, 7))
    assert len(task.train_data(split_folder)) == 13
    assert len(decoded) == 3
    assert len(list((cache / "fedaq").iterdir())) == 1, "old pixels stay behind"


def spoil_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_pickle(path: Path) -> None:
    with np.load(path) as content:
        key = content["key"]
    np.savez(path, key=key, pixels=np.array([{"a": 1}], dtype=object))


def spoil_missing(path: Path) -> None:
    np.savez(path, other=np.zeros(3))


@pytest.mark.parametrize("spoil", [spoil_truncate, spoil_empty, spoil_pickle, spoil_missing])
def test_a_spoilt_cache_is_not_used(
    spoil: Callable[[Path], None], split_folder: Path, cache: Path
) -> None:
    task = load_task("images", split_folder)
    expected = in_memory(task.train_data(split_folder))
    (kept,) = (cache / "fedaq").iterdir()
    spoil(kept)
    again = in_memory(task.train_data(split_folder))
    assert torch.equal(again.inputs, expected.inputs)


def test_without_a_place_for_the_cache_images_are_decoded(split_folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    task = load_task("images", split_folder)
    assert len(task.train_data(split_folder)) == 12


def test_a_task_needs_no_data_path_of_its_own() -> None:
    task = load_task("digits", None)
    assert isinstance(task, Task)
    train, test = task.train_data(None), task.test_data(None)
    assert (len(train), len(test)) == (1437, 360)


# --- docs/

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "reference" / "tasks.md"


def test_the_tables_of_partitions_are_what_is_printed() -> None:
    failed, tried = doctest.testfile(
        str(DOCS / "research" / "partitions.md"), module_relative=False
    )
    assert tried > 5
    assert failed == 0


def test_the_task_that_the_guide_shows_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = GUIDE.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "documented.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    machine = rng.integers(0, 4, 200)
    signatures = rng.normal(size=(4, 64))
    readings = (signatures[machine] + rng.normal(size=(200, 64)) / 2).astype(np.float32)
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", readings=readings, machine=machine)
    task = load_task("documented:task", tmp_path)
    torch.manual_seed(0)
    model = task.model()
    for seed in range(3):
        task.train(model, task.train_data(tmp_path), task.training, seed)
    assert task.evaluate(model, task.test_data(tmp_path)).accuracy > 0.9
