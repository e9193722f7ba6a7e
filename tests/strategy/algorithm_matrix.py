"""What the matrix of ``docs/algorithms.md`` shows: each algorithm with each way to optimize, as fits give it.

``python -m tests.strategy.algorithm_matrix`` writes the table; a test compares it with what is committed. A
new algorithm is a row in ``ROWS``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fedlightning.algorithms import (
    APFL,
    IFCA,
    Algorithm,
    Ditto,
    FedAsync,
    FedAvg,
    FedBABU,
    FedBN,
    FedBuff,
    FedDyn,
    FedNova,
    FedPer,
    FedProx,
    FedRep,
    FixedAdam,
    FixedMomentum,
    FLTrust,
    LGFedAvg,
    Mime,
    MimeLite,
    Moon,
    PerFedAvg,
    Scaffold,
    SimulatedClock,
    Yogi,
)
from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, NotFederatable
from tests.strategy.committed_table import CommittedTable, refusal
from tests.strategy.toys import samples, trainer

EVEN = {name: list(range(first, 24, 4)) for first, name in enumerate("abcd")}
UNEVEN = {"a": [0, 1, 2, 3], "b": list(range(4, 10)), "c": list(range(10, 20)), "d": [20, 21, 22, 23]}
SGD = partial(torch.optim.SGD, lr=0.1)
YES = "yes"


class Toy(L.LightningModule):
    """A representation and a head.

    Args:
        optimizer: Makes the optimizer.
        by_hand: Whether the module steps itself.
        several: Whether representation and head have an optimizer each; by hand.
        schedule: Whether the learning rate falls from round to round.
        norm: Whether there is batch norm.
    """

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer] = SGD,
        *,
        by_hand: bool = False,
        several: bool = False,
        schedule: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = not by_hand
        self.optimizer, self.several, self.schedule = optimizer, several, schedule
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        if self.automatic_optimization:
            return self.loss(*batch)
        optimizers: Any = self.optimizers(use_pl_optimizer=True)
        for optimizer in optimizers if self.several else [optimizers]:
            with optimizer.toggle_model():
                optimizer.zero_grad()
                self.manual_backward(self.loss(*batch))
                optimizer.step()
        return None

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.body(x)), y)

    def configure_optimizers(self) -> Any:
        if self.several:
            return [self.optimizer(self.body.parameters()), self.optimizer(self.head.parameters())]
        optimizer = self.optimizer(self.parameters())
        if not self.schedule:
            return optimizer
        falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


@dataclass(frozen=True)
class Way:
    """A way to optimize.

    Args:
        module: Makes the module.
        settings: Makes arguments of the Trainer.
    """

    module: Callable[[], Toy] = Toy
    settings: Callable[[], dict[str, Any]] = dict


def scaled() -> dict[str, Any]:
    """Return mixed precision with a loss scale, which Lightning itself leaves out on a CPU."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))]}


WAYS: Mapping[str, Way] = {
    "automatic": Way(),
    "manual": Way(partial(Toy, by_hand=True)),
    "several optimizers": Way(partial(Toy, by_hand=True, several=True)),
    "Adam": Way(partial(Toy, partial(torch.optim.Adam, lr=0.01))),
    "momentum": Way(partial(Toy, partial(torch.optim.SGD, lr=0.1, momentum=0.9))),
    "16-bit, loss scale": Way(settings=scaled),
    "accumulation": Way(settings=lambda: {"accumulate_grad_batches": 2}),
    "scheduler": Way(partial(Toy, schedule=True)),
    "BatchNorm": Way(partial(Toy, norm=True)),
}


@dataclass(frozen=True)
class Row:
    """An algorithm, or other settings of the strategy.

    Args:
        settings: As it is meant to be used.
        same: Settings that must end in plain averaging's bits, where workers have as much data each.
        plain: Plain averaging, as that goes.
        label: How ``same`` is written in the table.
        leaves_global: Whether the global model is that of plain averaging in any case.
        unless: The way in which it is not, nor is ``same``.
    """

    settings: Mapping[str, Any]
    same: Mapping[str, Any] | None = None
    plain: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    leaves_global: bool = False
    unless: str = ""


def row_of(algorithm: Algorithm, same: Algorithm | None = None, label: str = "", **more: Any) -> Row:
    uniform = {"algorithm": FedAvg(weighting="uniform")} if algorithm.weighting == "uniform" else {}
    given = None if same is None else {"algorithm": same}
    return Row({"algorithm": algorithm}, given, uniform, label, **more)


def server(optimizer: Callable[..., torch.optim.Optimizer], **settings: Any) -> Row:
    return Row({"server_optimizer": partial(optimizer, **settings)})


