"""Failures at workers: what stops a run, what it survives, and that nothing is half changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from typing_extensions import override

import fedlightning as fl
from fedlightning.pointers.messages import Message, Run
from fedlightning.strategy import CohortTooSmall, FederatedStrategy, RoundFailed, Tolerance
from fedlightning.workers import VirtualWorker, WorkerLost
from fedlightning.workers.reply import Failed, Reply
from tests.strategy.toys import Classifier, assert_same_module, assert_same_optimizer, fit, loader, trainer

SKIP = Tolerance(on_error="skip", on_lost="skip", on_nonfinite="skip", min_cohort=0)
FEDERATIONS: dict[str, dict[str, Any]] = {
    "averaged": {"local_epochs": 1},
    "averaged, kept": {"local_epochs": 1, "optimizer_state": "keep"},
    "averaged gradients": {"local_steps": 1},
    "sequential": {"update": "sequential"},
    "sequential gradients": {"update": "sequential", "local_steps": 1},
}


class Flaky(VirtualWorker):
    """A worker that is lost when a program is run in one of some rounds."""

    def __init__(self, id: str, *, lost_in: set[int] | None = None, times: int = 10**9) -> None:
        self.lost_in = lost_in or set()
        self.times = times
        super().__init__(id=id)

    @override
    def submit(self, message: Message) -> Reply:
        if isinstance(message, Run) and message.round in self.lost_in and self.times > 0:
            self.times -= 1
            return Failed(WorkerLost(self.id, f"worker {self.id!r} is gone"))
        return super().submit(message)


class Fails(Classifier):
    """Raise, or return NaN, in chosen calls of ``training_step``, after the step has changed what it can."""

    def __init__(self, calls: set[int], how: str = "raise", **settings: Any) -> None:
        super().__init__(**settings)
        self.calls = calls
        self.how = how
        self.called = 0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.called += 1
        if self.called - 1 not in self.calls:
            return loss
        if self.how == "raise":
            raise ZeroDivisionError("now")
        return loss * float("nan")


def workers(**lost: set[int]) -> list[VirtualWorker]:
    """Return three workers, of which some are lost in some rounds."""
    return [Flaky(name, lost_in=lost.get(name)) for name in ("alice", "bob", "carol")]


@pytest.mark.parametrize("federation", FEDERATIONS.values(), ids=list(FEDERATIONS))
@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_retried_or_never_failing_visit_gives_the_same_bits(federation: dict[str, Any], how: str) -> None:
    plain, before = fit(FederatedStrategy(3, **federation))
    tolerance = Tolerance(on_error="skip", on_nonfinite="stop", retries=1)
    calls = {4, 9} if how == "raise" else set()
    strategy = FederatedStrategy(3, tolerance=tolerance, **federation)
    module, after = fit(strategy, module=partial(Fails, calls))
    assert_same_module(plain, module)
    assert_same_optimizer(before.optimizers[0], after.optimizers[0])
    assert after.callback_metrics == before.callback_metrics
    assert not any(record.skipped for record in strategy.history)


def test_a_lone_worker_is_retried_with_the_same_batches_and_random_numbers() -> None:
    plain, _ = fit(FederatedStrategy(1, local_steps=2))
    module, _ = fit(
        FederatedStrategy(1, local_steps=2, tolerance=Tolerance(retries=1)), module=partial(Fails, {3, 8})
    )
    assert_same_module(plain, module)


@pytest.mark.parametrize("federation", FEDERATIONS.values(), ids=list(FEDERATIONS))
@pytest.mark.parametrize("how", ["lost", "raise", "nan"])
def test_a_skipped_worker_leaves_no_trace(federation: dict[str, Any], how: str) -> None:
    """A run whose last visit is skipped ends with the bits that it had without that visit."""
    averaged = federation.get("update") != "sequential"
    rounds = 1 if averaged else 3
    settings = federation | {"rounds_per_epoch": rounds, "tolerance": SKIP}

    def run(flaky: Any, calls: set[int]) -> tuple[L.LightningModule, FederatedStrategy]:
        strategy = FederatedStrategy(flaky, **settings)
        module = partial(Fails, calls, "nan" if how == "nan" else "raise")
        return fit(strategy, module=module, max_epochs=1)[0], strategy

    steps = 1 if "local_steps" in federation else 3
    last_call = {2 * steps} if averaged or steps == 1 else {6}
    if how == "lost":
        skipped, strategy = run(workers(carol={0} if averaged else {2}), set())
    else:
        skipped, strategy = run(workers(), last_call)
    record = strategy.history[-1]
    assert set(record.skipped) == {"carol"}
    assert "carol" not in record.workers
    if averaged:
        expected, without = run_with_two(settings)
        assert without.history[-1].workers == record.workers
    else:
        expected = fit(FederatedStrategy(workers(), **settings), max_epochs=1, limit_train_batches=2)[0]
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, skipped.state_dict()[name]), name


def run_with_two(settings: dict[str, Any]) -> tuple[L.LightningModule, FederatedStrategy]:
    """Fit with the third worker lost before it has got anything."""
    strategy = FederatedStrategy(workers(carol={0}), **settings)
    return fit(strategy, max_epochs=1)[0], strategy


def test_a_skipped_worker_is_reported_and_comes_back() -> None:
    strategy = FederatedStrategy(workers(bob={1}), tolerance=Tolerance(on_lost="skip"))
    with pytest.warns(
        UserWarning, match="round 1: worker 'bob' is left out of the round: worker 'bob' is gone"
    ):
        fit(strategy, max_epochs=3)
    assert [record.workers for record in strategy.history] == [
        ("alice", "bob", "carol"),
        ("alice", "carol"),
        ("alice", "bob", "carol"),
    ]
    assert strategy.history[1].skipped == {"bob": "worker 'bob' is gone"}
    assert strategy.history.rows()[1]["skipped"] == "bob"


def test_weights_are_those_of_who_is_left() -> None:
    class Copies(Classifier):
        """Leave the number of the worker's samples in every parameter."""

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            for parameter in self.parameters():
                parameter.data.fill_(self.count)
                parameter.grad = None

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self.count = float(len(batch[0]))
            return super().training_step(batch, batch_idx)

    shares = fl.data.Explicit({"alice": range(2), "bob": range(2, 5), "carol": range(5, 30)})
    strategy = FederatedStrategy(workers(carol={0}), shares, tolerance=SKIP)
    module, _ = fit(strategy, module=Copies, train=loader(30, batch_size=25), max_epochs=1)
    assert next(module.parameters()).unique().tolist() == pytest.approx([(2 * 2 + 3 * 3) / 5])


