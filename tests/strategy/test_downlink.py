"""The way down, compressed: what workers start from, what it costs, and that all else is as without."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.algorithms import FedPer, FixedMomentum, FLTrust, MimeLite, RoundRobin, Scaffold
from fedlightning.algorithms.postprocessing import Postprocessing, PowerSGD, Quantize, RandomK, TopK
from fedlightning.strategy import FederatedStrategy, Tolerance
from fedlightning.workers import KeepData, VirtualWorker, Worker
from tests.strategy.conftest import MakeWorkers
from tests.strategy.quadratic import assert_at, fit_quadratic
from tests.strategy.remote_toys import Travelling
from tests.strategy.test_tolerance import Fails
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, samples, trainer

CHAINS: list[list[Any]] = [
    [TopK(fraction=0.1), Quantize(bits=8)],
    [RandomK(fraction=0.5, unbiased=False)],
    [Quantize(bits=4, stochastic=True)],
    [PowerSGD(rank=1)],
]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def run(workers: Any = 4, **settings: Any) -> tuple[L.LightningModule, L.Trainer]:
    given = settings.pop("trainer", {})
    strategy = FederatedStrategy(workers, local_steps=2, **settings)
    return fit(strategy, module=lambda: Classifier(sgd), **given)


def test_no_steps_are_nothing_at_all() -> None:
    assert_same_module(run(downlink=[])[0], run()[0])


@pytest.mark.parametrize(
    ("rounds", "expected"), [(1, [0.875, 0.75]), (2, [1.23046875, 1.5]), (3, [1.5859375, 1.359375])]
)
def test_three_rounds_by_hand(rounds: int, expected: list[float]) -> None:
    """One of two numbers goes down. In the second round that is the first one: ann goes from (0.875, 0) to
    (2.2421875, 0), bob to (0.21875, 1.5); their mean is (1.23046875, 0.75), and (0, 0.75) was not sent. In
    the third one it is the second: from (0.875, 1.5) ann goes to (2.2421875, 0.84375), bob to
    (0.21875, 1.875), and (0.35546875, 0) was not sent.
    """
    assert_at(fit_quadratic(rounds=rounds, downlink=[TopK(fraction=0.5)])[0], expected)


def test_nearly_everything_is_nearly_nothing() -> None:
    fine, plain = run(downlink=[TopK(fraction=1.0)])[0], run()[0]
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(fine.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_ledgers_count_what_is_sent(chain: list[Any]) -> None:
    """The first visit gets the whole model, later ones what has changed; the way up is as it was."""
    plain, small = (run(downlink=steps)[1].strategy.history for steps in (None, chain))
    parameters = 4 * sum(parameter.numel() for parameter in Classifier(sgd).parameters())
    whole, less = plain[1].bytes_down, small[1].bytes_down
    assert plain[1].bytes_up == small[1].bytes_up
    assert whole - 4 * parameters < less < whole
    assert small[0].bytes_down >= plain[0].bytes_down


def test_who_has_missed_rounds_gets_what_it_has_missed() -> None:
    """Two of four take turns by two: each gets two changes at a time, then."""

    def down(**settings: Any) -> list[int]:
        _, done = run(downlink=[TopK(fraction=0.05)], trainer={"max_epochs": 3}, **settings)
        return [record.bytes_down // len(record.workers) for record in done.strategy.history]

    everybody, turns = down(), down(cohort_size=2, sampling=RoundRobin())
    keys_and_values = (everybody[2] - everybody[1], turns[4] - everybody[2])
    assert keys_and_values[0] == 0
    assert keys_and_values[1] > 0
    assert turns[4] - everybody[2] == turns[2] - everybody[2]


def test_a_worker_is_sent_the_whole_model_where_that_is_less() -> None:
    """Of a change of 60% of its size, two are more than the model."""
    _, done = run(
        downlink=[TopK(fraction=0.3)],
        cohort_size=1,
        sampling=RoundRobin(),
        trainer={"max_epochs": 4},
    )
    counts = [record.bytes_down for record in done.strategy.history]
    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": Scaffold()},
        {"algorithm": MimeLite(FixedMomentum())},
        {"algorithm": FedPer(personal=["net.4"])},
        {"postprocess": Postprocessing([TopK(fraction=0.2)], error_feedback=True)},
        {"aggregation": FLTrust(), "root_data": samples(6)},
        {"server_optimizer": partial(torch.optim.SGD, lr=0.5)},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_a_trusted_aggregator_gives_the_same_bits(settings: dict[str, Any]) -> None:
    direct, _ = run(downlink=CHAINS[0], **settings)
    assert_same_module(direct, run(downlink=CHAINS[0], aggregator=VirtualWorker(id="trusted"), **settings)[0])
    assert all(parameter.isfinite().all() for parameter in direct.parameters())


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_a_run_goes_on_in_the_same_bits(chain: list[Any], tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    whole, _ = run(
        downlink=chain, cohort_size=2, trainer={"callbacks": [callback], "enable_checkpointing": True}
    )
    first, *_ = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    module = Classifier(sgd)
    strategy = FederatedStrategy(4, local_steps=2, cohort_size=2, downlink=chain)
    trainer(strategy).fit(module, loader(), loader(12, shuffle=False), ckpt_path=first)
    assert_same_module(module, whole)


def test_a_visit_that_is_made_again_starts_from_the_same_model() -> None:
    def ends(tolerance: Tolerance, fails: set[int]) -> L.LightningModule:
        strategy = FederatedStrategy(3, downlink=CHAINS[0], tolerance=tolerance, seed=0)
        return fit(strategy, module=partial(Fails, fails), max_epochs=3)[0]

    assert_same_module(ends(Tolerance(retries=1), {4, 8}), ends(Tolerance(), set()))


@pytest.mark.xdist_group("workers elsewhere")
def test_workers_in_other_processes_end_in_the_same_bits(workers_elsewhere: MakeWorkers) -> None:
    def ends(workers: list[Worker]) -> tuple[L.LightningModule, list[int]]:
        strategy = FederatedStrategy(workers, local_steps=2, downlink=CHAINS[0])
        module, _ = fit(strategy, module=Travelling)
        return module, [worker.ledger.received_bytes for worker in workers]

    far, _ = ends(workers_elsewhere("a", "b"))
    assert_same_module(far, ends([VirtualWorker(id=name) for name in ("a", "b")])[0])


def test_private_workers_take_part() -> None:
    workers = [VirtualWorker(id=name, policy=KeepData()) for name in ("a", "b")]
    module, _ = run(workers, downlink=CHAINS[0])
    assert_same_module(module, run([VirtualWorker(id=name) for name in ("a", "b")], downlink=CHAINS[0])[0])


def test_bad_settings() -> None:
    with pytest.raises(TypeError, match="downlink must be a list of postprocessors"):
        FederatedStrategy(4, downlink=TopK(fraction=0.1))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="what they lose is made up for in any case"):
        FederatedStrategy(4, downlink=Postprocessing([TopK(0.1)], error_feedback=True))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="steps must be postprocessors"):
        FederatedStrategy(4, downlink=["top_k"])  # type: ignore[list-item]  # what is tested
    with pytest.raises(ValueError, match="downlink is given, but under update='sequential'"):
        FederatedStrategy(4, downlink=[TopK(fraction=0.1)], update="sequential")
