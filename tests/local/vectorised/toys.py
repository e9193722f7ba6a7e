"""Modules, workers' data and the two ways to train on it, for the tests of the vectorised path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import TensorDataset
from typing_extensions import override

from fedlightning.data.loader_settings import LoaderSettings
from fedlightning.data.shard import Shard
from fedlightning.local.lightning_calls import attach
from fedlightning.local.memory import OptimizerState, WorkerMemory
from fedlightning.local.streams import KeyedStream
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.chunks import Errand, SeparateErrands
from fedlightning.local.vectorised.training import VectorisedTraining
from fedlightning.local.visit import Visit, VisitReport

FEATURES, CLASSES = 6, 3


class Net(L.LightningModule):
    """Classify by two linear maps, and log the loss and the share of hits."""

    def __init__(self, make: Callable[..., Optimizer], body: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make = make
        self.body = body if body is not None else nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        x, y = batch
        scores = self.head(self.body(x))
        loss = F.cross_entropy(scores, y)
        self.log("loss", loss)
        self.log("hits", (scores.argmax(1) == y).sum(), reduce_fx="sum")
        return loss

    @override
    def configure_optimizers(self) -> Optimizer:
        return self.make(self.parameters())


def attached(module: L.LightningModule) -> L.LightningModule:
    """Give a module a Trainer that never fits, and double precision."""
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    attach(trainer, module.double().train())
    return module


def streams(sizes: Sequence[int], batch_size: int = 4) -> list[KeyedStream]:
    """Place as many samples as said at each worker, all out of the same two tensors."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(sizes), FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (len(x),), generator=generator)
    ends = np.cumsum(sizes)
    settings = LoaderSettings(batch_size=batch_size, shuffle=True)
    return [
        KeyedStream(Shard.of(TensorDataset(x, y), np.arange(end - size, end), settings), 1, f"worker{number}")
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


@dataclass
class Outcome:
    """What a visit has left."""

    parameters: list[Tensor]
    buffers: list[Tensor]
    report: VisitReport
    memory: dict[str, Any]


class Cohort:
    """Workers that train by both ways, round after round, from the same global module.

    Args:
        module: The global module; in double precision afterwards.
        data: The workers' streams.
        policy: What becomes of optimizer states.
        **visit: What all visits have in common.
    """

    def __init__(
        self,
        module: L.LightningModule,
        data: Sequence[KeyedStream],
        policy: OptimizerState = "reset",
        **visit: Any,
    ) -> None:
        self.module = attached(module)
        self.optimizer: Any = module.configure_optimizers()
        self.data = data
        self.memories = [[WorkerMemory(policy) for _ in data] for _ in range(2)]
        self.visit = {"separates_metrics": True, **visit}

    def visits(self, round: int = 0, steps: int | None = None) -> list[Visit]:
        """Draw up one visit of each worker: some steps, or a local epoch."""
        lengths = [steps or stream.shard.num_batches for stream in self.data]
        return [
            Visit(round, round * length, length, 100 * round + number, **self.visit)
            for number, length in enumerate(lengths)
        ]

    def one_by_one(self, visits: Sequence[Visit]) -> list[Outcome]:
        """Carry the visits out by the sequential path; the first workers have them."""
        outcomes = []
        for stream, memory, visit in zip(self.data, self.memories[0], visits, strict=False):
            start = deepcopy(self.module.state_dict())
            report = train_locally(self.module, [self.optimizer], stream, memory, visit)
            outcomes.append(
                Outcome(
                    [parameter.detach().clone() for parameter in self.module.parameters()],
                    [buffer.clone() for buffer in self.module.buffers()],
                    report,
                    memory.state_dict(visit.round + 1),
                )
            )
            self.module.load_state_dict(start)
        return outcomes

    def at_once(
        self,
        visits: Sequence[Visit],
        chunk: int = 100,
        training: VectorisedTraining | None = None,
        **settings: Any,
    ) -> list[Outcome]:
        """Carry the visits out by the vectorised path."""
        settings = {"numbered": True, "draws": False, **settings}
        training = training or VectorisedTraining(self.module, self.optimizer, chunk=chunk, **settings)
        every = zip(self.data, self.memories[1], visits, strict=False)
        outcomes: dict[int, Outcome] = {}
        for done in training.train(SeparateErrands([Errand(*parts) for parts in every])):
            for row, number in enumerate(done.numbers):
                outcomes[number] = Outcome(
                    [parameter.clone() for parameter in done.parameters_of(row)],
                    [buffer.clone() for buffer in done.buffers_of(row)],
                    done.reports[row],
                    self.memories[1][number].state_dict(visits[0].round + 1),
                )
        return [outcomes[number] for number in range(len(visits))]


def assert_same_outcomes(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> None:
    """Check that both ways have come to the same, to 1e-10."""
    close = {"atol": 1e-10, "rtol": 1e-10}
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.parameters, their.parameters, **close)
        torch.testing.assert_close(our.buffers, their.buffers, **close)
        torch.testing.assert_close(our.report.loss, their.report.loss, **close)
        assert (our.report.steps, our.report.samples) == (their.report.steps, their.report.samples)
        assert our.report.failed == their.report.failed
        for mine, other in zip(our.report.logs, their.report.logs, strict=True):
            assert (mine.name, mine.weight, mine.reduction) == (other.name, other.weight, other.reduction)
            assert mine.settings == other.settings
            torch.testing.assert_close(mine.value, other.value, **close)
        torch.testing.assert_close(our.memory, their.memory, **close)
