"""The subcommand `replay`: builds the Trainer of a run anew and has it carry out the visit that failed."""

from __future__ import annotations

import pdb
import sys
import traceback
from pathlib import Path

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from omegaconf import DictConfig, OmegaConf

from fedlightning.cli.job import build_trainer
from fedlightning.strategy import RoundFailed, replay

FAILED_VISITS = "failed_visits"
_WATCHING = (Checkpoint, LearningRateMonitor, ProgressBar)


def replay_visit(run: Path, worker: str | None, debug: bool) -> int:
    """Carry out one visit of a run again, with the configuration that the run left in its folder.

    Args:
        run: The folder of a run that failed, or one checkpoint of it.
        worker: Whose visit; None for the one that failed.
        debug: Whether to open a debugger where the visit fails.

    Returns:
        0 if the visit succeeds this time, 1 if it fails again, 2 if there is nothing to replay.
    """
    try:
        checkpoint = _checkpoint(run)
        cfg = _configuration(checkpoint)
    except FileNotFoundError as error:
        print(f"fedlightning replay: {error}", file=sys.stderr)
        return 2
    print(f"Replaying {checkpoint}")
    try:
        _replay(cfg, checkpoint, worker)
    except RoundFailed as failure:
        traceback.print_exc()
        if debug:
            pdb.post_mortem(_innermost(failure).__traceback__)
        return 1
    print("The visit did not fail this time.")
    return 0


def _checkpoint(run: Path) -> Path:
    """Return the file to replay: the one named, or the newest failed visit of a folder."""
    if run.is_file():
        return run
    saved = sorted((run / FAILED_VISITS).glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns)
    if not saved:
        raise FileNotFoundError(f"{run} has no failed visit ({FAILED_VISITS}/*.ckpt); name a checkpoint")
    return saved[-1]


def _configuration(checkpoint: Path) -> DictConfig:
    """Read what Hydra has left in the run's folder."""
    for folder in checkpoint.resolve().parents[:2]:
        file = folder / ".hydra" / "config.yaml"
        if file.is_file():
            cfg = OmegaConf.load(file)
            assert isinstance(cfg, DictConfig)
            cfg.paths.output_dir = str(folder)  # Hydra knows it within its own runs only
            return cfg
    raise FileNotFoundError(
        f"there is no .hydra/config.yaml beside {checkpoint}: only runs of fedlightning-train can be "
        "replayed from the command line; for others, call fedlightning.strategy.replay"
    )


def _replay(cfg: DictConfig, checkpoint: Path, worker: str | None) -> None:
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module: L.LightningModule = instantiate(cfg.model)
    data: L.LightningDataModule = instantiate(cfg.data)
    cfg.logger = None
    cfg.fingerprint = False
    cfg.trainer.enable_checkpointing = False
    cfg.trainer.enable_progress_bar = False
    cfg.callbacks = {name: entry for name, entry in (cfg.callbacks or {}).items() if _takes_part(entry)}
    replay(build_trainer(cfg), module, checkpoint, worker=worker, datamodule=data)


def _takes_part(entry: DictConfig | None) -> bool:
    """Tell whether a callback may change the training; those that only watch and write are left out."""
    if entry is None:
        return False
    kind = type(instantiate(entry))
    return not issubclass(kind, _WATCHING) and not kind.__module__.startswith("fedlightning.callbacks")


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
