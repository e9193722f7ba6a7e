"""Calls of torchmetrics in a batched step: noted while it runs under vmap, where no metric could count.

They are made, worker by worker or for all, in ``counting``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten
from torchmetrics import Metric, MetricCollection

from fedlightning.local.known import known
from fedlightning.local.vectorised.refusal import NotBatchable

Counter: TypeAlias = Metric | MetricCollection
"""What a step may ask to count."""

StandIns: TypeAlias = Mapping[str, Callable[..., Any]]
"""Functions by the names of the methods in whose places they are."""


@dataclass(frozen=True, eq=False)
class MetricCall:
    """One call of a torchmetric in a step, without the tensors that it was given.

    Args:
        metric: The metric, or a collection of some.
        method: ``"update"`` or ``"forward"``.
        structure: How its arguments lie, ``(args, kwargs)``.
        given: They themselves; ``Tensor`` in place of each tensor.
    """

    metric: Counter
    method: str
    structure: TreeSpec
    given: tuple[Any, ...]

    @property
    def tensors(self) -> int:
        """How many tensors it was given."""
        return self.given.count(Tensor)

    @property
    def parts(self) -> list[Metric]:
        """The metrics that it updates."""
        return [part for part in self.metric.modules() if isinstance(part, Metric)]

    @property
    def kind(self) -> Hashable:
        """What it has in common with calls that differ in tensors only."""
        # Metrics compare by making another metric, and hash by their states.
        return id(self.metric), self.structure, self.given

    def make(self, tensors: Sequence[Tensor], method: str = "") -> Any:
        """Make the call, and return what comes of it.

        Args:
            tensors: Those that it is given.
            method: Another method than the one that was called.
        """
        own = iter(tensors)
        leaves = [next(own) if value is Tensor else value for value in self.given]
        args, kwargs = tree_unflatten(leaves, self.structure)
        return getattr(self.metric, method or self.method)(*args, **kwargs)


class BatchValue:
    """Stand for what a metric comes to on one batch, which is not known before the step is over.

    It may be logged, or left alone.

    Args:
        metric: The metric.
        number: Which of the step's calls gives it.
        part: Which of the leaves of what that returns.
        tell: Is told why, when more is done with it: the step itself may catch what is raised.
    """

    def __init__(
        self, metric: Counter, number: int, part: int = 0, tell: Callable[[str], None] | None = None
    ) -> None:
        self._metric = metric
        self._tell = tell
        self.number = number
        self.part = part

    @classmethod
    def __torch_function__(cls, _: Any, __: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        reason = "training_step computes with what a torchmetric returns"
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, BatchValue) and value._tell is not None:
                value._tell(reason)
        raise NotBatchable(reason)

    def _refuse(self, *_: Any) -> NoReturn:
        reason = f"training_step looks at what {type(self._metric).__name__} returns"
        if self._tell is not None:
            self._tell(reason)
        raise NotBatchable(reason)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __bool__ = __float__ = __int__ = _refuse
    __eq__ = __ne__ = __hash__ = __abs__ = __pow__ = __rpow__ = __floordiv__ = __mod__ = _refuse
    __getitem__ = __iter__ = __len__ = __format__ = __str__ = __contains__ = __index__ = _refuse


class NotedCalls:
    """Note what a step asks the torchmetrics of a module to count.

    Args:
        module: The module.

    Attributes:
        calls: The calls of the step at hand.
    """

    def __init__(self, module: nn.Module) -> None:
        looked_up = known(module)
        self._metrics: list[Counter] = [metric for _, metric in looked_up.metrics]
        self._metrics += looked_up.collections
        self._tensors: list[Tensor] = []
        self.calls: list[MetricCall] = []

    def start_step(self) -> None:
        """Forget the calls of the step before."""
        self.calls, self._tensors = [], []

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note calls within the block, in place of making them."""
        with stood_in((metric, self._stand_ins(metric)) for metric in self._metrics):
            yield

    def tensors(self) -> list[Tensor]:
        """Return what the calls were given, in copies: the step may go on and change it; under vmap."""
        given, self._tensors = self._tensors, []
        return [tensor.detach().clone() for tensor in given]

    def _stand_ins(self, metric: Counter) -> StandIns:
        stand_ins: dict[str, Callable[..., Any]] = {
            "update": partial(self._update, metric),
            "compute": partial(_refuse, metric, "compute"),
            "reset": partial(_refuse, metric, "reset"),
        }
        # A collection's calls that of each of its metrics.
        if isinstance(metric, Metric):
            stand_ins["forward"] = partial(self._forward, metric)
        return stand_ins

    def _update(self, metric: Counter, *args: Any, **kwargs: Any) -> None:
        self._note(metric, "update", args, kwargs)

    def _forward(self, metric: Counter, *args: Any, **kwargs: Any) -> BatchValue:
        self._note(metric, "forward", args, kwargs)
        return BatchValue(metric, len(self.calls) - 1)

    def _note(self, metric: Counter, method: str, args: Any, kwargs: Any) -> None:
        call, tensors = described(metric, method, args, kwargs)
        self._tensors += tensors
        self.calls.append(call)


@contextmanager
def stood_in(stand_ins: Iterable[tuple[Counter, StandIns]]) -> Iterator[None]:
    """Let functions stand in for methods of metrics within the block.

    Args:
        stand_ins: Metrics, and the functions by the names of the methods.
    """
    # On the instances, where torchmetrics has ``update`` and ``compute``, and where torch looks for
    # ``forward`` first.
    kept = []
    for metric, functions in stand_ins:
        attributes = vars(metric)
        own = {name: attributes[name] for name in functions if name in attributes}
        kept.append((attributes, functions, own))
        attributes.update(functions)
    try:
        yield
    finally:
        for attributes, functions, own in kept:
            for name in functions.keys() - own.keys():
                attributes.pop(name, None)
            # In their places: whoever packs a module before and after would find it changed.
            attributes.update(own)


def described(
    metric: Counter, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[MetricCall, list[Tensor]]:
    """Describe a call, without the tensors that a metric is given, and return these beside.

    Args:
        metric: The metric.
        method: Which of its methods.
        args: What that is given by position.
        kwargs: What it is given by name.

    Raises:
        NotBatchable: It is given what may be changed afterwards, or is not known.
    """
    leaves, structure = tree_flatten((tuple(args), dict(kwargs)))
    given: list[Any] = []
    for leaf in leaves:
        if not (leaf is None or isinstance(leaf, Tensor | bool | int | float | str)):
            raise NotBatchable(f"{type(metric).__name__} is given a {type(leaf).__name__} in training_step")
        given.append(Tensor if isinstance(leaf, Tensor) else leaf)
    call = MetricCall(metric, method, structure, tuple(given))
    return call, [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _refuse(metric: Counter, name: str, *_: Any, **__: Any) -> NoReturn:
    raise NotBatchable(f"training_step calls {type(metric).__name__}.{name}")
