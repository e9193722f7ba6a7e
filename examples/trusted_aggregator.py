"""Train at three clinics; the models meet at a fourth place, and only their average leaves it.

    python examples/trusted_aggregator.py

In each round every clinic trains a copy of the model on its own data. The copies move from the clinics to the
aggregator directly, are averaged there, and the average comes back. That nothing else leaves is the clinics'
policy, which goes along with whatever is computed from their data. Prints the accuracy of the average, what
whoever asks for a single model is told, and two ledgers.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import fedlightning as fl
from fedlightning.data.datasets import load_digits
from fedlightning.workers import Allow, AtLeast, RefusedByPolicy, Rules, program

ROUNDS, CLINICS = 10, ("north", "south", "west")
AGREEMENT = Rules(
    Allow(kinds=("metrics",)),  # a loss may leave
    Allow(kinds=("module",), to=("aggregator",)),  # a model may go to the aggregator
    AtLeast(3, programs=(f"{__name__}:average",)),  # and from there, the average over three clinics
)


@program(returns="metrics")
def train(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Take 20 steps on all samples; return the last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


@program(returns="module")
def average(models: list[nn.Module]) -> nn.Module:
    """Average models of the same kind."""
    mean, vectors = deepcopy(models[0]), [parameters_to_vector(model.parameters()) for model in models]
    vector_to_parameters(torch.stack(vectors).mean(0), mean.parameters())
    return mean


def round_of(model: nn.Module, data: dict[fl.Worker, list[Any]], aggregator: fl.Worker) -> list[Any]:
    """Train a copy at every clinic; return pointers to what has moved to the aggregator."""
    copies = {clinic: clinic.send(deepcopy(model)) for clinic in data}
    for clinic, samples in data.items():
        clinic.run(train, copies[clinic], *samples)
    return [copy.move(aggregator) for copy in copies.values()]


def main() -> None:
    """Train for a few rounds, then ask for more than was agreed on."""
    digits, data = load_digits(), {}
    for name, part in zip(CLINICS, fl.data.IID().split(digits.train, len(CLINICS)).indices, strict=True):
        clinic = fl.VirtualWorker(id=name, policy=AGREEMENT)
        data[clinic] = [clinic.register(tensor[part]) for tensor in digits.train.tensors]
    aggregator = fl.VirtualWorker(id="aggregator", policy=AGREEMENT)
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    for _ in range(ROUNDS):
        gathered = round_of(model, data, aggregator)
        model = aggregator.run(average, gathered)

    images, labels = digits.val.tensors
    print(f"accuracy of the average: {(model(images).argmax(1) == labels).float().mean():.3f}")
    try:
        aggregator.get(gathered[0])
    except RefusedByPolicy as refusal:
        print("a single model:", refusal)
    print(f"\nthe ledger of {clinic.id}\n{clinic.ledger}\n\nthat of the aggregator\n{aggregator.ledger}")


if __name__ == "__main__":
    main()
