"""Ctrl-C: the global module is that of the last completed round, the message says where, nothing hangs."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import Tensor

from fedlightning import replay
from fedlightning.strategy import FederatedStrategy
from fedlightning.strategy.interrupts import Interrupts
from fedlightning.workers import VirtualWorker
from tests.strategy.interrupted_toys import Sleeps
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    # A shell that starts the tests in the background lets them ignore it; and after the first one, Lightning
    # ignores every further one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_ctrl_c_waits_until_it_is_let_through() -> None:
    interrupts = Interrupts()
    interrupts.hold()
    press()
    with pytest.raises(KeyboardInterrupt):
        interrupts.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupts.release()


def test_a_second_ctrl_c_comes_through_at_once() -> None:
    interrupts = Interrupts()
    interrupts.hold()
    interrupts.hold()
    press()
    with pytest.raises(KeyboardInterrupt):
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_waits_can_be_forgotten() -> None:
    interrupts = Interrupts()
    interrupts.hold()
    press()
    interrupts.drop()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_programs_that_ignore_it_are_left_alone() -> None:
    interrupts = Interrupts()
    thread = threading.Thread(target=interrupts.hold)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.hold()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class Interrupted(Classifier):
    """Is interrupted in a chosen training step of the process, and keeps the global module of every round."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.steps_left = step
        self.started: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.steps_left -= 1
        if self.steps_left == 0:
            press()
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.started.append(copy.deepcopy(self.state_dict()))


