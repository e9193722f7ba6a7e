"""The features of Lightning that the matrix of ``docs/lightning.md`` shows, and what a fit with each gives.

``python -m tests.strategy.surface_matrix`` writes the table; a test compares it with what is committed.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    ModelSummary,
    OnExceptionCheckpoint,
    RichProgressBar,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.committed_table import CommittedTable, refusal
from tests.strategy.surface_toys import (
    AsDict,
    Backbone,
    ConfiguresLate,
    Data,
    Evaluates,
    Findable,
    FromCommandLine,
    Iterates,
    OwnClipping,
    OwnLog,
    OwnStep,
    Quiet,
    Sometimes,
    Stream,
    Toggles,
    TwoSources,
    WarmsUp,
    Writer,
    held_out,
    lbfgs,
)
from tests.strategy.test_optimization import Manual, OneCycle, Plateau
from tests.strategy.toys import Classifier, loader, samples, trainer

UPDATES = ("averaged", "sequential")
PATHS: Mapping[str, Mapping[str, Any]] = {
    "gradients": {"local_steps": 1},
    "local": {"local_epochs": 1, "optimizer_state": "keep"},
}
SAME, WORKS = "same bits", "works"
PLAIN = partial(Classifier, schedule=False)


def just_fit(run: L.Trainer, module: Any, train: Any) -> None:
    run.fit(module, train, held_out())


@dataclass(frozen=True)
class Feature:
    """One feature of Lightning.

    Args:
        module: Makes the module.
        train: Makes the train loader.
        settings: Makes the Trainer's arguments, given a folder.
        use: What is done with Trainer, module and train loader.
        workers: For how many workers the cell stands, where four cannot have it.
    """

    module: Callable[[], Any] = PLAIN
    train: Callable[[], Any] = loader
    settings: Callable[[Path], dict[str, Any]] = field(default=lambda folder: {})
    use: Callable[[L.Trainer, Any, Any], None] = just_fit
    workers: int = 4


def settings(**values: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: values


def callback(make: Callable[[], Any]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"callbacks": [make()]}


def scaled(folder: Path) -> dict[str, Any]:
    """Return mixed precision with a loss scale, which Lightning itself leaves out on a CPU."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}


def combined(mode: Any) -> CombinedLoader:
    return CombinedLoader({"a": loader(30), "b": loader(14)}, mode)


def compiled() -> Any:
    torch.compiler.reset()
    return torch.compile(Quiet(schedule=False), backend="aot_eager")  # as far as it goes without a C compiler


def finds_rate(run: L.Trainer, module: Any, train: Any) -> None:
    Tuner(run).lr_find(module, train, num_training=3, early_stop_threshold=None)
    run.fit(module, train)


def finds_size(run: L.Trainer, module: Any, train: Any) -> None:
    Tuner(run).scale_batch_size(module, init_val=4, max_trials=2, steps_per_trial=2)
    assert module.batch_size == 8
    run.fit(module)


def twice(run: L.Trainer, module: Any, train: Any) -> None:
    run.fit(module, train, held_out())
    run.fit_loop.max_epochs = 4
    run.fit(module, train, held_out())


def fit_and_evaluate(run: L.Trainer, module: Any, train: Any) -> None:
    run.fit(module, train, held_out())
    run.validate(module, held_out(), verbose=False)
    run.test(module, held_out(), verbose=False)
    run.predict(module, held_out())


def fit_by_command_line(run: L.Trainer, module: Any, train: Any) -> None:
    """Let the command line make Trainer and module anew; the module at hand takes what was trained."""
    chosen = ["--trainer.strategy=auto"]
    if isinstance(run.strategy, FederatedStrategy):
        given = run.strategy.settings
        names = ("workers", "update", "local_steps", "local_epochs", "optimizer_state")
        values = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
        chosen = ["--trainer.strategy=FederatedStrategy"]
        chosen += [f"--trainer.strategy.{name}={value}" for name, value in values.items()]
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    arguments = ["fit", "--seed_everything=3", "--trainer.accelerator=cpu", "--trainer.max_epochs=2", *chosen]
    arguments += [f"--trainer.{name}=false" for name in off]
    cli = LightningCLI(FromCommandLine, Data, args=arguments, save_config_callback=None)
    module.load_state_dict(cli.model.state_dict())


