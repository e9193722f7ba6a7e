"""A run that is killed and goes on ends in the same bits, wherever it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from fedlightning.strategy import FederatedStrategy, NotFederatable, RoundFailed, Tolerance
from fedlightning.strategy import checkpoint as checkpoints
from tests.strategy.toys import Classifier, assert_same_module, assert_same_optimizer, fit, loader, trainer

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
SERVER = partial(torch.optim.Adam, lr=0.01)
FEDERATIONS: dict[str, dict[str, Any]] = {
    "averaged": {"workers": 3, "update": "averaged", "local_steps": 2},
    "averaged keep": {"workers": 3, "update": "averaged", "local_steps": 2, "optimizer_state": "keep"},
    "averaged server": {"workers": 3, "cohort_size": 2, "server_optimizer": SERVER, "rounds_per_epoch": 3},
    "averaged gradients": {"workers": 3, "update": "averaged", "local_steps": 1},
    "sequential": {"workers": 3, "update": "sequential"},
    "sequential keep": {"workers": 3, "update": "sequential", "local_steps": 3, "optimizer_state": "keep"},
    "sequential gradients": {"workers": 2, "update": "sequential", "local_steps": 1},
    "one worker": {"workers": 1, "local_steps": 1},
    "one worker, steps": {"workers": 1, "local_steps": 3, "optimizer_state": "keep"},
}


def strategy(name: str) -> FederatedStrategy:
    return FederatedStrategy(**FEDERATIONS[name])


def every_round(path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(path, filename="{step}", every_n_train_steps=1, save_top_k=-1)


def resume(name: str, checkpoint: Path | str, make: Any) -> tuple[Classifier, Any]:
    # Another seed than the run had: all that matters must come from the checkpoint.
    torch.manual_seed(99)
    module = Classifier(make)
    run = trainer(strategy(name), max_epochs=3)
    run.fit(module, loader(), loader(12, shuffle=False), ckpt_path=str(checkpoint))
    return module, run


@pytest.mark.parametrize("make", [SGD, partial(torch.optim.Adam, lr=0.01)], ids=["momentum", "adam"])
@pytest.mark.parametrize("name", FEDERATIONS)
def test_going_on_from_any_round_ends_in_the_same_bits(name: str, make: Any, tmp_path: Path) -> None:
    whole, whole_run = fit(
        strategy(name),
        module=lambda: Classifier(make),
        max_epochs=3,
        callbacks=[every_round(tmp_path)],
        enable_checkpointing=True,
    )
    saved = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(saved) == whole_run.global_step
    # Every point of the first epoch and its end, and some of the later ones.
    for checkpoint in {*saved[: len(saved) // 3 + 1], *saved[::4]}:
        module, run = resume(name, checkpoint, make)
        assert_same_module(whole, module)
        assert_same_optimizer(whole_run.optimizers[0], run.optimizers[0])
        assert run.global_step == whole_run.global_step
        assert [record.loss for record in run.strategy.history] == [
            record.loss for record in whole_run.strategy.history
        ]


SCRIPT = """
import os, signal, sys
from lightning.pytorch import Callback
from tests.strategy.test_resume import SGD, every_round, strategy
from tests.strategy.toys import Classifier, fit
from pathlib import Path

