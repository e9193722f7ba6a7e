"""Ordinary calls of the operations that workers offer, recorded from torch's own samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fedlightning.pointers.operations import NAMES
from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from tests.operators import samples_of

SAMPLES_PER_OPERATOR = 6
CALLS_PER_OPERATION = 2
MOST_ELEMENTS = 2000


@dataclass(frozen=True)
class Call:
    """One call of an operation by name, with local tensors."""

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def copied(self) -> Call:
        """Return the same call with memory of its own."""
        return tree_map_call(_copied, self)


def tree_map_call(function: Callable[[Any], Any], call: Call) -> Call:
    """Replace the leaves of a call's arguments."""
    args, kwargs = tree_map(function, (call.args, call.kwargs))
    return Call(call.operation, args, kwargs)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf


class Recorded(dict[str, list[Call]]):
    """Keep a few calls of each operation, of different kinds."""

    def note(self, names: Iterable[str], args: Any, kwargs: Any) -> None:
        """Keep a call, if it is of a new kind and small, under the first name that workers offer."""
        name = next((name for name in names if name in WORKER_OPERATIONS), None)
        if name is None or not _is_small((args, kwargs)):
            return
        call = Call(name, tuple(args), dict(kwargs))
        known = self.setdefault(name, [])
        if len(known) < CALLS_PER_OPERATION and all(_kind(call) != _kind(other) for other in known):
            with suppress(RuntimeError, TypeError):
                known.append(call.copied())


def _is_small(value: Any) -> bool:
    leaves = tree_leaves(value)
    elements = sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
    return elements <= MOST_ELEMENTS and not any(callable(leaf) for leaf in leaves)


def _kind(call: Call) -> list[Any]:
    leaves = tree_leaves((call.args, call.kwargs))
    return [(leaf.dim(), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]


class _Functions(TorchFunctionMode):
    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self._recorded = recorded

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = NAMES.get(func)
        if name is not None:
            self._recorded.note([name], args, kwargs or {})
        return func(*args, **(kwargs or {}))


class _Kernels(TorchDispatchMode):
    def __init__(self, recorded: Recorded) -> None:
        super().__init__()
        self._recorded = recorded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        short = func.overloadpacket.__name__
        names = [f"{place}.{short}" for place in ("torch.ops.aten", "torch", "torch.Tensor")]
        self._recorded.note(names, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def record() -> Recorded:
    """Run torch's samples forward and backward, and return the calls that are made on the way."""
    from torch.testing._internal.common_methods_invocations import op_db

    recorded = Recorded()
    for operator in op_db:
        if operator.name.startswith("jiterator"):
            continue
        dtype = next((d for d in (torch.float32, torch.int64) if d in operator.supported_dtypes("cpu")), None)
        if dtype is not None:
            _run_samples(operator, dtype, recorded)
    return recorded


def _run_samples(operator: Any, dtype: torch.dtype, recorded: Recorded) -> None:
    grad = dtype is torch.float32 and operator.supports_autograd
    torch.manual_seed(0)
    variants = [operator.op, operator.method_variant, operator.inplace_variant]
    for sample in islice(samples_of(operator, dtype, requires_grad=grad), SAMPLES_PER_OPERATOR):
        for variant in filter(None, variants):
            value = tree_map(_cloned, sample.input) if variant is operator.inplace_variant else sample.input
            with warnings.catch_warnings(), suppress(Exception):
                warnings.simplefilter("ignore")
                with _Kernels(recorded), _Functions(recorded):
                    result = variant(value, *sample.args, **sample.kwargs)
                    total = sum(real.sum() for real in _differentiable(result))
                    if isinstance(total, Tensor):
                        total.backward()


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _differentiable(result: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            yield leaf.abs() if leaf.is_complex() else leaf