BAREBONES: dict[str, Any] = {
    "barebones": True,
    "logger": None,
    "log_every_n_steps": None,
    "num_sanity_val_steps": None,
    "enable_checkpointing": None,
    "enable_progress_bar": None,
    "enable_model_summary": None,
}


def saving(folder: Path) -> dict[str, Any]:
    saver = ModelCheckpoint(folder, monitor="val/acc", mode="max", save_top_k=2, save_last=True)
    return {"callbacks": [saver], "enable_checkpointing": True}


FEATURES: dict[str, Feature] = {
    "automatic optimization": Feature(),
    "manual optimization, two optimizers, `toggle_model`": Feature(Manual),
    "manual optimization, `toggle_optimizer`": Feature(Toggles),
    "`training_step` returns a dict": Feature(partial(AsDict, schedule=False)),
    "`training_step` returns `None`": Feature(partial(Sometimes, schedule=False)),
    "LBFGS (closures run several times)": Feature(lbfgs),
    "scheduler per step": Feature(Classifier),
    "schedulers per epoch, with a warm-up": Feature(WarmsUp),
    "`ReduceLROnPlateau`": Feature(Plateau),
    "`OneCycleLR` by `estimated_stepping_batches`": Feature(OneCycle),
    "`LearningRateFinder`": Feature(
        Findable,
        settings=lambda f: {
            "callbacks": [LearningRateFinder(num_training_steps=3, early_stop_threshold=None)],
            "enable_checkpointing": True,
        },
    ),
    "`Tuner.lr_find`": Feature(Findable, use=finds_rate),
    "`BatchSizeFinder`": Feature(
        Findable,
        settings=lambda f: {
            "callbacks": [BatchSizeFinder(init_val=4, max_trials=2, steps_per_trial=2)],
            "enable_checkpointing": True,
        },
        use=lambda run, module, train: run.fit(module),
    ),
    "`Tuner.scale_batch_size`": Feature(Findable, use=finds_size),
    "gradient clipping by norm": Feature(settings=settings(gradient_clip_val=0.1)),
    "gradient clipping by value": Feature(
        settings=settings(gradient_clip_val=0.1, gradient_clip_algorithm="value")
    ),
    "`configure_gradient_clipping` overridden": Feature(partial(OwnClipping, schedule=False)),
    "`optimizer_step` overridden": Feature(partial(OwnStep, schedule=False)),
    "`log` overridden": Feature(partial(OwnLog, schedule=False)),
    "`LightningDataModule`, with its hooks": Feature(
        use=lambda run, module, train: run.fit(module, datamodule=Data())
    ),
    "`configure_model`": Feature(partial(ConfiguresLate, schedule=False)),
    "`accumulate_grad_batches`": Feature(settings=settings(accumulate_grad_batches=2)),
    "`GradientAccumulationScheduler`": Feature(
        settings=callback(lambda: GradientAccumulationScheduler({0: 1, 1: 2}))
    ),
    "precision bf16-mixed": Feature(settings=settings(precision="bf16-mixed")),
    "precision 16-mixed, with a loss scale": Feature(settings=scaled),
    "precision 16-mixed, manual optimization": Feature(Toggles, settings=scaled),
    "precision bf16-true": Feature(settings=settings(precision="bf16-true")),
    "precision 16-true": Feature(
        # With Adam, whose epsilon is none in 16 bits, an ordinary fit ends in NaN as well.
        partial(Classifier, partial(torch.optim.SGD, lr=0.05), schedule=False),
        settings=settings(precision="16-true"),
    ),
    "precision 64-true": Feature(settings=settings(precision="64-true")),
    "`limit_train_batches`, `limit_val_batches`": Feature(
        settings=settings(limit_train_batches=1, limit_val_batches=1)
    ),
    "`overfit_batches`": Feature(settings=settings(overfit_batches=1)),
    "`fast_dev_run`": Feature(settings=settings(fast_dev_run=True)),
    "`max_steps`": Feature(settings=settings(max_steps=2, max_epochs=-1)),
    "`min_epochs`": Feature(
        settings=lambda f: {
            "min_epochs": 2,
            "max_epochs": 3,
            "callbacks": [EarlyStopping("val/loss", patience=0, min_delta=100.0)],
        }
    ),
    "`max_time`": Feature(settings=settings(max_time="00:01:00:00")),
    "`val_check_interval`": Feature(settings=settings(val_check_interval=0.5)),
    "`check_val_every_n_epoch`": Feature(settings=settings(check_val_every_n_epoch=2)),
    "`num_sanity_val_steps`": Feature(settings=settings(num_sanity_val_steps=2)),
    "`detect_anomaly`": Feature(settings=settings(detect_anomaly=True)),
    "`barebones`": Feature(settings=settings(**BAREBONES)),
    "`reload_dataloaders_every_n_epochs`": Feature(settings=settings(reload_dataloaders_every_n_epochs=1)),
    "`devices=2`": Feature(settings=settings(devices=2)),
    "`ModelCheckpoint` (monitor, top-k, last)": Feature(settings=saving),
    "`EarlyStopping`": Feature(settings=callback(lambda: EarlyStopping("val/loss"))),
    "`OnExceptionCheckpoint`": Feature(
        settings=lambda f: {"callbacks": [OnExceptionCheckpoint(f)], "enable_checkpointing": True}
    ),
    "`LearningRateMonitor`, `CSVLogger`": Feature(
        Classifier, settings=lambda f: {"callbacks": [LearningRateMonitor()], "logger": CSVLogger(f)}
    ),
    "`StochasticWeightAveraging`": Feature(
        settings=callback(lambda: StochasticWeightAveraging(0.05, swa_epoch_start=1))
    ),
    "`WeightAveraging`": Feature(settings=callback(WeightAveraging)),
    "`EMAWeightAveraging`": Feature(settings=callback(EMAWeightAveraging)),
    "`ModelPruning`": Feature(settings=callback(lambda: ModelPruning("l1_unstructured", amount=0.2))),
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
    "`TQDMProgressBar`": Feature(
        settings=lambda f: {"callbacks": [TQDMProgressBar()], "enable_progress_bar": True}
    ),
    "`DeviceStatsMonitor`, `ThroughputMonitor`": Feature(
        settings=lambda f: {
            "callbacks": [DeviceStatsMonitor(cpu_stats=True), ThroughputMonitor(lambda plan: 4)],
            "logger": CSVLogger(f),
        }
    ),
    "`BasePredictionWriter`": Feature(
        partial(Evaluates, schedule=False), settings=callback(Writer), use=fit_and_evaluate
    ),
    "`CSVLogger`, `TensorBoardLogger`": Feature(
        settings=lambda f: {"logger": [CSVLogger(f), TensorBoardLogger(f)]}
    ),
    "profiler `simple`": Feature(settings=settings(profiler="simple")),
    "profiler `advanced`": Feature(settings=settings(profiler="advanced")),
    "profiler `pytorch`": Feature(settings=settings(profiler="pytorch")),
    "compiled module (`torch.compile`)": Feature(compiled),
    "`fit` twice": Feature(use=twice),
    "`fit`, then `validate`, `test`, `predict`": Feature(
        partial(Evaluates, schedule=False), use=fit_and_evaluate
    ),
    "`LightningCLI`": Feature(use=fit_by_command_line),
    **{
        f"`CombinedLoader`, `{mode}`": Feature(
            partial(TwoSources, schedule=False),
            partial(combined, mode),
        )
        for mode in ("min_size", "max_size", "max_size_cycle")
    },
    "several train loaders in a dict": Feature(
        partial(TwoSources, schedule=False), lambda: {"a": loader(30), "b": loader(14)}
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
        return refusal(error)
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
        L.seed_everything(3, verbose=False)
        module = feature.module()
        feature.use(trainer(strategy, **values), module, feature.train())
    state = getattr(module, "_orig_mod", module).state_dict()
    return [value for name, value in state.items() if name.startswith("net")]


def row(name: str) -> list[str]:
    """Return the cells of one line of the table."""
    workers = " (one worker)" if FEATURES[name].workers == 1 else ""
    cells = (outcome(FEATURES[name], update, path) for path in PATHS for update in UPDATES)
    return [f"{name}{workers}", *cells]


TABLE = CommittedTable(
    "lightning.md", ["", *(f"{path}, {update}" for path in PATHS for update in UPDATES)], row
)

if __name__ == "__main__":
    TABLE.write(FEATURES)
