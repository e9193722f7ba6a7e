"""Stand-ins for the torchmetrics of a module while a step is recorded: the calls are no part of its tape.

They are made when it is recorded, and again, on other tensors, when it is played.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchmetrics import Metric, MetricCollection
from typing_extensions import override

from fedlightning.local.known import known
from fedlightning.local.one_by_one.step_notes import Counted, StepNotes
from fedlightning.local.tapes.readings import Beside
from fedlightning.local.tapes.torch_settings import settings_now
from fedlightning.local.vectorised.metric_calls import BatchValue, Counter, StandIns, described, stood_in
from fedlightning.local.vectorised.refusal import NotBatchable

_OF_METRICS = ("forward", "update", "compute", "reset")
_OF_COLLECTIONS = (*_OF_METRICS, "items")
_COUNTING = ("forward", "update", "items")

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_SETTINGS = frozenset({"prefix", "postfix", "_enable_compute_groups"})
"""What ``LightningModule.log_dict`` reads of a collection, and what names in it depend on."""


def beside(module: nn.Module) -> Beside:
    """Return the torchmetrics of a module, whose calls are made beside a tape.

    Args:
        module: The module.
    """
    return Beside(counters_of(module), frozenset(_OF_COLLECTIONS), _SETTINGS)


def counters_of(module: nn.Module) -> list[Counter]:
    """Return the torchmetrics and the collections of a module.

    Args:
        module: The module.
    """
    looked_up = known(module)
    return [*(metric for _, metric in looked_up.metrics), *looked_up.collections]


class _Calls(ABC):
    """Note the calls of torchmetrics within a block.

    Args:
        counters: The metrics, and collections of some.

    Attributes:
        notes: What the step asks for.
        why_not: What keeps the calls from being made beside a tape; empty if nothing does.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self.notes = StepNotes()
        self.why_not = ""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is asked for within the block."""
        with stood_in((counter, self._stand_ins_for(counter)) for counter in self._counters):
            yield

    def _stand_ins_for(self, counter: Counter) -> StandIns:
        methods = _OF_METRICS if isinstance(counter, Metric) else _OF_COLLECTIONS
        return {method: partial(self._call, counter, method) for method in methods}

    @abstractmethod
    def _call(self, counter: Counter, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Do what a call of a method comes to."""

    def _refuse(self, reason: str) -> None:
        self.why_not = self.why_not or reason