def test_too_few_updates_stop_the_run_and_say_why() -> None:
    strategy = FederatedStrategy(
        workers(bob={1}, carol={1}), tolerance=Tolerance(on_lost="skip", min_cohort=2)
    )
    with pytest.raises(
        CohortTooSmall, match=r"round 1: 1 of 3 workers .*min_cohort=2.*'bob': worker 'bob' is"
    ):
        fit(strategy, max_epochs=3)
    assert len(strategy.history) == 1


@pytest.mark.parametrize("federation", FEDERATIONS.values(), ids=list(FEDERATIONS))
def test_an_empty_round_changes_nothing(federation: dict[str, Any]) -> None:
    everybody = {"alice": {0, 1, 2}, "bob": {0, 1, 2}, "carol": {0, 1, 2}}
    strategy = FederatedStrategy(workers(**everybody), tolerance=SKIP, **federation)
    L.seed_everything(3, verbose=False)
    module = Classifier(partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1))
    start = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run = trainer(strategy, max_steps=3, max_epochs=-1)
    run.fit(module, loader())
    assert run.global_step == len(strategy.history) == 3
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, start[name]), name


def test_an_empty_round_leaves_the_server_optimizer_alone() -> None:
    strategy = FederatedStrategy(
        workers(alice={1}, bob={1}, carol={1}),
        tolerance=SKIP,
        server_optimizer=partial(torch.optim.Adam, lr=0.1),
    )
    seen: list[dict[str, Tensor]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    fit(strategy, max_epochs=3, callbacks=[Watch()])
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
    assert not torch.equal(seen[1]["net.0.weight"], seen[2]["net.0.weight"])
    assert strategy.server_optimizer is not None
    assert {int(state["step"]) for state in strategy.server_optimizer.state.values()} == {2}


def test_a_checkpoint_is_saved_while_a_tolerated_worker_is_lost(tmp_path: Path) -> None:
    class Gone(Flaky):
        gone = False

        @override
        def submit(self, message: Message) -> Reply:
            if self.gone:
                return Failed(WorkerLost(self.id, "gone for good"))
            return super().submit(message)

    crew = [Gone(name) for name in ("alice", "bob", "carol")]

    class Lose(L.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            crew[1].gone = True

    strategy = FederatedStrategy(crew, tolerance=SKIP, optimizer_state="keep")
    _, run = fit(strategy, max_epochs=3, callbacks=[Lose()])
    run.save_checkpoint(tmp_path / "some.ckpt")
    saved = torch.load(tmp_path / "some.ckpt", weights_only=True)["federation"]
    assert set(saved["workers"]) == {"alice", "carol"}
    assert [record.workers for record in strategy.history][1:] == [("alice", "carol")] * 2


@pytest.mark.parametrize("federation", FEDERATIONS.values(), ids=list(FEDERATIONS))
@pytest.mark.parametrize("how", ["raise", "nan"])
def test_a_failed_visit_can_be_replayed(federation: dict[str, Any], how: str, tmp_path: Path) -> None:
    seen: list[tuple[dict[str, Tensor], Tensor]] = []

    class Watched(Fails):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            weights = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            seen.append((weights, batch[0].clone()))
            return super().training_step(batch, batch_idx)

    def parts(calls: set[int]) -> tuple[Watched, L.Trainer]:
        tolerance = Tolerance(on_nonfinite="stop")
        strategy = FederatedStrategy(3, seed=1, tolerance=tolerance, **federation)
        settings = {"default_root_dir": tmp_path, "enable_checkpointing": not seen}
        return Watched(calls, how), trainer(strategy, max_epochs=4, **settings)

    L.seed_everything(3, verbose=False)
    module, run = parts({11})
    with pytest.raises(
        RoundFailed, match=r"carry out exactly this visit again: fedlightning replay .*\.ckpt"
    ) as e:
        run.fit(module, loader(), loader(12, shuffle=False))
    assert e.value.replay is not None
    failing = seen[11]

    L.seed_everything(99, verbose=False)
    seen.clear()
    seen.append(failing)  # so that no checkpoint is written
    module, run = parts({len(seen) - 1 + position for position in range(20)})
    with pytest.raises(RoundFailed) as again:
        fl.replay(run, module, e.value.replay, train_dataloaders=loader())
    assert (again.value.worker, again.value.round) == (e.value.worker, e.value.round)
    if how == "raise":
        # The first step of the visit raises here; it is the failing one wherever a visit has one step.
        assert (again.value.step or 0) <= (e.value.step or 0)
    if "local_steps" in federation:
        assert torch.equal(seen[1][1], failing[1])
        for name, tensor in seen[1][0].items():
            assert torch.equal(tensor, failing[0][name]), name


def test_a_visit_that_no_longer_fails_ends_the_replay(tmp_path: Path) -> None:
    _, run = fit(FederatedStrategy(3, seed=1), max_epochs=1)
    run.save_checkpoint(tmp_path / "after-one.ckpt")
    replayed = trainer(strategy := FederatedStrategy(3, seed=1), max_epochs=2)
    fl.replay(
        replayed, Classifier(), tmp_path / "after-one.ckpt", worker="worker-2", train_dataloaders=loader()
    )
    assert len(strategy.history) == 1
    with pytest.raises(ValueError, match=r"worker='worker-7' takes no part in round 1"):
        fl.replay(
            replayed, Classifier(), tmp_path / "after-one.ckpt", worker="worker-7", train_dataloaders=loader()
        )
    with pytest.raises(ValueError, match="is not named as a failed visit"):
        fl.replay(replayed, Classifier(), tmp_path / "some.ckpt", train_dataloaders=loader())
    with pytest.raises(TypeError, match="give it the FederatedStrategy"):
        fl.replay(trainer(), Classifier(), tmp_path / "some.ckpt", worker="bob")


@pytest.mark.parametrize("federation", FEDERATIONS.values(), ids=list(FEDERATIONS))
def test_ctrl_c_leaves_the_module_of_the_last_completed_round(
    federation: dict[str, Any], tmp_path: Path
) -> None:
    class Interrupted(Classifier):
        called = 0

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.called += 1
            if self.called == 9:
                raise KeyboardInterrupt
            return loss

    rounds: list[dict[str, Tensor]] = []

    class Watch(L.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            rounds.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.on_train_start(trainer, pl_module)

    strategy = FederatedStrategy(3, **federation)
    L.seed_everything(3, verbose=False)
    module = Interrupted()
    with pytest.raises(SystemExit):
        trainer(strategy, callbacks=[Watch()], max_epochs=5).fit(module, loader())
    assert len(strategy.history) == len(rounds) - 1
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, rounds[-1][name]), name


def test_a_full_disk_costs_neither_the_module_nor_the_last_checkpoint(tmp_path: Path) -> None:
    class Full(ModelCheckpoint):
        def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
            if trainer.global_step == 3:
                raise OSError(28, "No space left on device")
            super()._save_checkpoint(trainer, filepath)

    keep = Full(dirpath=tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    strategy = FederatedStrategy(3)
    with pytest.raises(OSError, match="No space left"):
        fit(strategy, max_epochs=5, callbacks=[keep], enable_checkpointing=True)
    assert len(strategy.history) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=1.ckpt", "step=2.ckpt"]
    L.seed_everything(3, verbose=False)
    module, run = Classifier(), trainer(FederatedStrategy(3, seed=3), max_epochs=5)
    run.fit(module, loader(), loader(12, shuffle=False), ckpt_path=tmp_path / "step=2.ckpt")
    assert_same_module(module, fit(FederatedStrategy(3), max_epochs=5)[0])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"on_error": "ignore"}, "on_error must be one of 'stop', 'skip', got 'ignore'"),
    ({"on_lost": "keep"}, "on_lost must be one of 'stop', 'skip', got 'keep'"),
    ({"on_nonfinite": None}, "on_nonfinite must be one of 'keep', 'skip', 'stop', got None"),
    ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
    ({"min_cohort": 1.5}, "min_cohort must be a whole number of at least 0, got 1.5"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tolerance(**settings)


def test_a_cohort_that_is_always_too_small() -> None:
    with pytest.raises(ValueError, match="min_cohort=4, and cohort_size=3"):
        FederatedStrategy(cohort_size=3, tolerance=Tolerance(min_cohort=4))
    with pytest.raises(TypeError, match=r"tolerance must be a fedlightning.Tolerance, got 'skip'"):
        FederatedStrategy(tolerance="skip")  # type: ignore[arg-type]  # what is tested
