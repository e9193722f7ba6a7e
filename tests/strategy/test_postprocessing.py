"""Processed updates inside a fit: what arrives, what it costs, and that everything else is as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.algorithms import Ditto, MajorityVote, Median, Scaffold
from fedlightning.algorithms.postprocessing import (
    Clip,
    Postprocessing,
    PowerSGD,
    Quantize,
    RandomK,
    Sign,
    TopK,
)
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import KeepData, VirtualWorker, Worker
from tests.strategy.conftest import MakeWorkers
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.remote_toys import Travelling
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

CHAINS: list[Postprocessing] = [
    Postprocessing([TopK(fraction=0.1), Quantize(bits=8)], error_feedback=True),
    Postprocessing([RandomK(fraction=0.5)]),
    Postprocessing([Quantize(bits=4, stochastic=True)]),
    Postprocessing([PowerSGD(rank=1)], error_feedback=True),
]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def run(workers: Any = 4, **settings: Any) -> tuple[L.LightningModule, L.Trainer]:
    given = settings.pop("trainer", {})
    strategy = FederatedStrategy(workers, local_steps=2, **settings)
    return fit(strategy, module=lambda: Classifier(sgd), **given)


def test_no_steps_are_no_processing_at_all() -> None:
    assert_same_module(run(postprocess=[])[0], run()[0])


def test_a_bound_that_is_never_reached_changes_rounding_alone() -> None:
    bounded, plain = run(postprocess=[Clip(norm=1e6)])[0], run()[0]
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(bounded.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_bound_by_hand() -> None:
    """Ann goes (1.75, 0) and bob (0, 1.5): both are cut to length 1."""
    assert_at(fit_quadratic(rounds=1, postprocess=[Clip(norm=1.0)])[0], [0.5, 0.5])


def test_a_majority_by_hand() -> None:
    """Each coordinate moves by one step where one worker goes up and the other, at zero, counts as up."""
    module, _ = fit_quadratic(rounds=1, postprocess=[Sign()], aggregation=MajorityVote(step=0.25))
    assert_at(module, [0.25, 0.25])


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_what_is_sent_is_what_the_ledger_counts(chain: Postprocessing) -> None:
    _, plain = run()
    _, small = run(postprocess=chain)
    large, less = plain.strategy.history[0], small.strategy.history[0]
    assert less.bytes_up < large.bytes_up
    assert less.bytes_down >= large.bytes_down


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
@pytest.mark.parametrize(
    "settings",
    [{}, {"algorithm": Scaffold()}, {"algorithm": Ditto()}, {"aggregation": Median()}],
    ids=lambda settings: str(list(settings.values())),
)
def test_a_trusted_aggregator_gives_the_same_bits(chain: Postprocessing, settings: dict[str, Any]) -> None:
    trusted = run(postprocess=chain, aggregator=VirtualWorker(id="trusted"), **settings)[0]
    assert_same_module(trusted, run(postprocess=chain, **settings)[0])


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_a_run_goes_on_in_the_same_bits(chain: Postprocessing, tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    whole, _ = run(
        postprocess=chain, cohort_size=2, trainer={"callbacks": [callback], "enable_checkpointing": True}
    )
    first, *_ = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    module = Classifier(sgd)
    strategy = FederatedStrategy(4, local_steps=2, cohort_size=2, postprocess=chain)
    trainer(strategy).fit(module, loader(), loader(12, shuffle=False), ckpt_path=first)
    assert_same_module(module, whole)


@pytest.mark.xdist_group("workers elsewhere")
def test_workers_in_other_processes_end_in_the_same_bits(workers_elsewhere: MakeWorkers) -> None:
    def ends(workers: list[Worker]) -> L.LightningModule:
        strategy = FederatedStrategy(workers, local_steps=2, postprocess=CHAINS[0])
        return fit(strategy, module=Travelling)[0]

    far = ends(workers_elsewhere("a", "b"))
    assert_same_module(far, ends([VirtualWorker(id=name) for name in ("a", "b")]))


def test_private_workers_send_it() -> None:
    workers = [VirtualWorker(id=name, policy=KeepData()) for name in ("a", "b")]
    module, _ = run(workers, postprocess=CHAINS[0])
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_nonsense_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="steps must be postprocessors"):
        FederatedStrategy(2, postprocess=[0.5])  # type: ignore[list-item]  # what is tested
    with pytest.raises(TypeError, match="postprocess must be a list of postprocessors"):
        FederatedStrategy(2, postprocess=TopK(fraction=0.1))  # type: ignore[arg-type]  # what is tested


def test_a_checkpoint_of_another_chain_is_refused(tmp_path: Path) -> None:
    _, fitted = run(postprocess=CHAINS[0])
    fitted.save_checkpoint(tmp_path / "it.ckpt")
    strategy = FederatedStrategy(4, local_steps=2)
    with pytest.raises(NotFederatable, match="its postprocess is"):
        trainer(strategy, max_epochs=3).fit(Classifier(sgd), loader(), ckpt_path=tmp_path / "it.ckpt")
