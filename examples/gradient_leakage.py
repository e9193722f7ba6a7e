"""Rebuild a worker's digit from its update, then try the same on a trusted aggregator's average.

    python examples/gradient_leakage.py

Every worker holds one private image and computes one gradient: the worst case. Seen alone, it gives the
image away. The average over ten workers withstands the division that works for one, but not a search for
ten images at once: they are 640 unknown pixels, and the average tells 1,210 numbers. Over 50 workers (3,200
unknown pixels) the search finds images that have the right average and are none of the workers'.
Averaging is no formal privacy: what a class looks like still shows, and who knows the others' images can
subtract them. Prints the error of the attacker's best image, and saves the pictures.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import fedlightning as fl
from fedlightning.data.datasets import load_digits
from fedlightning.examples.leakage import deep_leakage, gradient_of, invert_first_layer, label_of
from fedlightning.workers import program

COHORTS = (1, 10, 50)
update = program(returns="module")(gradient_of)


def updates_seen(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return what the controller sees: one worker's gradient, then the average over each larger cohort."""
    secure_worker = fl.VirtualWorker(id="secure_worker")
    workers = [fl.VirtualWorker(id=f"worker_{number}") for number in range(max(COHORTS))]
    moved = []
    for worker, image, label in zip(workers, images, labels, strict=True):
        image_there, label_there = worker.register(image[None]), worker.register(label[None])
        gradient = worker.start(update, worker.send(network), image_there, label_there)
        moved.append(gradient.move(secure_worker))
    return [secure_worker.get(torch.stack(moved[:cohort]).mean(0)) for cohort in COHORTS]


def best(candidates: Tensor, image: Tensor) -> Tensor:
    """Choose the candidate nearest to the truth, as only a lucky attacker can."""
    candidates = candidates.clamp(0, 1)
    return candidates[(candidates - image).square().mean(1).argmin()]


def show(rebuilt: dict[str, list[Tensor]]) -> None:
    """Print how far each image is from the first of its row, and save the pictures side by side."""
    averages = [f"average over {cohort}" for cohort in COHORTS[1:]]
    titles = ("original", "blind guess", "one worker", *averages)
    figure, axes = plt.subplots(len(rebuilt), len(titles), figsize=(9, 4.5), layout="constrained")
    for row, (attack, images) in zip(axes, rebuilt.items(), strict=True):
        for axis, title, image in zip(row, titles, images, strict=True):
            error = f"error {(image - images[0]).square().mean():.4f}"
            print(f"{attack:<13} {title:<16} mean squared {error}")
            axis.imshow(image.view(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(title=f"{title}\n{error}", xticks=[], yticks=[])
        row[0].set_ylabel(attack)
    figure.savefig("gradient_leakage.png", dpi=120)


def main() -> None:
    """Attack one worker's update and two averages."""
    digits, members = load_digits().train, max(COHORTS)
    images, labels = digits.tensors[0].flatten(1).double(), digits.tensors[1]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 16), nn.Sigmoid(), nn.Linear(16, 10)).double()
    # What an attacker has who saw no update: images of nobody in the cohort, and as much luck.
    victim, blind = images[0], best(images[members : 2 * members], images[0])
    rebuilt = {"first layer": [victim, blind], "deep leakage": [victim, blind]}
    updates = updates_seen(network, images[:members], labels[:members])
    for cohort, gradient in zip(COHORTS, updates, strict=True):
        known = [label_of(gradient, classes=10)] if cohort == 1 else labels[:cohort].tolist()
        rebuilt["first layer"].append(best(invert_first_layer(network, gradient), victim))
        rebuilt["deep leakage"].append(best(deep_leakage(network, gradient, known, seed=1), victim))
    show(rebuilt)


if __name__ == "__main__":
    main()
