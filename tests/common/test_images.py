"""Reading folders of images, which may hold anything, and what is kept for the next start."""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from common.small_tasks import in_memory
from fedaq.codec.model import ModelSpec, TensorSpec
from fedaq.errors import UserError
from fedaq.modules.signature import spec_of
from fedaq.tasks import (
    Task,
    Training,
    images,
    load_task,
)
from fedaq_server.records.weights import read_weights, write_weights

pytestmark = pytest.mark.usefixtures("one_thread")


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
