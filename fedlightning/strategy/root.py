"""The server's own data: a worker beside the federation, which trains in each round for a rule to judge by.

What such a rule makes of it is in ``algorithms.trust``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from fedlightning.algorithms import Assignment, LocalWork, Plan
from fedlightning.data import FederatedDataLoader, LoaderSettings, Shard
from fedlightning.data.map_style import check_map_style
from fedlightning.data.order import count_batches
from fedlightning.strategy.errors import NotFederatable
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.roster import Roster
from fedlightning.strategy.settings import FederationSettings
from fedlightning.workers import VirtualWorker, Worker
from fedlightning.workers.random import derive_seed

NAME = "root data"


@dataclass(frozen=True)
class Root:
    """Where the server's own update comes from.

    Args:
        federation: One worker, which holds the root data; it is no member of the other federation.
        work: Length of its visits, as everybody's.
    """

    federation: Federation
    work: LocalWork

    @classmethod
    def of(cls, settings: FederationSettings, loaders: Sequence[Any], seed: int) -> Root | None:
        """Place the root data, to be read as the train loader reads.

        Args:
            settings: Settings of the run.
            loaders: Its train loaders.
            seed: Its seed.

        Returns:
            ``None`` where there is no root data.

        Raises:
            NotFederatable: There are several train loaders, or it is to be drawn from data that lies at
                workers.
        """
        if settings.root_data is None:
            return None
        if len(loaders) > 1:
            raise NotFederatable(
                f"root_data is one data set, and batches come from {len(loaders)} train loaders. Use one "
                "loader, or another rule of aggregation."
            )
        federation = Federation(
            _roster(_data_of(settings.root_data, loaders[0], seed), loaders[0]),
            seed=seed,
            optimizer_state=settings.local_optimizer_state,
            alone=False,
        )
        return cls(federation, settings.work)

    def plan(self, plan: Plan) -> Plan:
        """Return what is done with the root data in a round, given what the workers do."""
        steps = self.work.in_steps(self.federation.batches[NAME])
        return Plan(plan.round, (Assignment(NAME, plan.round * steps, steps),), plan.seed)


def _data_of(root_data: Dataset[Any] | int, loader: Any, seed: int) -> Any:
    """Return the root data, which a number has drawn uniformly (section V-A of the paper, its case I)."""
    if not isinstance(root_data, int):
        return root_data
    if isinstance(loader, FederatedDataLoader):
        raise NotFederatable(
            f"root_data={root_data} is to be drawn from data that lies at workers and does not leave them. "
            "Give a data set of the server's own."
        )
    there = check_map_style(loader.dataset)
    if root_data > there:
        raise NotFederatable(
            f"root_data={root_data} is more than the {there} samples of the train loader. Use fewer."
        )
    drawn = np.random.default_rng(derive_seed(seed, NAME)).choice(there, root_data, replace=False)
    return Subset(loader.dataset, drawn.tolist())


def _roster(data: Any, loader: Any) -> Roster:
    federated = isinstance(loader, FederatedDataLoader)
    settings = loader.settings if federated else LoaderSettings.from_loader(loader)
    shard = Shard(data, settings)
    batches = count_batches(shard.num_samples, settings.batch_size, settings.drop_last)

    def place(name: str) -> tuple[Worker, Any]:
        worker = VirtualWorker(id=name)
        return worker, worker.register(shard, tags=("shard",), keep=False)

    return Roster({NAME: shard.num_samples}, {NAME: batches}, place, at_once=False)