class MadeCalls(_Calls):
    """Note calls that are made.

    Args:
        counters: As of the class above.
        apart: Returns within what they are made.
    """

    def __init__(
        self, counters: Sequence[Counter], apart: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(counters)
        self._apart = apart
        self._settings = _settings_now()
        self._stood_in = ExitStack()
        self._random: Tensor | None = None

    @contextmanager
    @override
    def noted(self) -> Iterator[None]:
        self._stand_in()
        try:
            yield
        finally:
            self._stood_in.close()

    def _stand_in(self) -> None:
        self._stood_in.enter_context(super().noted())

    @contextmanager
    def _without_stand_ins(self) -> Iterator[None]:
        """Let metrics be themselves within the block, where they call each other."""
        self._stood_in.close()
        try:
            yield
        finally:
            self._stand_in()

    def check_order(self, random: Tensor) -> None:
        """Refuse steps that draw random numbers after the first call, since calls are made after a tape.

        Args:
            random: State of torch's default generator after the step.
        """
        if self._random is not None and not torch.equal(self._random, random):
            self._refuse("random numbers are drawn after a torchmetric has counted")

    @override
    def _call(self, counter: Counter, method: str, /, *args: Any, **kwargs: Any) -> Any:
        if method not in _COUNTING:
            self._refuse(f"training_step calls {type(counter).__name__}.{method}")
        if _settings_now() != self._settings:
            self._refuse("torch's settings are others where a torchmetric counts")
        if self._random is None:
            self._random = torch.get_rng_state()
        described_now = None
        try:
            call, tensors = described(counter, method, args, kwargs)
            described_now = call, [tensor.detach().clone() for tensor in tensors]
        except Exception as error:  # noqa: BLE001  # only the metric may say what is wrong with a call
            self._refuse(str(error))
        with self._apart(), self._without_stand_ins():
            returned = getattr(counter, method)(*args, **kwargs)
            if method == "items":
                returned = list(returned)
        if described_now is not None:
            self.notes.notes.append(Counted(*described_now, returned))
        return returned


class WithheldCalls(_Calls):
    """Note calls that are not made: what was returned when they were is stood for.

    Args:
        counters: As of the class above.
        made: The calls when they were made.
        want: Is told of the tensors that metrics are given, at the time.
    """

    def __init__(
        self, counters: Sequence[Counter], made: Sequence[Counted], want: Callable[[Tensor], None]
    ) -> None:
        super().__init__(counters)
        self._made = made
        self._want = want

    @contextmanager
    @override
    def noted(self) -> Iterator[None]:
        with super().noted(), self._states_hidden():
            yield

    @contextmanager
    def _states_hidden(self) -> Iterator[None]:
        """Let nothing else of metrics be looked at within the block: it would be what it was before."""
        shown = _OF_EVERY_MODULE - {"_buffers"} | _SETTINGS | {*_OF_COLLECTIONS}
        hidden = []
        for counter in self._counters:
            attributes = vars(counter)
            own = dict(attributes)
            hidden.append((counter, type(counter), own))
            for name in own.keys() - shown:
                del attributes[name]
            attributes["_buffers"] = {}
            object.__setattr__(counter, "__class__", _veiled(type(counter), self._refuse))
        try:
            yield
        finally:
            for counter, kind, own in hidden:
                object.__setattr__(counter, "__class__", kind)
                # In their order: whoever packs a module before and after would find it changed.
                vars(counter).clear()
                vars(counter).update(own)

    @override
    def _call(self, counter: Counter, method: str, /, *args: Any, **kwargs: Any) -> Any:
        number = len(self.notes.counted)
        try:
            if method not in _COUNTING or number == len(self._made):
                raise NotBatchable(f"training_step calls {type(counter).__name__}.{method}")
            call, tensors = described(counter, method, args, kwargs)
            for tensor in tensors:
                self._want(tensor)
            returned = self._stand_in_for(self._made[number].returned, counter, number)
        except Exception as error:
            # The step itself may catch it.
            self._refuse(str(error))
            raise
        self.notes.notes.append(Counted(call, [tensor.detach() for tensor in tensors], returned))
        return returned

    def _stand_in_for(self, returned: Any, counter: Counter, number: int) -> Any:
        leaves, structure = tree_flatten(returned)
        if not isinstance(returned, Tensor | None) and not _is_of_torchmetrics(counter):
            # Nobody knows whether it would return as much another time.
            raise NotBatchable(f"{type(counter).__name__} returns a {type(returned).__name__}")
        stand_ins = [
            BatchValue(counter, number, part, self._refuse) if isinstance(leaf, Tensor) else leaf
            for part, leaf in enumerate(leaves)
        ]
        if not all(isinstance(one, BatchValue | Metric | str | None) for one in stand_ins):
            raise NotBatchable(f"{type(counter).__name__} returns what is no tensor")
        return tree_unflatten(stand_ins, structure)


def _settings_now() -> list[Any]:
    return [*settings_now(), torch.is_inference_mode_enabled()]


def _veiled(kind: type[nn.Module], tell: Callable[[str], None]) -> type[nn.Module]:
    """Return a kind of metric that tells if it is asked for what is not there; a step may catch the error."""

    def look(self: nn.Module, name: str) -> Any:
        try:
            return kind.__getattr__(self, name)
        except AttributeError:
            tell(f"training_step looks at {kind.__name__}.{name}")
            raise

    # Metrics hash by their states; whoever goes through the parts of a module only wants to tell them apart.
    own = {"__getattr__": look, "__hash__": object.__hash__, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), own)


def _is_of_torchmetrics(counter: Counter) -> bool:
    parts = [part for part in counter.modules() if isinstance(part, Metric | MetricCollection)]
    return all(type(part).__module__.startswith("torchmetrics.") for part in parts)
