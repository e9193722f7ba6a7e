"""What a model reaches that has all of a data set in one place: the yardstick for federated runs.

    python -m benchmarks.central_accuracy digits mnist5k synthetic fcube
    python -m benchmarks.central_accuracy shakespeare     # three minutes of one core

The figures stand in the loaders' docstrings and in docs/data.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.data.datasets import load_digits, load_mnist5k, load_shakespeare, make_fcube, make_synthetic
from fedlightning.data.datasets.shakespeare import NO_TARGET

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Job:
    """A model, its data, and how long it is trained."""

    model: nn.Module
    train: TensorDataset
    val: TensorDataset
    epochs: int
    batch_size: int
    lr: float


def small_cnn(side: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (side // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class NextCharacter(nn.Module):
    """Predict every next character: an embedding and an LSTM (McMahan et al. 2017: two of 256 units)."""

    def __init__(self, characters: int, units: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, units, batch_first=True)
        self.head = nn.Linear(units, characters)

    def forward(self, text: Tensor) -> Tensor:
        """Return a score per character, in the second dimension as cross entropy wants them."""
        states, _ = self.lstm(self.embedding(text))
        scores: Tensor = self.head(states)
        return scores.transpose(1, 2)


def digits() -> Job:
    return Job(small_cnn(8), *load_digits(), epochs=40, batch_size=32, lr=2e-3)


def mnist5k() -> Job:
    return Job(small_cnn(28), *load_mnist5k(), epochs=15, batch_size=32, lr=1e-3)


def shakespeare() -> Job:
    train, val, vocabulary = load_shakespeare()
    model = NextCharacter(len(vocabulary) + 1)
    return Job(model, train.dataset, val.dataset, epochs=4, batch_size=64, lr=5e-3)


def synthetic() -> Job:
    """All workers' samples of Synthetic(1, 1) in one place: as their models differ, none fits them all."""
    data = make_synthetic(1.0, 1.0).dataset
    size = len(data) // 5
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    val, train = (TensorDataset(*data[part]) for part in (order[:size], order[size:]))
    return Job(nn.Linear(60, 10), train, val, epochs=20, batch_size=32, lr=1e-2)


def fcube() -> Job:
    return Job(
        nn.Linear(3, 2),
        make_fcube().dataset,
        make_fcube(1000, seed=1).dataset,
        epochs=20,
        batch_size=32,
        lr=1e-2,
    )


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    right = counted = 0
    with torch.no_grad():
        for x, y in DataLoader(data, 256):
            predicted = model(x.to(DEVICE)).argmax(1).cpu()
            right += int((predicted == y).sum())
            counted += int((y != NO_TARGET).sum())
    return right / counted


def run(job: Job) -> None:
    model = job.model.to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=job.lr)
    loss_of = nn.CrossEntropyLoss(ignore_index=NO_TARGET)
    loader = DataLoader(job.train, job.batch_size, shuffle=True)
    # Down to 0, so that the figure does not depend on which step was the last.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.epochs * len(loader))
    for epoch in range(job.epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss_of(model(x.to(DEVICE)), y.to(DEVICE)).backward()
            optimizer.step()
            schedule.step()
        print(f"  epoch {epoch + 1}: {accuracy(model, job.val):.1%}", flush=True)


JOBS: dict[str, Callable[[], Job]] = {
    job.__name__: job for job in (digits, mnist5k, shakespeare, synthetic, fcube)
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train centrally, for a figure to compare with.")
    parser.add_argument("jobs", nargs="*", choices=[*JOBS, []], default=[], help="all unless given")
    for name in parser.parse_args().jobs or JOBS:
        torch.manual_seed(0)
        job = JOBS[name]()
        parameters = sum(parameter.numel() for parameter in job.model.parameters())
        print(f"{name}: {len(job.train):,} samples, {parameters:,} parameters", flush=True)
        run(job)


if __name__ == "__main__":
    main()
