"""On a GPU, equalities hold as on the CPU: one worker is an ordinary fit, and the same seed the same bits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.strategy import FederatedStrategy, Tolerance
from fedlightning.workers import VirtualWorker
from tests.strategy.test_evaluation import Evaluated, at_workers, pooled
from tests.strategy.test_tolerance import Fails
from tests.strategy.toys import Classifier, assert_same_module, assert_same_optimizer, fit, loader, trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true")
WORK: dict[str, dict[str, Any]] = {
    "averaged": {},
    "averaged gradients": {"local_steps": 1},
    "sequential": {"update": "sequential"},
    "sequential gradients": {"update": "sequential", "local_steps": 1},
}


@pytest.fixture(autouse=True)
def _same_bits_every_time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Choose kernels that add in the same order each time."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def gpu_fit(strategy: Any = "auto", **settings: Any) -> tuple[L.LightningModule, L.Trainer]:
    """Fit on the GPU."""
    return fit(strategy, accelerator="gpu", **settings)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_one_worker_is_an_ordinary_fit(work: dict[str, Any], precision: Any) -> None:
    # In rounds of an epoch, learning rates are those of rounds, and the optimizer's state that of one.
    steps = "local_steps" in work
    settings: dict[str, Any] = {
        "module": partial(Classifier, schedule=steps),
        "max_epochs": 2 if steps else 1,
        "precision": precision,
    }
    plain, before = gpu_fit(**settings)
    module, after = gpu_fit(FederatedStrategy(1, **work), **settings)
    assert next(module.parameters()).device.type == "cuda"
    assert_same_module(plain, module)
    if steps:
        assert_same_optimizer(before.optimizers[0], after.optimizers[0])


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_the_same_seed_gives_the_same_bits_whatever_else_draws(work: dict[str, Any], precision: Any) -> None:
    class Draws(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            torch.rand(3, device="cuda")

    first, _ = gpu_fit(FederatedStrategy(4, **work), precision=precision)
    second, _ = gpu_fit(FederatedStrategy(4, **work), precision=precision, callbacks=[Draws()])
    assert_same_module(first, second)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
@pytest.mark.parametrize("workers", [1, 3])
def test_a_resumed_run_ends_in_the_same_bits(
    work: dict[str, Any], precision: Any, workers: int, tmp_path: Path
) -> None:
    def run(**settings: Any) -> L.LightningModule:
        L.seed_everything(3, verbose=False)
        module = Classifier()
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        strategy = FederatedStrategy(workers, **work)
        made = trainer(
            strategy, accelerator="gpu", precision=precision, callbacks=[keep], enable_checkpointing=True
        )
        made.fit(module, loader(), loader(12, shuffle=False), **settings)
        return module

    whole = run()
    steps = sorted(int(path.stem.removeprefix("step=")) for path in tmp_path.glob("step=*.ckpt"))
    assert_same_module(whole, run(ckpt_path=tmp_path / f"step={steps[0]}.ckpt"))
    assert_same_module(whole, run(ckpt_path=tmp_path / f"step={steps[-2]}.ckpt"))


def test_each_worker_has_a_loss_scale_of_its_own() -> None:
    strategy = FederatedStrategy(3, local_epochs=2)
    gpu_fit(strategy, precision="16-mixed", max_epochs=2)
    for kept in strategy.federation.state_dict().values():
        assert kept["memory"]["precision"]["scale"] > 0


def test_evaluation_at_workers_is_that_of_the_pooled_data() -> None:
    module = Evaluated()
    (central,) = trainer(accelerator="gpu").validate(module, pooled(), verbose=False)
    (federated,) = trainer(FederatedStrategy(), accelerator="gpu").validate(
        module, at_workers()[0], verbose=False
    )
    assert federated == pytest.approx(central, abs=1e-5)


@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_failures_are_undone(work: dict[str, Any]) -> None:
    plain, _ = gpu_fit(FederatedStrategy(3, **work))
    retried, _ = gpu_fit(
        FederatedStrategy(3, tolerance=Tolerance(retries=1), **work), module=partial(Fails, {4, 9})
    )
    assert_same_module(plain, retried)


def test_a_trusted_worker_averages() -> None:
    direct, _ = gpu_fit(FederatedStrategy(3))
    trusted, _ = gpu_fit(FederatedStrategy(3, aggregator=VirtualWorker(id="trusted")))
    assert_same_module(direct, trusted)


def test_manual_optimization_with_two_optimizers() -> None:
    class Manual(Classifier):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            parameters = list(self.parameters())
            return [torch.optim.SGD(parameters[:2], 0.1), torch.optim.Adam(parameters[2:], 0.01)]

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

    plain, _ = gpu_fit(module=Manual, precision="bf16-mixed", max_epochs=1)
    module, _ = gpu_fit(FederatedStrategy(1), module=Manual, precision="bf16-mixed", max_epochs=1)
    assert_same_module(plain, module)


@pytest.mark.xdist_group("strategy processes")
def test_processes_come_to_the_same_bits() -> None:
    one, two = (gpu_fit(FederatedStrategy(4, seed=0, processes=count))[0] for count in (None, 2))
    assert_same_module(one, two)
