"""The arguments of ``FederatedStrategy``, checked at once and kept as one frozen value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    Algorithm,
    Asynchronous,
    FedAvg,
    LocalWork,
    Participation,
    Pool,
    Sampling,
    ServerOptimizerFactory,
    ServerSchedulerFactory,
    SimulatedClock,
)
from fedlightning.algorithms.attacks import BadWorkers, Collusion
from fedlightning.algorithms.postprocessing import Postprocessing
from fedlightning.data import IID, Partitioner
from fedlightning.data.map_style import check_map_style
from fedlightning.local.memory import OptimizerState
from fedlightning.local.vectorised.trial import Wish
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.workers import VirtualWorker, Worker

Update = Literal["averaged", "sequential"]
"""How the module learns from several workers: in rounds that are averaged, or from one after the other."""

Aggregator = Worker | Literal["rotating"]
"""Who combines updates in place of the controller: a worker, or in each round another one of its cohort."""


@dataclass(frozen=True)
class FederationSettings:
    """Everything that a user may set; the arguments are those of ``FederatedStrategy``."""

    workers: int | Sequence[Worker] | None
    partition: Partitioner | None
    update: Update
    cohort_size: int | None
    rounds_per_epoch: int | None
    local_steps: int | None
    local_epochs: int | None
    optimizer_state: OptimizerState | None
    algorithm: Algorithm
    server_optimizer: ServerOptimizerFactory | None
    server_scheduler: ServerSchedulerFactory | None
    sampling: Sampling | None
    participation: Sequence[Participation] | None
    clock: SimulatedClock | None
    asynchronous: Asynchronous | None
    postprocess: Postprocessing | None
    downlink: Postprocessing | None
    bad_workers: BadWorkers | None
    aggregation: AggregationRule | None
    root_data: Dataset[Any] | int | None
    aggregator: Aggregator | None
    tolerance: Tolerance
    vectorize: Wish
    compile: bool
    processes: int | None
    seed: int | None

    def __post_init__(self) -> None:
        _check_choice("update", self.update, get_args(Update))
        if self.optimizer_state is not None:
            _check_choice("optimizer_state", self.optimizer_state, get_args(OptimizerState))
        for name in ("cohort_size", "rounds_per_epoch", "local_steps", "local_epochs", "processes"):
            _check_count(name, getattr(self, name))
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise TypeError(
                f"seed must be a whole number, or None for that of seed_everything, got {self.seed!r}."
            )
        self._check_workers()
        if self.partition is not None and not isinstance(self.partition, Partitioner):
            raise TypeError(
                f"partition must be a Partitioner such as fedlightning.data.Dirichlet(alpha=0.3), "
                f"got {self.partition!r}."
            )
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError(
                f"local_steps={self.local_steps} and local_epochs={self.local_epochs} are both given: a "
                "visit is counted in steps or in epochs. Leave one of them out."
            )
        if not isinstance(self.algorithm, Algorithm):
            raise TypeError(
                f"algorithm must be one such as fedlightning.algorithms.FedProx(mu=0.01), got "
                f"{self.algorithm!r}."
            )
        self._check_sampling()
        self._check_participation()
        self._check_asynchronous()
        if self.postprocess is not None and not isinstance(self.postprocess, Postprocessing):
            raise TypeError(
                "postprocess must be a list of postprocessors such as "
                "[fedlightning.algorithms.postprocessing.TopK(fraction=0.01)], or a Postprocessing of such, "
                f"got {self.postprocess!r}."
            )
        if self.bad_workers is not None and not isinstance(self.bad_workers, BadWorkers):
            raise TypeError(
                "bad_workers must be a fedlightning.algorithms.attacks.BadWorkers, such as "
                f"BadWorkers(SignFlip(), share=0.2), got {self.bad_workers!r}."
            )
        self._check_aggregation()
        self._check_downlink()
        self._check_root_data()
        self._check_aggregator()
        if not isinstance(self.tolerance, Tolerance):
            raise TypeError(f"tolerance must be a fedlightning.Tolerance, got {self.tolerance!r}.")
        if isinstance(count := self.cohort_size, int) and self.tolerance.min_cohort > count:
            raise ValueError(
                f"tolerance has min_cohort={self.tolerance.min_cohort}, and cohort_size={count} workers take "
                "part in a round. Lower the one or raise the other."
            )
        self._check_server_optimizer()
        _check_wish(self.vectorize)
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, got {self.compile!r}.")
        self._check_processes()
        self._check_server_scheduler()
        if self.update == "averaged" and self.optimizer_state == "travel" and not self.steps_at_controller:
            raise ValueError(
                "optimizer_state='travel' lets the optimizer's state go from worker to worker, and under "
                "update='averaged' all workers start at once. Use 'reset' or 'keep', or update='sequential'."
            )

    @override
    def __str__(self) -> str:
        """Return what was set, as arguments of a call; what is None is left out."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        usual = (None, FedAvg())
        return ", ".join(f"{name}={value!r}" for name, value in given if value not in usual)

    @property
    def work(self) -> LocalWork:
        """Length of a visit; one local epoch unless given."""
        return LocalWork(steps=self.local_steps, epochs=self.local_epochs or 1)

    @property
    def steps_at_controller(self) -> bool:
        """Whether gradients come back, and the user's optimizer steps at the controller."""
        return (
            self.local_steps == 1
            and self.algorithm.gradients_will_do
            and self.algorithm.buffers == "average"
            and self.postprocess is None
            and self.downlink is None
            and self.bad_workers is None
            and self.asynchronous is None
            and self.server_optimizer is None
            and self.optimizer_state in (None, "travel")
        )

    @property
    def plain(self) -> bool:
        """Whether rounds are the steps of an ordinary fit: there is nobody else, and nothing in between."""
        harmless = {"workers", "partition", "update", "cohort_size", "local_steps", "optimizer_state", "seed"}
        harmless |= {"vectorize", "processes"}  # with one worker, there is nothing to divide
        others = (getattr(self, field.name) for field in fields(self) if field.name not in harmless)
        return (
            self.workers == 1
            and self.steps_at_controller
            and (self.partition is None or isinstance(self.partition, IID))
            and all(value in (None, False, FedAvg(), Tolerance()) for value in others)
        )

    @property
    def local_optimizer_state(self) -> OptimizerState:
        """What becomes of local optimizer states: as given, or what is usual for the update."""
        if self.optimizer_state is not None:
            return self.optimizer_state
        return "travel" if self.update == "sequential" else "reset"

    def _check_workers(self) -> None:
        count = len(self.workers) if isinstance(self.workers, Sequence) else self.workers
        if isinstance(count, bool) or not (count is None or isinstance(count, int)):
            raise TypeError(
                f"workers must be a number of virtual workers or a list of workers, got {self.workers!r}."
            )
        if count is not None and count < 1:
            raise ValueError(
                f"workers={self.workers!r}: a federation needs at least one worker. Give a number such as "
                "workers=10, or a list of workers."
            )
        if isinstance(self.workers, Sequence):
            _check_names(self.workers)
        if self.cohort_size is not None and count is not None and self.cohort_size > count:
            raise ValueError(cohort_too_large(self.cohort_size, count))

    def _check_sampling(self) -> None:
        if self.sampling is None:
            return
        if not isinstance(self.sampling, Sampling):
            raise TypeError(
                f"sampling must be a way of sampling such as fedlightning.algorithms.WeightedSampling(), got "
                f"{self.sampling!r}."
            )
        self.sampling.check_size(self.cohort_size)
        if self.update == "sequential" and self.sampling.needs_average:
            raise ValueError(
                f"sampling={self.sampling!r} draws for rounds that are averaged, and update='sequential' "
                "visits one worker after the other. Use update='averaged', or another way of sampling."
            )
        if isinstance(self.workers, Sequence):
            names = sorted(worker.id for worker in self.workers)
            # What lies at them is looked at when a fit begins.
            self.sampling.check(Pool(names, samples={}, tagged=lambda tags: names), self.cohort_size)

    def _check_participation(self) -> None:
        if self.clock is not None and not isinstance(self.clock, SimulatedClock):
            raise TypeError(
                "clock must be one such as fedlightning.algorithms.SimulatedClock(seconds_per_step=0.1), "
                f"got {self.clock!r}."
            )
        for part in self.participation or ():
            if not isinstance(part, Participation):
                raise TypeError(
                    "participation must be such as fedlightning.algorithms.Stragglers(share=0.5), or a list "
                    f"of such, got {part!r}."
                )
            if self.update == "sequential":
                raise ValueError(
                    f"participation={part!r} is about rounds of a cohort, and update='sequential' visits one "
                    "worker after the other. Use update='averaged', or leave participation out."
                )
            if part.needs_clock and self.clock is None:
                raise ValueError(
                    f"participation={part!r} goes by when updates arrive, and there is no clock. Use "
                    "clock=SimulatedClock(seconds_per_step=LogNormal(0.1, 0.5)), or other profiles."
                )
            part.asked(self.cohort_size)
            if isinstance(self.workers, Sequence):
                names = sorted(worker.id for worker in self.workers)
                part.check(Pool(names, samples={}))

    def _check_asynchronous(self) -> None:
        if self.asynchronous is None:
            return
        if not isinstance(self.asynchronous, Asynchronous):
            raise TypeError(
                "asynchronous must be such as fedlightning.algorithms.FedBuff(buffer=10), got "
                f"{self.asynchronous!r}."
            )
        for name, odd, why in (
            ("update", self.update == "sequential", "has nobody under way beside the worker that is visited"),
            ("aggregator", self.aggregator is not None, "sees the updates of one round, from one start"),
            ("participation", self.participation is not None, "is about rounds of a cohort"),
            ("postprocess", self.postprocess is not None, "is undone from one start for all"),
            ("downlink", self.downlink is not None, "sends what has changed up to one version for all"),
            ("sampling", self._draws_for_average, "draws for rounds of a cohort"),
        ):
            if odd:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} {why}, and does not go with asynchronous="
                    f"{self.asynchronous!r}. Leave one of the two out."
                )
        if isinstance(getattr(self.bad_workers, "attack", None), Collusion):
            raise ValueError(
                f"bad_workers={self.bad_workers!r} agree within a cohort, and under asynchronous="
                f"{self.asynchronous!r} nobody knows who arrives with whom. Use an attack of single workers."
            )
        count = len(self.workers) if isinstance(self.workers, Sequence) else self.workers
        if (concurrency := self.cohort_size or count) is not None:
            check_buffer(self.asynchronous, concurrency)

    @property
    def _draws_for_average(self) -> bool:
        return self.sampling is not None and self.sampling.needs_average

    def _check_aggregation(self) -> None:
        if self.aggregation is None:
            return
        if not isinstance(self.aggregation, AggregationRule):
            raise TypeError(
                f"aggregation must be a rule such as fedlightning.algorithms.Median(), got "
                f"{self.aggregation!r}."
            )
        if self.update == "sequential":
            raise ValueError(
                "aggregation is given, but update='sequential' has nothing to combine: the module goes from "
                "worker to worker. Use update='averaged', or leave aggregation out."
            )
        count = len(self.workers) if isinstance(self.workers, Sequence) else self.workers
        if (cohort := self.cohort_size or count) is not None:
            self.aggregation.check_cohort(cohort)

    def _check_downlink(self) -> None:
        if self.downlink is None:
            return
        if not isinstance(self.downlink, Postprocessing) or self.downlink.error_feedback:
            raise TypeError(
                "downlink must be a list of postprocessors such as "
                "[fedlightning.algorithms.postprocessing.Quantize(bits=8)]; what they lose is made up for in "
                f"any case. Got {self.downlink!r}."
            )
        if self.update == "sequential":
            raise ValueError(
                "downlink is given, but under update='sequential' the module goes from worker to worker, "
                "and each gets another one. Use update='averaged', or leave downlink out."
            )

    def _check_root_data(self) -> None:
        needed = self.aggregation is not None and self.aggregation.needs_root
        if self.root_data is None:
            if needed:
                raise ValueError(
                    f"aggregation={self.aggregation!r} compares updates with what the server trains on clean "
                    "data of its own, and there is none. Give root_data: a data set, or a number such as 100 "
                    "to draw from the training data."
                )
            return
        if isinstance(self.root_data, int):
            _check_count("root_data", self.root_data)
        else:
            check_map_style(self.root_data)
        if not needed:
            raise ValueError(
                f"root_data is given, but aggregation={self.aggregation!r} has no use for it. Use "
                "aggregation=FLTrust(), or leave root_data out."
            )

    def _check_aggregator(self) -> None:
        if self.aggregator is None:
            return
        if not isinstance(self.aggregator, Worker) and self.aggregator != "rotating":
            raise TypeError(
                "aggregator must be a Worker such as VirtualWorker(id='trusted'), or 'rotating' for another "
                f"one of the workers in each round, got {self.aggregator!r}."
            )
        if self.update == "sequential":
            raise ValueError(
                "aggregator is given, but update='sequential' has nothing to average: the module goes from "
                "worker to worker. Use update='averaged', or leave aggregator out."
            )
        workers = self.workers if isinstance(self.workers, Sequence) else []
        if not isinstance(self.aggregator, Worker):
            return
        if any(worker.id == self.aggregator.id and worker is not self.aggregator for worker in workers):
            raise ValueError(
                f"aggregator has the id {self.aggregator.id!r} of another one of the workers. Give it an id "
                "of its own, or give the same worker."
            )

    def _check_processes(self) -> None:
        count = self.processes
        if count is None or count == 1:
            return
        if self.update == "sequential":
            raise ValueError(
                f"processes={count} visit several workers at once, and under update='sequential' each visit "
                "starts where the last one has ended. Use update='averaged', or leave processes out."
            )
        for name, given in (
            ("aggregator", self.aggregator is not None),
            ("downlink", self.downlink is not None),
            ("asynchronous", self.asynchronous is not None),
        ):
            if given:
                raise ValueError(
                    f"processes={count} and {name}={getattr(self, name)!r} do not go together: in other "
                    f"processes, one visit follows the other, for the controller. Leave one of the two out."
                )
        others = self.workers if isinstance(self.workers, Sequence) else []
        if elsewhere := [one for one in others if not isinstance(one, VirtualWorker)]:
            raise ValueError(
                f"processes={count} are for virtual workers, and {elsewhere[0].id!r} is a "
                f"{type(elsewhere[0]).__name__}, which has a place of its own. Leave processes out."
            )

    def _check_server_optimizer(self) -> None:
        if self.server_optimizer is None:
            return
        if not callable(self.server_optimizer):
            raise TypeError(
                f"server_optimizer must build an optimizer from parameters, e.g. "
                f"functools.partial(torch.optim.Adam, lr=0.01), got {self.server_optimizer!r}."
            )
        if self.update == "sequential":
            raise ValueError(
                "server_optimizer is given, but update='sequential' has no average to step along. Use "
                "update='averaged', or leave server_optimizer out."
            )

    def _check_server_scheduler(self) -> None:
        schedule = self.server_scheduler
        if schedule is None:
            return
        if not callable(schedule):
            raise TypeError(
                f"server_scheduler must build a scheduler from an optimizer, e.g. "
                f"functools.partial(torch.optim.lr_scheduler.LinearLR, total_iters=20), got {schedule!r}."
            )
        if self.server_optimizer is None:
            raise ValueError(
                "server_scheduler is given, but there is no server_optimizer whose learning rate it could "
                "set. Use server_optimizer=functools.partial(torch.optim.SGD, lr=1.0), or leave it out."
            )
        if getattr(schedule, "func", schedule) is ReduceLROnPlateau:
            raise ValueError(
                "server_scheduler steps after each round, when there is no metric for ReduceLROnPlateau to "
                "go by. Use a schedule over rounds, or ReduceLROnPlateau in configure_optimizers."
            )


