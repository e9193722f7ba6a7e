"""Rebuild workers' digits from their updates, then try the same on a trusted aggregator's averages.

    python examples/gradient_leakage.py

Every worker holds one private image and computes one gradient: the worst case. Two attacks know the network
and what left: a division reads the image off a linear first layer, a search finds the images whose gradient
through a CNN is the one seen. One update gives its image away to both. An average over 10 withstands the
division, not the search, which looks for 640 pixels and sees 1,954 numbers. Over 50 there are 3,200 pixels:
what is found has the right average and is no nearer to a worker's image than a stranger's digit. Averaging is
no formal privacy: what a class looks like still shows, and who knows the others' images can subtract them.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import fedlightning as fl
from fedlightning.data.datasets import load_digits
from fedlightning.examples import leakage
from fedlightning.workers import Allow, Rules, program

COHORTS = (10, 50)
VICTIMS = (2, 5, 6)  # in both cohorts: a three, a seven and an eight
LINE = "\n"  # between an attack and what it saw, in a picture's title
AGREEMENT = Rules(Allow(kinds=("data",), to=("aggregator",)))
update = program(returns="data")(leakage.gradient_of)


@program(returns="module")
def average(updates: list[Tensor]) -> Tensor:
    """Average updates of equal weight."""
    return torch.stack(updates).mean(0)


def seen(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return what the controller sees: the average over workers with one image each."""
    aggregator, gathered = fl.VirtualWorker(id="aggregator"), []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        worker = fl.VirtualWorker(id=f"worker-{number}", policy=AGREEMENT)
        sample = worker.register(image[None]), worker.register(label[None])
        gathered.append(worker.start(update, worker.send(network), *sample).move(aggregator))
    return aggregator.run(average, gathered)


def attack(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return each attack's candidates for the images, of shape ``(candidates, 64)``."""
    mlp, cnn = leakage.small_mlp(), leakage.small_cnn()
    found = leakage.invert_first_layer(mlp, seen(mlp, images, labels)).clamp(0, 1)
    searched = leakage.deep_leakage(cnn, seen(cnn, images, labels), labels.tolist(), pixels=64, steps=300)
    return {"first layer": found, "search": searched}


def draw() -> Figure:
    """Attack three workers, print the errors of the attacker's best images, and draw them side by side."""
    images, labels = load_digits().train.tensors
    images = images.flatten(1).double()
    averages = {f"average of {size}": attack(images[:size], labels[:size]) for size in COHORTS}
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    for row, victim in zip(figure.subplots(len(VICTIMS), 8), VICTIMS, strict=True):
        alone = attack(images[[victim]], labels[[victim]])
        columns = {"private digit": images[[victim]], "stranger's digit": images[50:100]}
        for seen_was, attacks in {"one update": alone, **averages}.items():
            columns |= {f"{seen_was}{LINE}{name}": found for name, found in attacks.items()}
        for axis, (title, candidates) in zip(row, columns.items(), strict=True):
            image, error = leakage.nearest(candidates, images[victim])
            print(f"{labels[victim]}  {title.replace(LINE, ', '):<27}  mean squared error {error:.4f}")
            axis.imshow(image.view(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xlabel=f"error {error:.4f}", xticks=[], yticks=[])
            axis.set_title(title if victim == VICTIMS[0] else "")
    return figure


if __name__ == "__main__":
    draw().savefig("gradient_leakage.png", dpi=120)
    print("They are drawn side by side in gradient_leakage.png.")
