"""Killed without warning at any batch, a run goes on from its last checkpoint and ends in the same bits."""

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
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from fedlightning.strategy import FederatedStrategy
from tests.strategy.toys import Classifier, assert_same_module, assert_same_optimizer, loader, trainer

ADAM = partial(torch.optim.Adam, lr=0.01)
MOMENTUM = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
KEPT: dict[str, Any] = {"local_steps": 2, "optimizer_state": "keep", "rounds_per_epoch": 2}
FEDERATIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "averaged, momentum kept, Adam at the server": ({**KEPT, "server_optimizer": ADAM}, MOMENTUM),
    "averaged, Adam kept, momentum at the server": ({**KEPT, "server_optimizer": MOMENTUM}, ADAM),
    "averaged gradients, Adam": ({"local_steps": 1, "rounds_per_epoch": 2}, ADAM),
    "sequential, Adam travels": ({"update": "sequential", "local_steps": 3}, ADAM),
}
ROUNDS = 3


class Killed(Classifier):
    """Ends its process, with no chance to clean up, in a chosen call of ``training_step``."""

    def __init__(self, optimizer: Any, call: int) -> None:
        super().__init__(optimizer)
        self.calls_left = call

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.calls_left -= 1
        if self.calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss


def run(name: str, folder: Path, call: int = 0, **fit_settings: Any) -> tuple[Killed, Any]:
    """Fit for three rounds, with a checkpoint after each."""
    settings, optimizer = FEDERATIONS[name]
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True)
    torch.manual_seed(3)
    module = Killed(optimizer, call)
    trained = trainer(
        FederatedStrategy(3, seed=3, **settings),
        max_epochs=2,
        max_steps=ROUNDS,
        callbacks=[saver],
        enable_checkpointing=True,
    )
    trained.fit(module, loader(), loader(12, shuffle=False), **fit_settings)
    return module, trained


def run_in_children(name: str, folder: Path) -> None:
    """Run once for every batch there is, in processes that are killed at that batch."""
    call, ended = 0, False
    while not ended:
        call += 1
        (folder / str(call)).mkdir(parents=True)
        child = os.fork()
        if child == 0:
            run(name, folder / str(call), call)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        if not ended and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            raise RuntimeError(f"the run that was to be killed at batch {call} has failed: {status}")


# What a run imports on its way is imported here once, and not by each child.
SCRIPT = """
import sys
from pathlib import Path
import fsspec.implementations.local, omegaconf, torch
from tests.strategy.test_kill import FEDERATIONS, run_in_children
torch.set_num_threads(1)
for name in FEDERATIONS:
    run_in_children(name, Path(sys.argv[1], name))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the runs of each federation, each in a folder by its name."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.xdist_group("killed")
@pytest.mark.parametrize("name", FEDERATIONS)
def test_a_run_killed_at_any_batch_ends_in_the_same_bits(name: str, killed: Path, tmp_path: Path) -> None:
    runs = sorted((killed / name).iterdir(), key=lambda folder: int(folder.name))
    whole, whole_run = run(name, tmp_path)
    batches = sum(record.steps for record in whole_run.strategy.history)
    # The last one was to be killed at a batch too many, and came to its end.
    assert len(runs) == batches + 1
    for folder in runs:
        found = (folder / "last.ckpt").exists()
        module, resumed = run(name, folder, ckpt_path="last" if found else None)
        assert_same_module(whole, module)
        assert_same_optimizer(whole_run.optimizers[0], resumed.optimizers[0])
        assert resumed.global_step == ROUNDS
