"""Images of any size in class folders, learned as 32x32 colour images by a small CNN.

The ``--data`` folder holds ``train/<class>/*.jpg`` and ``test/<class>/*.jpg``, or class
folders only, of which every fifth image is then for testing. The classes are the names
of the folders; a device that has no image of a class holds an empty folder for it.
"""

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedaq.errors import UserError
from fedaq.files import make_folder, replacing
from fedaq.tasks import Examples, Normalise, Task, Training

SIDE = 32
ENDINGS = (".jpg", ".jpeg", ".png")
TEST_EVERY = 5
# Of ImageNet, which torchvision's models take for photographs of all kinds.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_OUTPUT = "output"

Part = Literal["train", "test"]
Pixels = NDArray[np.uint8]

log = logging.getLogger(__name__)


def task(data: Path | None) -> Task:
    """Return the task for the class folders below `data`.

    Raises
    ------
    UserError
        If there are fewer than two.
    """
    if data is None or len(classes := class_names(data)) < 2:
        raise UserError(
            f"task images: the folder --data {data or 'DIR'} must hold train/<class>/*.jpg and "
            "test/<class>/*.jpg, or just <class>/*.jpg, of two classes or more (.png will do)"
        )
    return Task(
        name="images",
        model=partial(_cnn, len(classes)),
        train_data=lambda _: _read(data, classes, "train"),
        test_data=lambda _: _read(data, classes, "test"),
        training=Training(local_epochs=1, batch_size=64, learning_rate=0.02, momentum=0.9),
        classes=classes,
        renamed={
            f"{_former_output(classes)}.{part}": f"{_OUTPUT}.{part}" for part in ("weight", "bias")
        },
    )


def class_names(data: Path) -> list[str]:
    """Return the sorted names of the class folders, of both parts together."""
    roots = [root for root in (data / "train", data / "test") if root.is_dir()]
    folders = (path for root in roots or [data] for path in root.glob("[!.]*/"))
    return sorted({folder.name for folder in folders})


def _cnn(classes: int) -> nn.Module:
    # A ReLU after the pooling gives the same values as before it, from a quarter of them.
    model = nn.Sequential(
        Normalise(MEAN, STD),
        nn.Conv2d(3, 32, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(64, 64, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 64),
        nn.ReLU(),
    )
    model.add_module(_OUTPUT, nn.Linear(64, classes))
    return model


def _former_output(classes: Sequence[str]) -> str:
    """Return the name that the output layer had when it was all that told of the classes."""
    name = ",".join(classes).replace(".", "_")
    return name if len(name) <= 100 else f"{name[:100]}~{zlib.crc32(os.fsencode(name)):08x}"


def _read(data: Path, classes: Sequence[str], part: Part) -> Examples:
    files: list[Path] = []
    counts = []
    for name in classes:
        images = _images_of(data, name, part)
        files += images
        counts.append(len(images))
    if not files:
        raise UserError(f"task images: {data}: there is no image for {part} in its class folders")
    pixels = _cached_pixels(files, _cache_path(data, part))
    labels = np.repeat(np.arange(len(classes)), counts)
    return Examples(torch.from_numpy(pixels), torch.from_numpy(labels))


def _images_of(data: Path, name: str, part: Part) -> list[Path]:
    split = (data / "train").is_dir() or (data / "test").is_dir()
    folder = data / part / name if split else data / name
    images = [path for path in folder.glob("*") if path.suffix.lower() in ENDINGS]
    images.sort(key=lambda path: path.name)
    if split:
        return images
    if part == "test":
        return images[TEST_EVERY - 1 :: TEST_EVERY]
    del images[TEST_EVERY - 1 :: TEST_EVERY]
    return images


def _cached_pixels(files: Sequence[Path], cache: Path | None) -> Pixels:
    """Decode the files, or return what an earlier start made of the very same files."""
    if cache is None:
        return decode(files)
    key = _listing_digest(files)
    try:
        with np.load(cache, allow_pickle=False) as content:
            if str(content["key"]) == key:
                pixels: Pixels = content["pixels"]
                return pixels
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        pass
    pixels = decode(files)
    try:
        _write_cache(cache, key, pixels)
    except OSError as error:
        log.info("the decoded images are not kept for the next start: %s", error)
    return pixels


def _cache_path(data: Path, part: Part) -> Path | None:
    """Return where the pixels of a folder are kept, readable by this user alone."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a service without a home
        return None
    return caches / "fedaq" / f"images-{_digest(str(data.resolve()))}-{part}.npz"


def _listing_digest(files: Sequence[Path]) -> str:
    try:
        stats = [path.stat() for path in files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    pairs = zip(files, stats, strict=True)
    return _digest(repr((SIDE, [(str(file), s.st_size, s.st_mtime_ns) for file, s in pairs])))


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _write_cache(cache: Path, key: str, pixels: Pixels) -> None:
    make_folder(cache.parent)
    # Others on this machine may begin with the same folder at the same time.
    with (
        replacing(cache, private=True, writer=f".{os.getpid()}") as partial,
        partial.open("wb") as file,  # given a path, it would add an ending
    ):
        np.savez(file, key=np.array(key), pixels=pixels)


def decode(files: Sequence[Path]) -> Pixels:
    """Decode JPEG and PNG files, and squeeze each to `SIDE` x `SIDE`, on every processor.

    Returns
    -------
    uint8, shape (len(files), 3, SIDE, SIDE)

    Raises
    ------
    UserError
        If a file is not an image; the message names it.
    """
    if find_spec("PIL") is None:
        raise UserError("task images: pillow decodes the images; pip install pillow")
    item = np.dtype((np.uint8, (3, SIDE, SIDE)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.fromiter(pool.map(_decode_one, files), item, count=len(files))


def _decode_one(path: Path) -> Pixels:
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.draft("RGB", (SIDE, SIDE))  # lets libjpeg skip what the resize would drop
            ImageOps.exif_transpose(image, in_place=True)
            small = image.convert("RGB").resize((SIDE, SIDE))
    except Exception as error:  # corrupt bytes make the decoders raise almost anything
        kind = type(error).__name__
        raise UserError(f"{path}: cannot be read as a JPEG or PNG image ({kind})") from None
    return np.asarray(small).transpose(2, 0, 1)