def check_buffer(asynchronous: Asynchronous, concurrency: int) -> None:
    """Refuse a buffer that would never be full.

    Args:
        asynchronous: The server.
        concurrency: How many workers are under way at a time.

    Raises:
        ValueError: They are fewer than the buffer has room for.
    """
    if asynchronous.buffer > concurrency:
        raise ValueError(
            f"asynchronous has buffer={asynchronous.buffer}, and at most {concurrency} workers are under way "
            f"at a time. Use a buffer of at most {concurrency}, a larger cohort_size, or more workers."
        )


def cohort_too_large(cohort_size: int, workers: int) -> str:
    """Return the message for a cohort that there are not enough workers for."""
    return (
        f"cohort_size={cohort_size} is larger than the number of workers ({workers}). "
        f"Use at most {workers}, or leave it out to take all of them."
    )


def _check_wish(value: object) -> None:
    if value == "auto" or isinstance(value, bool) or (isinstance(value, int) and value >= 1):
        return
    raise ValueError(
        f"vectorize must be 'auto', True, False or how many workers take their steps together, at least 1; "
        f"got {value!r}."
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _check_count(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of at least 1 or None, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}. Leave it out for the default.")


def _check_names(workers: Sequence[object]) -> None:
    strangers = [worker for worker in workers if not isinstance(worker, Worker)]
    if strangers:
        raise TypeError(
            f"workers must be Worker objects such as VirtualWorker(id='bob'), got {strangers[0]!r}."
        )
    counts = Counter(worker.id for worker in workers if isinstance(worker, Worker))
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(
            f"workers has the id {twice[0]!r} more than once: results and ledgers are kept by id. "
            "Give each worker an id of its own."
        )
