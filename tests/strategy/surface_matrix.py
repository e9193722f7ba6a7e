"""The features of Lightning that the matrix of ``docs/lightning.md`` shows, and what a fit with each gives.

``python -m tests.strategy.surface_matrix`` writes the table; a test compares it with what is committed.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.test_optimization import Manual, OneCycle, Plateau
from tests.strategy.toys import Classifier, fit, loader, samples

PAGE = Path(__file__).parents[2] / "docs" / "lightning.md"
START, END = "<!-- matrix -->", "<!-- end of matrix -->"
UPDATES = ("averaged", "sequential")
PATHS: Mapping[str, Mapping[str, Any]] = {
    "gradients": {"local_steps": 1},
    "local": {"local_epochs": 1, "optimizer_state": "keep"},
}
SAME, WORKS = "same bits", "works"
PLAIN = partial(Classifier, schedule=False)


@dataclass(frozen=True)
class Feature:
    """One feature of Lightning.

    Args:
        module: Makes the module.
        train: Makes the train loader.
        settings: Makes the Trainer's arguments, given a folder.
        workers: For how many workers the cell stands, where four cannot have it.
    """

    module: Callable[[], Classifier] = PLAIN
    train: Callable[[], Any] = loader
    settings: Callable[[Path], dict[str, Any]] = field(default=lambda folder: {})
    workers: int = 4


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(list(samples(26)))


class OwnClipping(Classifier):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="value")


class OwnStep(Classifier):
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)


class OwnLog(Classifier):
    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


class Sometimes(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx % 3 == 1 else loss


class AsDict(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx)}


class TwoSources(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return torch.stack([nn.functional.cross_entropy(self.net(x), y) for x, y in batch.values()]).sum()


class Iterates(Classifier):
    def training_step(self, dataloader_iter: Any) -> None:
        return None


class ConfiguresLate(Classifier):
    def configure_model(self) -> None:
        self.net[4] = nn.Linear(8, 3)


class Backbone(Classifier):
    @property
    def backbone(self) -> nn.Module:
        return self.net[0]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net[2:].parameters(), lr=0.1)


def lbfgs() -> Classifier:
    return Classifier(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2), schedule=False)


def settings(**values: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: values


def callback(make: Callable[[], Any]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"callbacks": [make()]}


def saving(folder: Path) -> dict[str, Any]:
    saver = ModelCheckpoint(folder, monitor="val/acc", mode="max", save_top_k=2, save_last=True)
    return {"callbacks": [saver], "enable_checkpointing": True}


FEATURES: dict[str, Feature] = {
    "automatic optimization": Feature(),
    "manual optimization, two optimizers, `toggle_model`": Feature(Manual),
    "`training_step` returns a dict": Feature(partial(AsDict, schedule=False)),
    "`training_step` returns `None`": Feature(partial(Sometimes, schedule=False)),
    "LBFGS (closures run several times)": Feature(lbfgs),
    "scheduler per step": Feature(Classifier),
    "`ReduceLROnPlateau`": Feature(Plateau),
    "`OneCycleLR` by `estimated_stepping_batches`": Feature(OneCycle),
    "gradient clipping by norm": Feature(settings=settings(gradient_clip_val=0.1)),
    "gradient clipping by value": Feature(
        settings=settings(gradient_clip_val=0.1, gradient_clip_algorithm="value")
    ),
    "`configure_gradient_clipping` overridden": Feature(partial(OwnClipping, schedule=False)),
    "`optimizer_step` overridden": Feature(partial(OwnStep, schedule=False)),
    "`log` overridden": Feature(partial(OwnLog, schedule=False)),
    "`configure_model`": Feature(partial(ConfiguresLate, schedule=False)),
    "`accumulate_grad_batches`": Feature(settings=settings(accumulate_grad_batches=2)),
    "`GradientAccumulationScheduler`": Feature(
        settings=callback(lambda: GradientAccumulationScheduler({0: 1, 1: 2}))
    ),
    "precision bf16-mixed": Feature(settings=settings(precision="bf16-mixed")),
    "precision bf16-true": Feature(settings=settings(precision="bf16-true")),
    "precision 64-true": Feature(settings=settings(precision="64-true")),
    "`limit_train_batches`, `limit_val_batches`": Feature(
        settings=settings(limit_train_batches=1, limit_val_batches=1)
    ),
    "`overfit_batches`": Feature(settings=settings(overfit_batches=1)),
    "`fast_dev_run`": Feature(settings=settings(fast_dev_run=True)),
    "`max_steps`": Feature(settings=settings(max_steps=2, max_epochs=-1)),
    "`max_time`": Feature(settings=settings(max_time="00:01:00:00")),
    "`val_check_interval`": Feature(settings=settings(val_check_interval=0.5)),
    "`check_val_every_n_epoch`": Feature(settings=settings(check_val_every_n_epoch=2)),
    "`num_sanity_val_steps`": Feature(settings=settings(num_sanity_val_steps=2)),
    "`detect_anomaly`": Feature(settings=settings(detect_anomaly=True)),
    "`reload_dataloaders_every_n_epochs`": Feature(settings=settings(reload_dataloaders_every_n_epochs=1)),
    "`devices=2`": Feature(settings=settings(devices=2)),
    "`ModelCheckpoint` (monitor, top-k, last)": Feature(settings=saving),
    "`EarlyStopping`": Feature(settings=callback(lambda: EarlyStopping("val/loss"))),
    "`LearningRateMonitor`, `CSVLogger`": Feature(
        Classifier, settings=lambda f: {"callbacks": [LearningRateMonitor()], "logger": CSVLogger(f)}
    ),
    "`StochasticWeightAveraging`": Feature(
        settings=callback(lambda: StochasticWeightAveraging(0.05, swa_epoch_start=1))
    ),
    "`WeightAveraging`": Feature(settings=callback(WeightAveraging)),
    "`BackboneFinetuning`": Feature(
        Backbone,
        settings=callback(
            lambda: BackboneFinetuning(1, initial_denom_lr=10.0, train_bn=False, backbone_initial_lr=0.01)
        ),
    ),
    "`Timer`, `ModelSummary`, `RichProgressBar`": Feature(
        settings=lambda f: {
            "callbacks": [Timer(), ModelSummary(), RichProgressBar()],
            "enable_progress_bar": True,
            "enable_model_summary": True,
        }
    ),
    "profiler": Feature(settings=settings(profiler="simple")),
    "several train loaders": Feature(
        TwoSources,
        lambda: CombinedLoader({"a": loader(30), "b": loader(14)}, "max_size_cycle"),
        workers=1,
    ),
    "iterable dataset": Feature(PLAIN, lambda: DataLoader(Stream(), batch_size=4), workers=1),
    "batch sampler of one's own": Feature(
        PLAIN, lambda: DataLoader(samples(), batch_sampler=[[0, 1, 2], [5, 9], [7, 8, 3, 4]]), workers=1
    ),
    "`training_step(dataloader_iter)`": Feature(Iterates),
}


def outcome(feature: Feature, update: Any, path: str) -> str:
    """Fit with one worker, against an ordinary fit, and with four uneven ones; return what is to be said."""
    try:
        ours = trained(feature, FederatedStrategy(1, update=update, **PATHS[path]))
        if feature.workers > 1:
            trained(feature, FederatedStrategy(4, update=update, **PATHS[path]))
    except (NotFederatable, TypeError) as error:
        reason = str(error).removeprefix("FederatedStrategy cannot run this fit:\n- ").split(". ")[0]
        return f"refused: {reason.rstrip('.')}"
    return SAME if all(map(torch.equal, ordinary(feature), ours)) else WORKS


@lru_cache(maxsize=1)
def ordinary(feature: Feature) -> list[Tensor]:
    """Return what an ordinary fit trains, once for the cells of a row."""
    return trained(feature, "auto")


def trained(feature: Feature, strategy: Any) -> list[Tensor]:
    """Fit and return the trained parameters and buffers."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = {"default_root_dir": folder, **feature.settings(Path(folder))}
        module, _ = fit(strategy, module=feature.module, train=feature.train(), **values)
    return [value for name, value in module.state_dict().items() if name.startswith("net")]


def row(name: str) -> str:
    """Return one line of the table, with the reasons for refusals below it left to ``table``."""
    cells = [outcome(FEATURES[name], update, path) for path in PATHS for update in UPDATES]
    workers = " (one worker)" if FEATURES[name].workers == 1 else ""
    return f"| {name}{workers} | " + " | ".join(cells) + " |"


def table() -> str:
    """Return the whole table."""
    heads = [f"{path}, {update}" for path in PATHS for update in UPDATES]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    return "\n".join([*lines, *map(row, FEATURES)])


def committed() -> str:
    """Return the table that is on the page."""
    return PAGE.read_text().split(START)[1].split(END)[0].strip()


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    written = table()
    before, after = PAGE.read_text().split(START)[0], PAGE.read_text().split(END)[1]
    PAGE.write_text(f"{before}{START}\n{written}\n{END}{after}")
