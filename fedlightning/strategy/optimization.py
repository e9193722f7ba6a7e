"""The user's optimizers and schedulers during a round: every worker starts with the settings of the round.

Optimizer *states* (momentum) are kept by the workers' memories; this module handles learning rates and other
settings of parameter groups, and the schedulers that a module steps itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fedlightning.local.scheduling import SchedulerState, describe_schedulers
from fedlightning.workers import VirtualWorker, Worker

States: TypeAlias = "defaultdict[Any, Any]"
"""The states of an optimizer, by parameter."""


class Optimization:
    """What goes along with the module to the workers.

    Args:
        optimizers: The optimizers of ``configure_optimizers``.
        schedulers: Those schedulers that the module steps itself, under manual optimization. Lightning steps
            all others between rounds.
        keeps_settings: Whether settings that a visit leaves hold on after the round, as they do when the
            optimizer travels or the module steps its own schedulers; otherwise the round's are restored.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        schedulers: Sequence[LRScheduler] = (),
        *,
        keeps_settings: bool,
    ) -> None:
        self.optimizers = optimizers
        self._schedulers = schedulers
        self._keeps_settings = keeps_settings
        self._start: list[Any] = []
        self._end: list[Any] = []
        self._longest = 0

    def leaving_no_settings(self) -> Optimization:
        """Return the same for work whose settings are not to hold after it."""
        return Optimization(self.optimizers, self._schedulers, keeps_settings=False)

    @contextmanager
    def one_round(self) -> Iterator[None]:
        """Note the settings of the round, and leave those that hold after it."""
        self._start, self._longest = self._capture(), 0
        self._end = self._start
        try:
            yield
        except BaseException:
            self._restore(self._start)
            raise
        self._restore(self._end if self._keeps_settings else self._start)

    @property
    def settings(self) -> Any:
        """The settings of now, as plain values."""
        return self._capture()

    @contextmanager
    def starting_from(self, settings: Any) -> Iterator[None]:
        """Start the visits of the block with settings of another round."""
        of_round, self._start = self._start, settings
        try:
            yield
        finally:
            self._start = of_round

    @contextmanager
    def one_visit(self, steps: int) -> Iterator[None]:
        """Start a visit with the settings of the round; the longest visit decides what holds after.

        If the block raises, settings and states are as before it.
        """
        self._restore(self._start)
        states = self._copied_states()
        try:
            yield
        except BaseException:
            self._go_back(self._start, states)
            raise
        if self._keeps_settings and steps > self._longest:
            self._end, self._longest = self._capture(), steps

    def begin_visit(self) -> None:
        """Start a visit, as `one_visit` does, that leaves neither settings nor states."""
        self._restore(self._start)

    @property
    def keeps_settings(self) -> bool:
        """Whether settings that a visit leaves hold on after the round."""
        return self._keeps_settings

    def note_visit(self, steps: int, settings: Any, schedulers: Sequence[SchedulerState]) -> None:
        """Take note of a visit in another process; the longest visit decides what holds after.

        Args:
            steps: Its steps.
            settings: Those of the optimizers at its end.
            schedulers: As it has left those that the module steps itself.
        """
        if steps > self._longest:
            self._end, self._longest = [settings, [one.state for one in schedulers]], steps

    def travelling_schedulers(self) -> tuple[SchedulerState, ...]:
        """Return the schedulers that the module steps itself, as they travel.

        Raises:
            UnsendableError: One does not travel; names it.
        """
        return describe_schedulers(self._schedulers, self.optimizers)

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Go back to the settings and states of now if the block raises."""
        settings, states = self._capture(), self._copied_states()
        try:
            yield
        except BaseException:
            self._go_back(settings, states)
            raise

    def schedulers_for(self, worker: Worker) -> tuple[SchedulerState, ...]:
        """Return the schedulers that the module steps itself, as they travel; none where they are at hand.

        Raises:
            UnsendableError: One does not travel; names it.
        """
        if isinstance(worker, VirtualWorker):
            return ()
        return self.travelling_schedulers()

    def take_schedulers(self, states: Sequence[SchedulerState]) -> None:
        """Take over what a visit elsewhere has left of them."""
        for scheduler, travelled in zip(self._schedulers, states, strict=False):
            scheduler.load_state_dict(travelled.state)

    def _copied_states(self) -> list[States]:
        return [_copied_state(optimizer) for optimizer in self.optimizers]

    def _go_back(self, settings: list[Any], states: list[States]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.state = state
        self._restore(settings)

    def _capture(self) -> list[Any]:
        settings = [_settings_of(optimizer) for optimizer in self.optimizers]
        return [settings, [deepcopy(scheduler.state_dict()) for scheduler in self._schedulers]]

    def _restore(self, captured: list[Any]) -> None:
        groups, states = captured
        for optimizer, settings in zip(self.optimizers, groups, strict=True):
            for group, before in zip(optimizer.param_groups, settings, strict=True):
                _restore_group(group, before)
        for scheduler, state in zip(self._schedulers, states, strict=True):
            scheduler.load_state_dict(deepcopy(state))


def _copied_state(optimizer: Optimizer) -> States:
    # By parameter, which is no copy: states that travel are there before the visit, others are made in it.
    return defaultdict(dict, {parameter: deepcopy(state) for parameter, state in optimizer.state.items()})


def _settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [
        {name: _kept(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def _restore_group(group: dict[str, Any], before: Mapping[str, Any]) -> None:
    for name, value in before.items():
        # Most visits change nothing, and this is done before each.
        if type(value) not in _FIXED:
            group[name] = deepcopy(value)
        elif group.get(name) is not value:
            group[name] = value


def _kept(value: Any) -> Any:
    """Return a copy of what could be changed in place, such as a learning rate in a tensor."""
    return value if type(value) in _FIXED else deepcopy(value)


_FIXED = frozenset((type(None), bool, int, float, str))
