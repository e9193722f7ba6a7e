"""Checkpoint files: read by later versions and by ordinary code, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning import __version__
from fedlightning.strategy import CheckpointNotSaved, FederatedStrategy, NotFederatable
from fedlightning.strategy.checkpoint import FORMAT
from tests.strategy.old_checkpoints import FEDERATIONS, FOLDER, Small, run
from tests.strategy.test_resume import SGD
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer


@pytest.mark.parametrize("name", FEDERATIONS)
@pytest.mark.parametrize("version", sorted(path.name for path in FOLDER.iterdir()))
def test_checkpoints_of_earlier_versions_go_on_to_the_same_end(version: str, name: str) -> None:
    trained = torch.load(FOLDER / version / f"{name}.trained", weights_only=True)
    resumed = run(name, ckpt_path=FOLDER / version / f"{name}.ckpt")
    # Not bit for bit: they were written on another machine.
    torch.testing.assert_close(resumed.state_dict(), trained)
    untrained = Small().state_dict()
    assert not any(torch.equal(trained[key], untrained[key]) for key in trained)


def saved(folder: Path, **settings: Any) -> Path:
    saver = ModelCheckpoint(folder, save_last=True)
    fit(FederatedStrategy(3, **settings), callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    return Path(saver.last_model_path)


@pytest.mark.parametrize(
    ("wrote", "said"), [({"version": "9.1"}, "fedlightning 9.1: install"), ({}, "of an unknown version")]
)
def test_a_format_that_is_not_read_says_which_version_is_needed(
    wrote: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["federation"].pop("version") == __version__
    checkpoint["federation"] |= {"format": FORMAT + 1, **wrote}
    torch.save(checkpoint, path)
    with pytest.raises(
        NotFederatable, match=f"has format 2, and fedlightning {__version__} reads format 1.*{said}"
    ):
        trainer(FederatedStrategy(3)).fit(Classifier(), loader(), ckpt_path=str(path))


def in_another_process(script: str, *paths: Path) -> str:
    """Run a script with paths, and return what it has printed."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


ORDINARY = """
import sys
sys.modules["fedlightning"] = None  # whoever imports it fails
import torch
from tests.strategy.toys import Classifier, loader, trainer
for path in sys.argv[1:]:
    saved = torch.load(path, weights_only=True)["state_dict"]
    module = Classifier.load_from_checkpoint(path)
    assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items()), path
    run = trainer(max_epochs=3)
    run.fit(Classifier(), loader(), ckpt_path=path)
    assert run.current_epoch == 3, path
    run.validate(Classifier(), loader(12), ckpt_path=path, verbose=False)
    print(path)
"""
WORK: list[dict[str, Any]] = [{"local_steps": 1}, {"optimizer_state": "keep"}]


def kinds(value: Any) -> Any:
    """Return the shape of a nested value: keys and types, without numbers."""
    if isinstance(value, dict):
        return {str(key): kinds(inner) for key, inner in value.items()}
    return type(value).__name__


def stripped(path: Path) -> Path:
    """Write a checkpoint without what only a federation reads, beside it."""
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["federation"]
    torch.save(checkpoint, path.with_name("stripped.ckpt"))
    return path.with_name("stripped.ckpt")


@pytest.mark.parametrize("work", WORK)
def test_without_its_federation_it_is_a_plain_one(work: dict[str, Any], tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "plain", save_last=True)
    fit(callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    plain = torch.load(saver.last_model_path, weights_only=True)
    checkpoint = torch.load(stripped(saved(tmp_path, **work)), weights_only=True)
    # An optimizer whose state stays at the workers has none here.
    checkpoint["optimizer_states"][0]["state"] = plain["optimizer_states"][0]["state"]
    ours, theirs = kinds(checkpoint), kinds(plain)
    ours.pop("callbacks"), theirs.pop("callbacks")  # of which the names hold folders
    theirs["loops"]["fit_loop"]["state_dict"].pop("combined_loader", None)
    assert ours == theirs


def test_ordinary_code_loads_it_with_its_federation_and_without(tmp_path: Path) -> None:
    ours = [saved(tmp_path / str(number), **work) for number, work in enumerate(WORK)]
    paths = [*ours, *map(stripped, ours)]
    assert in_another_process(ORDINARY, *paths).split() == [str(path) for path in paths]


FILLS_UP = """
import resource, sys
from pathlib import Path
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from fedlightning.strategy import CheckpointNotSaved, FederatedStrategy
from tests.strategy.test_resume import SGD
from tests.strategy.toys import Classifier, fit

class FillsUp(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))

saver = ModelCheckpoint(sys.argv[1], every_n_train_steps=1, save_last=True)
strategy = FederatedStrategy(3, local_steps=2, seed=3)
try:
    fit(strategy, module=lambda: Classifier(SGD), max_epochs=3, callbacks=[FillsUp(), saver],
        enable_checkpointing=True)
except CheckpointNotSaved as error:
    print(len(strategy.history), error)
"""


def test_a_full_disk_costs_no_more_than_the_checkpoint_at_hand(tmp_path: Path) -> None:
    said = in_another_process(FILLS_UP, tmp_path)
    assert "3 before round 3: the checkpoint" in said
    assert os.strerror(errno.EFBIG) in said
    assert "global module is that of the last completed round" in said
    # What was there before is whole, nothing half written is left, and the run ends in the same bits.
    (newest,) = (path for path in tmp_path.iterdir() if path.name != "last.ckpt")
    assert torch.load(newest, weights_only=True)["federation"]["state"]["round"] == 2
    whole, _ = fit(FederatedStrategy(3, local_steps=2, seed=3), module=lambda: Classifier(SGD), max_epochs=3)
    resumed = Classifier(SGD)
    again = trainer(FederatedStrategy(3, local_steps=2, seed=3), max_epochs=3)
    again.fit(resumed, loader(), loader(12, shuffle=False), ckpt_path=str(newest))
    assert_same_module(whole, resumed)


def test_a_file_is_written_beside_the_one_that_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move between file systems is a copy, and one that breaks off would leave a torn file."""
    run = trainer(FederatedStrategy(2), default_root_dir=tmp_path)
    run.fit(Classifier(), loader())
    moved: list[tuple[Path, Path]] = []
    move = shutil.move

    def noted(source: str, target: str, *args: Any) -> Any:
        moved.append((Path(source).parent, Path(target).parent))
        return move(source, target, *args)

    monkeypatch.setattr(shutil, "move", noted)
    usual = tempfile.gettempdir()
    run.save_checkpoint(tmp_path / "deep" / "file.ckpt")
    assert moved == [(tmp_path / "deep", tmp_path / "deep")]
    assert tempfile.gettempdir() == usual


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, CheckpointNotSaved), (errno.EACCES, PermissionError)]
)
def test_what_the_system_says_is_kept(
    number: int, kind: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    run = trainer(FederatedStrategy(2), default_root_dir=tmp_path)
    run.fit(Classifier(), loader())
    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", full)
    with pytest.raises(kind, match=os.strerror(number)) as caught:
        run.save_checkpoint(tmp_path / "file.ckpt")
    assert caught.value.errno == number
