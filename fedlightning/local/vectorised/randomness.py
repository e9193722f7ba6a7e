"""Random numbers inside a batched step: each worker draws its own, the same as if it were alone.

Dropout draws for all workers at once under vmap, from one generator. Here each such draw is divided: every
worker's part comes from a generator that its visit's seed has started, so that neither the other workers of
the chunk nor their number change what it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from fedlightning.local.vectorised.refusal import NotBatchable

aten = torch.ops.aten

# What is drawn for one worker from one worker's part of the arguments. `randperm` and `multinomial` reach us
# as calls that no longer tell which worker they are for.
_DIVISIBLE = frozenset(
    {
        *(aten.bernoulli.default, aten.bernoulli.p, aten.bernoulli_.float, aten.bernoulli_.Tensor),
        *(aten.uniform_.default, aten.normal_.default, aten.exponential_.default),
        *(aten.rand_like.default, aten.randn_like.default, aten.randint_like.default),
        *(aten.rand.default, aten.randn.default, aten.randint.default, aten.randint.low),
        *(aten.normal.Tensor_float, aten.normal.float_Tensor, aten.normal.Tensor_Tensor),
        aten.poisson.default,
    }
)


class IndivisibleDraw(NotBatchable):
    """A random operator was called whose draws cannot be given to the workers one by one."""


class WorkerStreams:
    """One random stream per worker of a chunk, each seeded as a visit's own would be.

    Args:
        seeds: Seeds of the visits.
        device: Where the module draws.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.default = default_generator(device)
        self.states = [torch.Generator(device).manual_seed(seed).get_state() for seed in seeds]

    def of(self, rows: slice) -> DividedDraws:
        """Return the mode under which a step of some of the workers is taken.

        Args:
            rows: Which workers.
        """
        return DividedDraws(self, range(len(self.states))[rows])

    def alone(self, worker: int) -> LoneDraws:
        """Return the context in which a step of one worker by itself is taken.

        Args:
            worker: Its position.
        """
        return LoneDraws(self, worker)


class LoneDraws:
    """Draw from the stream of one worker.

    Args:
        streams: The workers' streams.
        worker: Position of the one.

    Attributes:
        count: How many steps have drawn anything.
    """

    def __init__(self, streams: WorkerStreams, worker: int) -> None:
        self._streams = streams
        self._worker = worker
        self._before: Tensor | None = None
        self.count = 0

    def __enter__(self) -> None:
        default = self._streams.default
        self._before = default.get_state()
        default.set_state(self._streams.states[self._worker])

    def __exit__(self, *_: object) -> None:
        default, states = self._streams.default, self._streams.states
        after = default.get_state()
        self.count += not torch.equal(after, states[self._worker])
        states[self._worker] = after
        assert self._before is not None
        default.set_state(self._before)


class DividedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, which is untyped
    """Divide random draws over the workers of a batched step.

    Args:
        streams: The workers' streams.
        workers: Positions of those who take the step.

    Attributes:
        count: Draws so far.

    Raises:
        IndivisibleDraw: When an operator is called that cannot be divided.
    """

    def __init__(self, streams: WorkerStreams, workers: Sequence[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._streams = streams
        self._workers = workers
        self.count = 0

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        self.count += 1
        if func not in _DIVISIBLE or not self._is_of_all(args):
            raise IndivisibleDraw(f"random numbers are drawn by {func}")
        return self._drawn(func, args, kwargs or {})

    def _is_of_all(self, args: Sequence[Any]) -> bool:
        """Tell whether the call is for all workers: a tensor, or a shape to draw, has a row for each."""
        size = len(self._workers)
        return any(
            (isinstance(arg, Tensor) and arg.dim() > 0 and len(arg) == size)
            or (isinstance(arg, list | tuple) and len(arg) > 0 and arg[0] == size)
            for arg in args
        )

    def _drawn(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        default, states = self._streams.default, self._streams.states
        before = default.get_state()
        parts = []
        try:
            for row, worker in enumerate(self._workers):
                default.set_state(states[worker])
                parts.append(func(*(_part(arg, row) for arg in args), **kwargs))
                states[worker] = default.get_state()
        finally:
            default.set_state(before)
        written = func._schema.is_mutable  # type: ignore[attr-defined]  # of every operator overload
        return args[0] if written else torch.stack(parts)


def default_generator(device: torch.device) -> torch.Generator:
    """Return the generator that a device draws from unless it is given another."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    raise IndivisibleDraw(f"nobody knows the generator of {device}")


def _part(arg: Any, row: int) -> Any:
    if isinstance(arg, Tensor):
        return arg[row]
    return arg[1:] if isinstance(arg, list | tuple) else arg