class Kill(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

fit(strategy(sys.argv[1]), module=lambda: Classifier(SGD), max_epochs=3,
    callbacks=[every_round(Path(sys.argv[2])), Kill()], enable_checkpointing=True)
"""


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    name = "averaged keep"
    whole, _ = fit(strategy(name), module=lambda: Classifier(SGD), max_epochs=3)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(tmp_path), "4"],
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    newest = max(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    module, _ = resume(name, newest, SGD)
    assert_same_module(whole, module)


class BreaksOnce(Classifier):
    """Raises in one training step of the process, as a passing fault does."""

    steps_left = 0

    def training_step(self, batch: list[Any], batch_idx: int) -> Any:
        BreaksOnce.steps_left -= 1
        if BreaksOnce.steps_left == 0:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("step", [2, 5, 11])
@pytest.mark.parametrize("name", ["averaged", "averaged keep", "averaged gradients"])
def test_a_round_that_failed_is_done_again(name: str, step: int, tmp_path: Path) -> None:
    whole, _ = fit(strategy(name), module=lambda: BreaksOnce(SGD), max_epochs=3)
    BreaksOnce.steps_left = step
    with pytest.raises(RoundFailed):
        fit(
            strategy(name),
            module=lambda: BreaksOnce(SGD),
            max_epochs=3,
            callbacks=[OnExceptionCheckpoint(tmp_path)],
            enable_checkpointing=True,
        )
    module, _ = resume(name, next(tmp_path.glob("*.ckpt")), SGD)
    assert_same_module(whole, module)


@pytest.mark.parametrize("name", ["averaged gradients", "one worker"])
def test_an_epoch_that_was_cut_short_is_over(name: str, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    _, run = fit(strategy(name), callbacks=[saver], enable_checkpointing=True, max_epochs=3, max_steps=2)
    _, resumed = resume(name, saver.last_model_path, None)
    assert resumed.global_step == run.global_step + 2 * run.num_training_batches


def saved_by(name: str, path: Path) -> str:
    saver = ModelCheckpoint(path, save_last=True)
    fit(strategy(name), callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    return saver.last_model_path


def test_what_does_not_decide_a_rounds_bits_may_change(tmp_path: Path) -> None:
    path = saved_by("sequential", tmp_path)
    changed = FederatedStrategy(
        3,
        update="sequential",
        seed=3,
        cohort_size=3,
        rounds_per_epoch=2,
        tolerance=Tolerance(on_error="skip"),
    )
    trainer(changed, max_epochs=2).fit(Classifier(), loader(), ckpt_path=path)
    assert len(changed.history) == 5


@pytest.mark.parametrize("name", ["averaged", "sequential"])
@pytest.mark.parametrize("lists_before", [True, False])
def test_many_workers_are_known_by_a_digest(
    name: str, lists_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not lists_before:
        monkeypatch.setattr(checkpoints, "MAX_LISTED", 2)
    path = saved_by(name, tmp_path)
    monkeypatch.setattr(checkpoints, "MAX_LISTED", 2)
    identity = torch.load(path, weights_only=True)["federation"]["identity"]
    assert ("worker-0" in repr(identity)) == lists_before
    again = strategy(name)
    trainer(again, max_epochs=2).fit(Classifier(), loader(), ckpt_path=path)
    assert {record.round for record in again.history} == set(range(len(again.history)))
    with pytest.raises(NotFederatable, match=r"samples is '30 samples at 3 workers .* has '27 samples"):
        trainer(strategy(name), max_epochs=2).fit(Classifier(), loader(27), ckpt_path=path)


def test_weights_alone_are_saved_without_the_federation(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True, save_weights_only=True)
    fit(strategy("averaged keep"), callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    assert "federation" not in torch.load(saver.last_model_path, weights_only=True)


@pytest.mark.parametrize("name", ["averaged gradients", "one worker"])
def test_an_ordinary_trainer_goes_on_in_mid_epoch(name: str, tmp_path: Path) -> None:
    fit(strategy(name), callbacks=[every_round(tmp_path)], enable_checkpointing=True, max_epochs=1)
    run = trainer(max_epochs=2)
    run.fit(Classifier(), loader(), ckpt_path=str(tmp_path / "step=1.ckpt"))
    assert run.global_step == 16


def test_a_checkpoint_without_federation_starts_one(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_last=True)
    fit(callbacks=[saver], enable_checkpointing=True, max_epochs=1)
    _, run = resume("sequential", saver.last_model_path, None)
    assert [record.round for record in run.strategy.history] == list(range(6))
