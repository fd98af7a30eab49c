"""The tutorial's whole program: train for two epochs, test after each, save the weights and the optimizer.

    python -m benchmarks.tutorial FOLDER OUTPUT

FOLDER holds MNIST as torchvision lays it out, so nothing is downloaded. benchmarks/training.py compares this program
with mnist-train.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.torchvision_cpu import import_torchvision
from training.networks import DEVIATION, MEAN

EPOCHS = 2

Batches = Iterable[tuple[Tensor, Tensor]]


class Network(nn.Module):
    """784-28-10 with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(784, 28)
        self.output = nn.Linear(28, 10)

    def forward(self, images: Tensor) -> Tensor:
        return F.log_softmax(self.output(F.relu(self.hidden(images.flatten(1)))), dim=1)


def loader(folder: Path, *, train: bool, batch_size: int) -> Batches:
    """Return a loader that opens, scales and stacks one image after the other."""
    torchvision = import_torchvision()
    scale = torchvision.transforms.Compose(
        [torchvision.transforms.ToTensor(), torchvision.transforms.Normalize((MEAN,), (DEVIATION,))]
    )
    dataset = torchvision.datasets.MNIST(str(folder), train=train, transform=scale)
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=train)


def run_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        F.nll_loss(network(images), labels).backward()
        optimizer.step()


def accuracy(network: nn.Module, batches: Batches) -> float:
    network.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in batches:
            correct += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return correct / total


def main(folder: Path, output: Path) -> None:
    """Train, test and save."""
    training, test = loader(folder, train=True, batch_size=128), loader(folder, train=False, batch_size=1000)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    for epoch in range(EPOCHS):
        run_epoch(network, optimizer, training)
        print(f"epoch {epoch + 1}: {accuracy(network, test):.2%}")
        torch.save(network.state_dict(), output / "model.pth")
        torch.save(optimizer.state_dict(), output / "optimizer.pth")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
