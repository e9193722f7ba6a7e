"""The federation's part of a checkpoint: all that decides the next round, as tensors and plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fedlightning._version import __version__
from fedlightning.algorithms import Flights, Plan, UniformSampling
from fedlightning.data.map_style import check_map_style
from fedlightning.strategy.errors import NotFederatable
from fedlightning.strategy.federation import Federation, digest_of
from fedlightning.strategy.records import VisitRecord
from fedlightning.strategy.settings import FederationSettings
from fedlightning.strategy.traffic import Traffic
from fedlightning.strategy.visit_columns import VisitColumns

FORMAT = 1
"""Raised when what is saved can no longer be read by earlier versions, or theirs no longer by this one."""

MAX_LISTED = 1000
"""Up to so many workers are listed in a checkpoint, to say what is another one's; of more it has a digest."""


class FederationState:
    """The cursor of a run: everything that plans depend on, besides the settings."""

    def __init__(self) -> None:
        self.seed = 0
        self.round = 0
        self.steps_done: dict[str, int] = {}
        self.losses: dict[str, float] = {}
        self.traffic: Traffic | None = None
        self.flights = Flights()

    def start(self, seed: int | None) -> None:
        """Begin a run.

        Args:
            seed: The run's seed; ``None`` for that of torch's global generator, which is not drawn from.
        """
        self.seed = seed if seed is not None else torch.initial_seed()
        self.round = 0
        self.steps_done = {}
        self.losses = {}
        self.traffic = None
        self.flights = Flights()

    def complete(self, plan: Plan, visits: Sequence[VisitRecord]) -> None:
        """Move past a round that was taken over.

        Args:
            plan: The round.
            visits: Its visits, whose losses and bytes may decide who takes part in later rounds.
        """
        if isinstance(visits, VisitColumns):
            self.losses.update(zip(visits.workers, visits.losses.tolist(), strict=True))
            ends = (visits.bytes_up, visits.bytes_down)
            self.traffic = Traffic(*(int(of_each.max(initial=0)) for of_each in ends))
        elif visits:
            self.losses.update({visit.worker: visit.loss for visit in visits if visit.loss is not None})
            up, down = (max(getattr(v, name) for v in visits) for name in ("bytes_up", "bytes_down"))
            self.traffic = Traffic(up, down)
        self.round = plan.round + 1
        self.flights = plan.flights
        for assignment in plan.assignments:
            self.steps_done[assignment.worker] = assignment.first_step + assignment.steps

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        return {
            "seed": self.seed,
            "round": self.round,
            "steps_done": dict(self.steps_done),
            "losses": dict(self.losses),
            "flights": self.flights.state_dict(),
            "traffic": None if self.traffic is None else [self.traffic.up, self.traffic.down],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        self.seed = state["seed"]
        self.round = state["round"]
        self.steps_done = dict(state["steps_done"])
        self.losses = dict(state.get("losses", {}))  # the first checkpoints had none
        self.traffic = Traffic(*state["traffic"]) if state.get("traffic") else None
        self.flights = Flights.from_state(state["flights"]) if "flights" in state else Flights()


def identity_of(settings: FederationSettings, federation: Federation) -> dict[str, Any]:
    """Return what a federation must have in common with a checkpoint to go on from it: what decides its bits.

    How far a run goes and who watches it may change: ``max_epochs``, loggers and callbacks, ``tolerance``,
    ``aggregator``, ``rounds_per_epoch``. The seed is checked on its own, the server optimizer by itself.
    """
    work, workers = settings.work, len(federation.samples)
    # Data that owners have placed at workers themselves is known by its sizes alone.
    partition = {} if federation.fingerprint is None else {"partition": federation.fingerprint}
    root = settings.root_data
    return {
        "update": settings.update,
        "algorithm": settings.algorithm.identity,
        "what comes back": "gradients" if settings.steps_at_controller else "parameters",
        "postprocess": None if settings.postprocess is None else repr(settings.postprocess),
        "downlink": None if settings.downlink is None else repr(settings.downlink),
        "bad workers": None if settings.bad_workers is None else repr(settings.bad_workers),
        "aggregation": None if settings.aggregation is None else repr(settings.aggregation),
        "samples of root data": root if root is None or isinstance(root, int) else check_map_style(root),
        "optimizer_state": settings.local_optimizer_state,
        "samples": _in_few_words(federation),
        **_order_of_visits(settings, federation),
        **partition,
        "local_steps": work.steps,
        "local_epochs": work.epochs if work.steps is None else None,
        "cohort_size": min(settings.cohort_size or workers, workers),
        "participation": [part.identity for part in settings.participation or ()],
        "asynchronous": None if settings.asynchronous is None else settings.asynchronous.identity,
        "clock": None if settings.clock is None else settings.clock.identity,
        "sampling": (settings.sampling or UniformSampling()).identity,
        # A lone worker's loader is as free as that of an ordinary fit, and may not have a length.
        "batches per local epoch": None if federation.alone else sum(federation.batches.values()),
    }


def _in_few_words(federation: Federation) -> dict[str, int] | str:
    """Return the workers' numbers of samples; a digest of them where a list would outgrow the module."""
    few = len(federation.samples) <= MAX_LISTED
    return dict(federation.samples) if few else federation.digest


def _order_of_visits(settings: FederationSettings, federation: Federation) -> dict[str, list[str]]:
    """Return by whose names a sequential run goes: in the first checkpoints in the order of a list."""
    few = len(federation.samples) <= MAX_LISTED
    return {"order of visits": sorted(federation.samples)} if settings.update == "sequential" and few else {}


def check_identity(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare a checkpoint's federation with the one at hand.

    Args:
        saved: What ``identity_of`` gave when it was saved; earlier versions left some of it out.
        expected: What it gives now.

    Raises:
        NotFederatable: They differ; names what.
    """
    for name, value in expected.items():
        before = saved.get(name, value)
        if name == "samples" and isinstance(value, str) and isinstance(before, Mapping):
            before = digest_of(before)  # earlier versions listed any number of workers
        if name == "algorithm":  # it may have settings that earlier versions did not know
            before = {**value, **before}
        if before != value:
            raise NotFederatable(
                f"the checkpoint is of another federation: its {name} is {before!r}, and this fit "
                f"has {value!r}. Use the same workers, data, partition and settings to go on, or "
                "load the weights alone."
            )


def check_seed(saved: int, asked: int | None) -> None:
    """Compare a checkpoint's seed with the one that the strategy was given, if any.

    Raises:
        NotFederatable: They differ.
    """
    if asked not in (None, saved):
        raise NotFederatable(
            f"the checkpoint is of a run with seed={saved}, and this fit has seed={asked}. Use the same "
            "seed, or none, to go on, or load the weights alone."
        )


def check_format(saved: Mapping[str, Any]) -> None:
    """Check that this version reads a checkpoint's federation.

    Raises:
        NotFederatable: It was written by another version, in a format that this one does not read; names it.
    """
    if saved.get("format") == FORMAT:
        return
    writer = saved.get("version", "of an unknown version")
    raise NotFederatable(
        f"the checkpoint's federation has format {saved.get('format')!r}, and fedlightning {__version__} "
        f"reads format {FORMAT}. It was written by fedlightning {writer}: install that version to go on, or "
        "load the weights alone."
    )