WORK: list[dict[str, Any]] = [{"local_steps": 1}, {"local_steps": 2}, {"optimizer_state": "keep"}]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("update", ["averaged", "sequential"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_round_that_is_interrupted_leaves_nothing(
    workers: int, update: Any, work: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    strategy, module = FederatedStrategy(workers, update=update, **work), Interrupted(step=5)
    with pytest.raises(SystemExit):
        fit(strategy, module=module)
    plan = strategy.current_plan
    assert plan is not None
    assert len(strategy.history) == plan.round == len(module.started) - 1
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, module.started[-1][name]), name
    (said,) = (str(warning.message) for warning in recwarn if "interrupted" in str(warning.message))
    assert f"round {plan.round}, local step " in said
    assert any(f"worker {name!r}" in said for name in plan.workers)
    assert "the global module is that of the last completed round" in said


def test_an_interrupted_visit_can_be_carried_out_again(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    settings: dict[str, Any] = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    with pytest.raises(SystemExit):
        fit(FederatedStrategy(3, local_steps=2), module=Interrupted(8), **settings)
    (saved,) = (tmp_path / "failed_visits").glob("*.ckpt")
    assert any(f"fedlightning replay {saved}" in str(warning.message) for warning in recwarn)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    strategy = FederatedStrategy(3, local_steps=2)
    replay(trainer(strategy), Classifier(), saved, train_dataloaders=loader())
    assert strategy.current_plan is not None
    assert strategy.current_plan.workers == (saved.stem.split("-", 2)[2],)


class PressesWithin(torch.optim.SGD):
    """Is interrupted when half of its parameters are stepped."""

    def __init__(self, parameters: Iterable[Any], after: int) -> None:
        super().__init__(parameters, lr=0.1)
        self.steps_left = after

    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        self.steps_left -= 1
        groups, every = self.param_groups, self.param_groups[0]["params"]
        groups[0]["params"] = every[: len(every) // 2]
        super().step()
        if self.steps_left == 0:
            press()
        groups[0]["params"] = every[len(every) // 2 :]
        super().step()
        groups[0]["params"] = every
        return loss


@pytest.mark.parametrize("where", ["server", "controller"])
def test_a_round_that_is_taken_over_is_taken_over_whole(where: str, tmp_path: Path) -> None:
    optimizer = partial(PressesWithin, after=2)
    settings: dict[str, Any] = {"server_optimizer": optimizer} if where == "server" else {"local_steps": 1}

    def module() -> Classifier:
        return Classifier(None if where == "server" else optimizer, schedule=False)

    strategy = FederatedStrategy(3, rounds_per_epoch=5, **settings)
    keeper = OnExceptionCheckpoint(tmp_path)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    torch.manual_seed(3)
    interrupted = module()
    run = trainer(strategy, callbacks=[keeper, saver], enable_checkpointing=True)
    with pytest.raises(SystemExit):
        run.fit(interrupted, loader())
    assert len(strategy.history) == run.global_step == 2
    expected = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    found = torch.load(keeper.ckpt_path, weights_only=True)
    for name, tensor in interrupted.state_dict().items():
        assert torch.equal(tensor, expected["state_dict"][name])
        assert torch.equal(tensor, found["state_dict"][name])

    signal.signal(signal.SIGINT, signal.default_int_handler)
    whole, resumed = module(), module()
    whole.load_state_dict(expected["state_dict"])
    for fitted, path in ((whole, tmp_path / "step=2.ckpt"), (resumed, Path(keeper.ckpt_path))):
        again = FederatedStrategy(3, rounds_per_epoch=5, **settings)
        with pytest.raises(SystemExit):  # the optimizer presses once more, two rounds on
            trainer(again).fit(fitted, loader(), ckpt_path=str(path))
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert_same_module(whole, resumed)


SCRIPT = """
import sys
from fedlightning.strategy import FederatedStrategy
from fedlightning.workers import ProcessWorker
from tests.strategy.interrupted_toys import Sleeps
from tests.strategy.toys import loader, trainer

if __name__ == "__main__":
    says, until, folder = sys.argv[1:]
    workers = [ProcessWorker(name, modules=["tests.strategy.interrupted_toys"]) for name in ("ann", "bob")]
    strategy = FederatedStrategy(workers, update="sequential", optimizer_state="keep")
    run = trainer(strategy, enable_checkpointing=folder != "", default_root_dir=folder or None)
    try:
        run.fit(Sleeps(says, until), loader())
    finally:
        print("stopped", len(run.strategy.history), flush=True)
"""


class Controller:
    """A controller in a process of its own, whose worker bob is at work in round 1, and stays so.

    Args:
        folder: For files.
        saves: Whether its Trainer saves checkpoints.
    """

    def __init__(self, folder: Path, *, saves: bool) -> None:
        at_work, self.enough = folder / "at work", folder / "enough"
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(at_work), str(self.enough), str(folder) if saves else ""],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not at_work.exists():
            assert self._process.poll() is None, self._process.communicate()
            threading.Event().wait(0.05)

    def press(self) -> None:
        # As a terminal does: to the controller and its workers alike.
        os.killpg(self._process.pid, signal.SIGINT)

    def wait_for(self, text: str) -> None:
        assert self._process.stderr is not None
        while text not in (line := self._process.stderr.readline()):
            assert line, f"it ended without saying {text!r}"

    def end(self) -> str:
        """Return what it has said since, when it has ended as it should."""
        said, warned = self._process.communicate()
        assert self._process.returncode == 1
        assert "stopped 1" in said
        assert "worker 'bob', round 1: interrupted" in warned
        return warned


def test_a_worker_that_is_at_work_elsewhere_is_not_waited_for(tmp_path: Path) -> None:
    controller = Controller(tmp_path, saves=False)
    controller.press()
    assert "replay" not in controller.end()


def test_a_visit_elsewhere_is_waited_for_to_be_carried_out_again(tmp_path: Path) -> None:
    controller = Controller(tmp_path, saves=True)
    controller.press()
    controller.wait_for("waiting for the end of what worker 'bob' is at")
    controller.enough.touch()
    saved = tmp_path / "failed_visits" / "round-1-bob.ckpt"
    assert f"fedlightning replay {saved}" in controller.end()
    # What bob has kept meanwhile is not what he had when the visit began: nothing.
    states = torch.load(saved, weights_only=True)["federation"]["workers"]
    momenta = {name: len(state["memory"]["optimizers"]) for name, state in states.items()}
    assert momenta == {"ann": 1, "bob": 0}
    workers = [VirtualWorker(id=name) for name in ("ann", "bob")]
    strategy = FederatedStrategy(workers, update="sequential", optimizer_state="keep")
    module = Sleeps(str(tmp_path / "again"), str(controller.enough))
    replay(trainer(strategy), module, saved, train_dataloaders=loader())
    assert strategy.current_plan is not None
    assert strategy.current_plan.workers == ("bob",)
    assert module.says.exists()


def test_a_second_ctrl_c_does_not_wait_for_a_visit_elsewhere(tmp_path: Path) -> None:
    controller = Controller(tmp_path, saves=True)
    controller.press()
    controller.wait_for("waiting for the end of what worker 'bob' is at")
    controller.press()
    assert "fedlightning replay" not in controller.end()
    assert not [*tmp_path.glob("failed_visits/*.ckpt")]
