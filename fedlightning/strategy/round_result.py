"""What a round's visits amount to: data, made by ``rounds`` and taken over by ``global_module``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fedlightning.algorithms import (
    ServerState,
)
from fedlightning.local.logs import LoggedValue
from fedlightning.local.metrics import MetricState
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.versions import Versions


@dataclass(frozen=True)
class RoundResult:
    """What a round's visits amount to, before anything is taken over into the global module.

    Args:
        average: Weighted mean of what came back, one tensor per parameter: gradients or parameters. Frozen
            parameters are themselves in either case.
        buffers: Weighted mean of the buffers.
        loss: Mean training loss, weighted like the average; ``None`` where every step was skipped.
        logs: What ``self.log`` was given, combined over steps and workers.
        metrics: States of torchmetrics, one group per worker; empty where they travelled in the module.
        visits: What is known of each visit, in order.
        skipped: Why a worker's update is not in the average, by worker.
        samples: Samples in the batches of all visits, counted as often as they came, as far as batches tell.
        wastes_gradients: Whether a visit ended with gradients that a module that steps by hand had not used.
        server_state: What the server keeps for its algorithm from here.
        versions: Versions of the global model that somebody under way has begun with.
    """

    average: Sequence[Tensor | None]
    buffers: Sequence[Tensor]
    loss: Tensor | None
    logs: tuple[LoggedValue, ...]
    metrics: tuple[tuple[MetricState, ...], ...]
    visits: Sequence[VisitRecord]
    skipped: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    wastes_gradients: bool = False
    server_state: ServerState = field(default_factory=dict)
    versions: Versions = field(default_factory=dict)
