"""A script that defines its own module and has no `if __name__ == "__main__"`, and a Ctrl-C in its midst."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytestmark = pytest.mark.xdist_group("script")

SCRIPT = """
import sys, time
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlightning import FederatedStrategy

print("read", flush=True)
at_work = Path(sys.argv[1])

class Linear(L.LightningModule):
    sleeps = False

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        if self.sleeps and self.trainer.global_step == 1:
            at_work.touch()
            time.sleep(600)
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Sleeps(Linear):
    sleeps = True

class Remembers(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.started = {name: tensor.clone() for name, tensor in module.state_dict().items()}

def fit(module):
    strategy = FederatedStrategy(workers=1000, cohort_size=40, rounds_per_epoch=3, processes=2, seed=0)
    remembers = Remembers()
    trainer = L.Trainer(
        strategy=strategy, accelerator="cpu", max_epochs=1, callbacks=[remembers], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    data = TensorDataset(torch.randn(2000, 4), torch.randint(0, 3, (2000,)))
    try:
        trainer.fit(module, DataLoader(data, batch_size=2))
    finally:
        started, now = remembers.started, module.state_dict()
        same = all(torch.equal(started[name], now[name]) for name in now)
        print("rounds", len(strategy.history), "as before the last", same, flush=True)

fit(Linear())
fit(Sleeps())
print("went on")
"""


@dataclass(frozen=True)
class Said:
    """What a script has said when all of its processes have ended."""

    code: int
    lines: list[str]
    warnings: str


@pytest.fixture(scope="module")
def usual_handler() -> Iterator[None]:
    # A shell that starts the tests in the background lets them ignore it, and so would the script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def said(usual_handler: None, tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = tmp_path_factory.mktemp("script")
    (folder / "script.py").write_text(SCRIPT)
    at_work = folder / "at work"
    script = subprocess.Popen(
        [sys.executable, "script.py", str(at_work)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not at_work.exists():
        assert script.poll() is None, script.communicate()
        threading.Event().wait(0.05)
    # As a terminal does: to the controller and its processes alike.
    os.killpg(script.pid, signal.SIGINT)
    # They have the same output: this waits for the end of all.
    lines, warnings = script.communicate()
    return Said(script.returncode, lines.splitlines(), warnings)


def test_a_script_needs_no_guard_and_is_read_once(said: Said) -> None:
    assert said.lines[:2] == ["read", "rounds 3 as before the last False"]


def test_a_round_that_is_interrupted_leaves_nothing(said: Said) -> None:
    assert said.lines[2:] == ["rounds 1 as before the last True"]
    assert said.code == 1  # as Lightning's own fit ends
    assert "round 1: interrupted" in said.warnings
    assert "the global module is that of the last completed round" in said.warnings
