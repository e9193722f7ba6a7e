"""Checkpoints as earlier versions of fedlightning wrote them, kept to be read by all that come.

``python -m tests.strategy.old_checkpoints`` writes those of the version at hand; each release adds its own. A
change after which a run would go on in another way, such as another shuffling, raises `FORMAT`, so that
checkpoints from before are refused; before the first release, it writes those of the version at hand anew.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from fedlightning import __version__
from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import loader, trainer

FOLDER = Path(__file__).parent / "checkpoints"
MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
FEDERATIONS: dict[str, dict[str, Any]] = {
    "averaged": {"local_steps": 2, "optimizer_state": "keep", "server_optimizer": MOMENTUM},
    "sequential": {"local_steps": 2, "update": "sequential"},
}
SAVED_AFTER = 2


class Small(L.LightningModule):
    """Has an optimizer with a state, and a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = MOMENTUM(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def run(name: str, folder: Path | None = None, **settings: Any) -> Small:
    """Fit for two epochs of three rounds each, with a checkpoint in mid-epoch."""
    if folder is not None:
        saver = ModelCheckpoint(folder, filename=name, every_n_train_steps=SAVED_AFTER)
        settings |= {"callbacks": [saver], "enable_checkpointing": True, "max_steps": SAVED_AFTER}
    fit_settings = {"ckpt_path": settings.pop("ckpt_path", None)}
    L.seed_everything(3, verbose=False)
    module = Small()
    strategy = FederatedStrategy(3, rounds_per_epoch=3, seed=3, **FEDERATIONS[name])
    trainer(strategy, **settings).fit(module, loader(), **fit_settings)
    return module


if __name__ == "__main__":
    for each in FEDERATIONS:
        run(each, FOLDER / __version__)
        torch.save(run(each).state_dict(), FOLDER / __version__ / f"{each}.trained")
