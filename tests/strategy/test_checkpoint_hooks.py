"""Hooks see Lightning's own checkpoint, before a save and after a load; the file is the whole federation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from fedlightning.strategy import FederatedStrategy
from tests.strategy.test_resume import SGD
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer


class Notes(Callback):
    """Keeps the very checkpoints that hooks get, and adds to those that are saved."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []
        self.loaded: list[dict[str, Any]] = []

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = len(self.saved)
        self.saved.append(checkpoint)

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self.loaded.append(checkpoint)


def ours(**settings: Any) -> FederatedStrategy:
    return FederatedStrategy(3, local_steps=2, optimizer_state="keep", seed=3, **settings)


def saved_by(folder: Path, strategy: Any = "auto", **settings: Any) -> tuple[Notes, Path]:
    notes = Notes()
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    fit(
        strategy,
        module=lambda: Classifier(SGD),
        callbacks=[notes, saver],
        enable_checkpointing=True,
        **settings,
    )
    return notes, folder / "step=2.ckpt"


def resumed(path: Path, notes: Callback | None = None) -> Classifier:
    module = Classifier(SGD)
    run = trainer(ours(), callbacks=[notes] if notes else None)
    run.fit(module, loader(), loader(12, shuffle=False), ckpt_path=str(path))
    return module


def test_hooks_see_what_they_see_in_an_ordinary_fit(tmp_path: Path) -> None:
    federated, path = saved_by(tmp_path / "federated", ours())
    ordinary, _ = saved_by(tmp_path / "ordinary")
    assert [list(checkpoint) for checkpoint in federated.saved[:2]] == [
        list(checkpoint) for checkpoint in ordinary.saved[:2]
    ]
    whole = torch.load(path, weights_only=True)
    assert whole["federation"]["state"]["round"] == 2
    assert whole["mine"] == 1
    resumed(path, federated)
    assert [list(loaded) for loaded in federated.loaded] == [[name for name in whole if name != "federation"]]


class LoadsAnother(Callback):
    """Reads another checkpoint, in the midst of going on from one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        trainer.strategy.load_checkpoint(self.path)


def test_a_run_goes_on_from_what_it_was_told_whatever_else_is_read(tmp_path: Path) -> None:
    whole, _ = fit(ours(), module=lambda: Classifier(SGD))
    _, path = saved_by(tmp_path, ours())
    assert_same_module(whole, resumed(path, LoadsAnother(path.with_name("step=4.ckpt"))))


class Takes(Callback):
    """Adds what is the federation's."""

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["federation"] = "mine"


def test_a_hook_that_takes_the_federations_place_is_told(tmp_path: Path) -> None:
    _, run = fit(ours(), callbacks=[Takes()])
    with pytest.raises(ValueError, match=r"on_save_checkpoint has added 'federation'.*another name"):
        run.save_checkpoint(tmp_path / "file.ckpt")


def test_a_checkpoint_that_is_written_while_the_run_goes_on_is_whole(tmp_path: Path) -> None:
    whole, _ = fit(ours(), module=lambda: Classifier(SGD))
    _, path = saved_by(tmp_path, ours(), plugins=[AsyncCheckpointIO()])
    assert_same_module(whole, resumed(path))
