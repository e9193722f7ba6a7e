"""A federation of one worker, which holds the user's own loaders: what the Trainer's loop iterates then.

The Trainer opens and reads these loaders as it would the user's; the batches stay at the worker, and what
comes here is a plan for each. How they are read there lives in ``local.lone_stream``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, SupportsIndex

from lightning_utilities.core.apply_func import apply_to_collection
from torch.utils.data import DataLoader

from fedlightning.algorithms import Assignment, LocalWork, Plan
from fedlightning.data.whole_loader import UNKNOWN, WholeLoader
from fedlightning.local.lone_stream import (
    add_loader,
    batches_taken,
    close_loaders,
    combine_loaders,
    fetch_batch,
    open_loader,
    pick_batch,
)
from fedlightning.strategy.checkpoint import FederationState
from fedlightning.strategy.errors import NotFederatable, round_failed
from fedlightning.strategy.federation import Federation
from fedlightning.workers import RemoteError, WorkerLost


class LoneTraining:
    """The loaders of one fit at its only worker, and the plans of its rounds.

    Args:
        federation: The worker.
        state: Where the run stands.
        work: Length of a visit.
        rounds_per_epoch: Rounds in one epoch; ``None`` for as many as the loaders have batches for.
        on_open: Called before a loader is opened.
        mode: Returns the mode in which Lightning combines several loaders, once all are there.
        resumes: Whether the fit goes on within an epoch, at the place that the worker's stream has kept.

    Attributes:
        keeps_places: Whether a loader keeps its own place, in the Trainer's part of a checkpoint.
    """

    def __init__(
        self,
        federation: Federation,
        state: FederationState,
        work: LocalWork,
        *,
        rounds_per_epoch: int | None,
        on_open: Callable[[], None],
        mode: Callable[[], str],
        resumes: bool = False,
    ) -> None:
        ((self._name, self._member),) = federation.members.items()
        self._state = state
        self.work = work
        self.rounds_per_epoch = rounds_per_epoch
        self.on_open = on_open
        self._mode = mode
        self._resumes = resumes
        self._lengths: list[int] = []
        self.keeps_places = False
        self._drawn: Plan | None = None
        self._plan: Plan | None = None

    def stand_in_for(self, loader: Any) -> LoneLoader:
        """Return what the Trainer iterates instead of one of the user's loaders.

        Raises:
            NotFederatable: The loader has no length, and visits are counted in its epochs.
        """
        batches = WholeLoader(loader).num_batches
        if batches == UNKNOWN and self.work.steps is None:
            raise NotFederatable(
                "the train loader has no length, so nobody can say how long a local epoch is. Use "
                "FederatedStrategy(local_steps=...), or a loader with __len__."
            )
        if self._lengths:
            worker = self._member.worker
            worker.run(add_loader, self._member.stream, worker.register(WholeLoader(loader)))
        self._lengths.append(batches)
        kind = ResumableLoader if self.shows_place_of(loader) else LoneLoader
        return kind(loader, len(self._lengths) - 1, self)

    @property
    def combined_length(self) -> int | None:
        """Batches of an epoch of several loaders, which a visit of several steps combines at the worker.

        ``None`` where the Trainer combines them, one batch of each at a time, or where there is one loader.

        Raises:
            NotFederatable: One of them has no length.
        """
        if len(self._lengths) < 2 or self.work.steps == 1:
            return None
        if UNKNOWN in self._lengths:
            raise NotFederatable(
                "one of several train loaders has no length, so nobody can say how many batches a visit of "
                "several steps has of the others. Use FederatedStrategy(local_steps=1), or loaders with "
                "__len__."
            )
        return min(self._lengths) if self._mode() == "min_size" else max(self._lengths)

    def combine(self, length: int) -> None:
        """Have visits combine the loaders at the worker."""
        self.ask(combine_loaders, self._mode(), length)

    def shows_place_of(self, loader: Any) -> bool:
        """Tell whether Lightning is to see that a loader goes on where it was; it warns of others.

        A loader that keeps its own place shows that it does, and a DataLoader's is found again by ours.
        """
        keeps_place = hasattr(loader, "state_dict")
        self.keeps_places |= keeps_place
        return self._resumes and isinstance(loader, DataLoader) and not keeps_place

    def plan_of(self, batch: Any, batch_idx: int) -> Plan:
        """Return the plan of a round, given what the Trainer has drawn: a plan per loader.

        Args:
            batch: A plan, or a collection of them.
            batch_idx: The Trainer's number of the batch within its epoch.

        Returns:
            The plan; the same one again for the same batch.
        """
        first, *others = plans_in(batch)
        if first is self._drawn and self._plan is not None:
            return self._plan
        if len(self._lengths) > 1:
            self.ask(pick_batch, apply_to_collection(batch, Plan, lambda plan: plan.loader), batch_idx)
        steps = min(plan.assignments[0].steps for plan in (first, *others))
        self._drawn, self._plan = first, self.plan(steps)
        return self._plan

    def plan(self, steps: int, *, ahead: int = 0, loader: int = 0) -> Plan:
        """Draw up the plan of the coming round, or of one that is some rounds ahead."""
        first_step = self._state.steps_done.get(self._name, 0)
        assignment = Assignment(self._name, first_step, steps)
        return Plan(self._state.round + ahead, (assignment,), self._state.seed, loader)

    def close(self) -> None:
        """Let the worker close what reading the loaders has opened; a lost one has nothing open."""
        with suppress(WorkerLost):
            self.ask(close_loaders)

    def ask(self, program: Callable[..., Any], *args: Any) -> Any:
        """Run a program on the worker's stream.

        Raises:
            RoundFailed: The user's loader raised.
        """
        try:
            return self._member.worker.run(program, self._member.stream, *args)
        except RemoteError as error:
            original = error.__cause__ or error
            raise round_failed(self._name, self._state.round, None, original) from original


class LoneLoader:
    """Stand in for a loader of the user's, whose attributes it has: callbacks look for some of them.

    Args:
        source: The user's loader.
        number: Its number among the loaders of this fit.
        training: What it belongs to.

    Attributes:
        rounds_done: Rounds completed since the epoch began.
    """

    def __init__(self, source: Any, number: int, training: LoneTraining) -> None:
        self.rounds_done = 0
        self._source = source
        self._number = number
        self._training = training
        self._alone = WholeLoader(source).num_batches
        self._position = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_source"], name)

    @property
    def _iterator(self) -> Any:
        """The iterator that a DataLoader keeps; Lightning ends its processes, and sets it to ``None``."""
        return self._source._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._source._iterator = iterator

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # Who copies or pickles a Trainer means the user's loaders: what reads them here is of this fit.
        return _itself, (self._source,)

    def __len__(self) -> int:
        rounds, batches = self._training.rounds_per_epoch, self._training.combined_length or len(self._source)
        if rounds is not None:
            return rounds
        return self._training.work.visits_per_epoch(batches) if batches else 0

    def __iter__(self) -> Iterator[Plan | None]:
        # Not a generator: the loader is opened when the Trainer opens the iterator, not at its first batch.
        self._training.on_open()
        combined = self._training.combined_length
        if combined is not None:
            self._training.combine(combined)
        self._training.ask(open_loader, self._number)
        self._position = self._training.ask(batches_taken, self._number)
        return self._plans() if combined is None else self._combined_plans()

    @property
    def _batches(self) -> int:
        return self._training.combined_length or self._alone

    def _combined_plans(self) -> Iterator[Plan]:
        """Yield as many plans as every other loader does, whichever of them is the longest."""
        for _ in range(self._rounds_before(self._position), len(self)):
            steps = self._steps_at(self._position)
            yield self._training.plan(steps, loader=self._number)
            self._position += steps

    def _plans(self) -> Iterator[Plan | None]:
        rounds, drawn = self._training.rounds_per_epoch, self._rounds_before(self._position)
        single = self._training.work.steps == 1
        # Where nobody knows which batch is the last, the Trainer draws one plan ahead of the visits.
        ahead = spoken_for = 0
        while rounds is None or drawn < rounds:
            found = self._training.ask(fetch_batch, self._number, spoken_for, not single)
            if found == "end":
                return
            if found == "nothing":
                self._position += 1
                yield None
                continue
            steps = self._steps_at(self._position)
            yield self._training.plan(steps, ahead=ahead, loader=self._number)
            self._position += steps
            drawn += 1
            if self._batches == UNKNOWN:
                ahead, spoken_for = 1, steps

    def _steps_at(self, position: int) -> int:
        work = self._training.work
        if work.steps is None:
            return work.in_steps(self._batches)
        return min(work.steps, self._batches - position % self._batches)

    def _rounds_before(self, position: int) -> int:
        rounds = seen = 0
        while seen < position:
            seen += self._steps_at(seen)
            rounds += 1
        return rounds


class ShowsPlace:
    """Show Lightning that the place within an epoch is kept, by the worker's part of the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the worker's stream is saved with the federation."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the strategy restores the worker's stream."""


class ResumableLoader(ShowsPlace, LoneLoader):
    """Stand in for a loader whose place is found again."""


def _itself(loader: Any) -> Any:
    return loader


def plans_in(batch: Any) -> list[Plan]:
    """Return the plans in what the Trainer takes for a batch: one, or a collection with one per loader."""
    if isinstance(batch, Plan):
        return [batch]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)):
        return [plan for part in batch for plan in plans_in(part)]
    return []
