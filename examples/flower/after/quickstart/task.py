"""The model, the data and the training: what any app in PyTorch has."""

import gzip
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

# With the four files of Fashion-MNIST in this folder, those images; without, scikit-learn's digits.
FOLDER = os.environ.get("FASHION_MNIST")


class Net(nn.Module):
    """The small CNN of PyTorch's 60-minute introduction, for images of 28 x 28 in one colour."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (n, 10), of images of shape (n, 1, 28, 28)."""
        x = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


def train_and_test(
    partition: int, partitions: int, batch_size: int
) -> tuple[DataLoader, DataLoader]:
    """Return a node's own images, 80 % to train with and 20 % to test with: an IID partition."""
    images, labels = _images("train")
    mine = np.random.default_rng(42).permutation(len(images))[partition::partitions]
    split = len(mine) * 4 // 5
    parts = mine[:split], mine[split:]
    train, test = (TensorDataset(images[part], labels[part]) for part in parts)
    return DataLoader(train, batch_size, shuffle=True), DataLoader(test, batch_size)


def common_test() -> DataLoader:
    """Return the images that no node has."""
    return DataLoader(TensorDataset(*_images("t10k")), 500)


def train(model: Net, loader: DataLoader, epochs: int, learning_rate: float) -> float:
    """Train with SGD; return the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    losses = []
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def test(model: Net, loader: DataLoader) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    loss, right, count = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


@cache
def _images(part: str) -> tuple[Tensor, Tensor]:
    """Return images in [-1, 1], shape (n, 1, 28, 28), and labels."""
    if FOLDER:
        images = _idx(f"{part}-images-idx3-ubyte.gz", 16)
        labels = _idx(f"{part}-labels-idx1-ubyte.gz", 8)
        pixels = images.reshape(-1, 1, 28, 28) / np.float32(127.5) - 1
    else:
        from sklearn.datasets import load_digits

        digits = load_digits()
        mine = slice(0, 1500) if part == "train" else slice(1500, None)
        # Of 8 x 8, each pixel three times as wide and high, with a margin.
        wide = np.kron(digits.images[mine], np.ones((3, 3))).astype(np.float32) / 8 - 1
        pixels = np.pad(wide, ((0, 0), (2, 2), (2, 2)), constant_values=-1)[:, None]
        labels = digits.target[mine]
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def _idx(name: str, header_bytes: int) -> np.ndarray:
    content = gzip.decompress((Path(str(FOLDER)) / name).read_bytes())
    return np.frombuffer(content, np.uint8, offset=header_bytes)