ROWS: Mapping[str, Row] = {
    "`FedProx`": row_of(FedProx(mu=0.5), FedProx(mu=0), "`mu=0`"),
    "`Scaffold`": row_of(Scaffold(), Scaffold(controls="zero"), '`controls="zero"`'),
    '`Scaffold(option="I")`': row_of(Scaffold("I"), Scaffold("I", "zero"), '`controls="zero"`'),
    "`FedDyn`": row_of(FedDyn(alpha=0.5), FedDyn(alpha=0), "`alpha=0`"),
    "`FedNova`": row_of(FedNova(), FedNova(), "equal steps"),
    "`Moon`": row_of(Moon("body"), Moon("body", mu=0), "`mu=0`"),
    "`MimeLite`": row_of(MimeLite(), MimeLite(FixedMomentum(beta=0)), "`FixedMomentum(beta=0)`"),
    "`Mime`": row_of(Mime(FixedAdam())),
    "`FedAsync`": Row({"asynchronous": FedAsync(alpha=0.5)}),
    "`FedBuff`": Row(
        {
            "asynchronous": FedBuff(buffer=2),
            "clock": SimulatedClock({"a": 1.0, "b": 1.0, "c": 5.0, "d": 2.0}),
        },
        {"asynchronous": FedBuff(buffer=4)},
        label="`buffer=4`, no delay",
    ),
    "FedAvgM": server(torch.optim.SGD, lr=1.0, momentum=0.9),
    "FedAdam": server(torch.optim.Adam, lr=0.01),
    "FedAdagrad": server(torch.optim.Adagrad, lr=0.01),
    "FedYogi": server(Yogi, lr=0.01),
    "`FLTrust`": Row({"aggregation": FLTrust(), "root_data": samples(8, seed=1)}),
    "`FedPer`": row_of(FedPer(personal=["head"]), FedPer(), "`personal=[]`"),
    "`LGFedAvg`": row_of(LGFedAvg(personal=["body"]), LGFedAvg(), "`personal=[]`"),
    "`FedBN`": row_of(FedBN(), FedBN(), "no such layers", leaves_global=True, unless="BatchNorm"),
    "`FedRep`": row_of(FedRep(personal=["head"]), FedRep(), "`personal=[]`"),
    "`FedBABU`": row_of(FedBABU(head=["head"]), FedBABU(), "`head=[]`"),
    "`Ditto`": row_of(Ditto(), Ditto(), "always", leaves_global=True),
    "`APFL`": row_of(APFL(alpha=0.5), APFL(alpha=0), "`alpha=0`", leaves_global=True),
    "`PerFedAvg`": row_of(PerFedAvg(alpha=0.1)),
    "`IFCA`": row_of(IFCA(clusters=2), IFCA(clusters=1), "`clusters=1`"),
}


def outcome(row: Row, name: str) -> str:
    """Fit in a way and return what is to be said of it: yes, or what is wrong, or why it is refused."""
    way = WAYS[name]
    try:
        trained = fitted(row.settings, way, even=False)
    except NotFederatable as error:
        return refusal(error)
    if not all(tensor.isfinite().all() for tensor in trained):
        return "not finite"
    if (not row.leaves_global or name == row.unless) and _same(trained, averaged(row, way, even=False)):
        return "no effect"
    if row.same is None or name == row.unless:
        return YES
    if not _same(fitted(row.same, way, even=True), averaged(row, way, even=True)):
        return f"not FedAvg at {row.label}"
    return YES


def averaged(row: Row, way: Way, *, even: bool) -> list[Tensor]:
    """Return what plain averaging trains."""
    return _averaged(bool(row.plain), way, even)


@cache
def _averaged(uniform: bool, way: Way, even: bool) -> list[Tensor]:
    return fitted({"algorithm": FedAvg(weighting="uniform")} if uniform else {}, way, even=even)


def fitted(settings: Mapping[str, Any], way: Way, *, even: bool) -> list[Tensor]:
    """Train for three rounds of one local epoch, three batches on average; return parameters and buffers."""
    torch.manual_seed(3)
    module = way.module()
    strategy = FederatedStrategy(
        partition=Explicit(EVEN if even else UNEVEN), local_epochs=1, seed=0, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(strategy, max_epochs=3, **way.settings()).fit(module, DataLoader(samples(24), batch_size=2))
    return list(module.state_dict().values())


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(map(torch.equal, first, second))


def row(name: str) -> list[str]:
    """Return the cells of one line of the table."""
    return [name, ROWS[name].label, *(outcome(ROWS[name], way) for way in WAYS)]


TABLE = CommittedTable("algorithms.md", ["", "FedAvg's bits at", *WAYS], row)

if __name__ == "__main__":
    TABLE.write(ROWS)
