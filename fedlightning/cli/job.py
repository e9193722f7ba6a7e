"""Builds module, data and Trainer from a composed configuration, and fits and tests them; no Hydra entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from fedlightning.callbacks.fingerprint import FINGERPRINT_FILE, RunFingerprint
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.phases import in_words


def run(cfg: DictConfig) -> float | None:
    """Fit the configured module, then test it if asked to.

    Args:
        cfg: what `configs/train.yaml` composes to.

    Returns:
        The value of the metric ``cfg.objective``, or None if nothing logged it.
    """
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    module: L.LightningModule = instantiate(cfg.model)
    data: L.LightningDataModule = instantiate(cfg.data)
    trainer = build_trainer(cfg)
    for logger in trainer.loggers:
        logger.log_hyperparams(_plain(cfg))
    trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path)
    if isinstance(trainer.strategy, FederatedStrategy):
        print(in_words(trainer.strategy.history.seconds))
    metrics: dict[str, Tensor] = dict(trainer.callback_metrics)
    if cfg.test:
        trainer.test(module, datamodule=data, ckpt_path=_best_checkpoint(trainer))
    print(f"Metrics, checkpoints and pictures are in {cfg.paths.output_dir}")
    return float(metrics[cfg.objective]) if cfg.objective in metrics else None


def build_trainer(cfg: DictConfig) -> L.Trainer:
    """Build the Trainer with its strategy, callbacks and loggers.

    Args:
        cfg: what `configs/train.yaml` composes to.
    """
    strategy = cfg.strategy if isinstance(cfg.strategy, str) else instantiate(cfg.strategy)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        strategy=strategy,
        callbacks=_build_callbacks(cfg),
        logger=_build_each(cfg.logger) or False,
    )
    return trainer


def _build_callbacks(cfg: DictConfig) -> list[L.Callback]:
    callbacks: list[L.Callback] = _build_each(cfg.callbacks)
    if cfg.fingerprint:
        callbacks.append(RunFingerprint(Path(cfg.paths.output_dir) / FINGERPRINT_FILE))
    return callbacks


def _build_each(group: DictConfig | None) -> list[Any]:
    """Build every entry of a group; an entry set to null on the command line is left out."""
    return [instantiate(entry) for entry in (group or {}).values() if entry is not None]


def _best_checkpoint(trainer: L.Trainer) -> str | None:
    """Return "best" if a checkpoint was chosen by a metric; None tests the module as it is."""
    checkpoint = trainer.checkpoint_callback
    return "best" if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path else None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
