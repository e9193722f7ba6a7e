"""Train the same digits classifier with all data in one place, and in two ways at ten workers.

    python examples/federated_digits.py

The one difference is the Trainer's ``strategy``. The script prints the test accuracy of each; with uneven
labels at the workers (Dirichlet, alpha = 0.3), averaged models end some five points below the central one,
and the model that goes from worker to worker beside it.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import lightning as L

import fedlightning as fl
from fedlightning.examples import DigitsClassifier, DigitsDataModule


def test_accuracy(strategy: fl.FederatedStrategy | str, epochs: int) -> float:
    """Fit the digits classifier and return its accuracy on the test digits."""
    L.seed_everything(42, verbose=False)
    trainer = L.Trainer(
        strategy=strategy,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    module, digits = DigitsClassifier(), DigitsDataModule()
    trainer.fit(module, datamodule=digits)
    return float(trainer.test(module, datamodule=digits, verbose=False)[0]["test/acc"])


def main() -> None:
    """Compare central and federated training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="passes over the data; rounds, when averaged")
    epochs = parser.parse_args().epochs
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec", module="lightning")  # its own use of torch

    uneven = fl.data.Dirichlet(alpha=0.3)
    strategies: dict[str, fl.FederatedStrategy | str] = {
        "central": "auto",
        "averaged": fl.FederatedStrategy(workers=10, partition=uneven, update="averaged", local_epochs=1),
        "sequential": fl.FederatedStrategy(workers=10, partition=uneven, update="sequential", local_epochs=1),
    }
    for name, strategy in strategies.items():
        print(f"{name:<10} test accuracy {test_accuracy(strategy, epochs):.3f}")


if __name__ == "__main__":
    main()
