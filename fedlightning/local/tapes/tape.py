"""A step as the tensor operations that it came down to, to be made again on other batches.

What a step of many workers costs in Python (vmap, autograd, the module itself) is as much as what small
networks compute. It is the same work in every step with batches of one shape, and comes down to the same
operations on other numbers. All that they read and write stays where it is: so views are made once, nothing
is allocated, and what is computed is found in the cache. When a tape may be played is decided in ``taped``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from typing_extensions import override

from fedlightning.local.tapes.arena import Arena, Lifetime
from fedlightning.local.tapes.overloads import Nature, call_into, nature_of

_EXITS = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr)
"""Methods by which tensors hand out their numbers, or the place where they are."""


@dataclass(frozen=True)
class _Call:
    """One operation, on tensors at whose memory it was seen.

    Args:
        operator: What was called.
        args: Its arguments.
        kwargs: Those by name.
        fresh: Its results, as far as they lie in memory of their own; ``None`` in place of the others.
        nature: What is to be known of the operator.
    """

    operator: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    fresh: Sequence[Tensor | None]
    nature: Nature

    @property
    def reads(self) -> set[int]:
        """The memory that it takes."""
        return {_memory_of(tensor) for tensor in _tensors_in((self.args, self.kwargs))}

    @property
    def makes(self) -> set[int]:
        """The memory that its results are in."""
        return {_memory_of(tensor) for tensor in self.fresh if tensor is not None}

    def moved(self, move: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        """Return the same call elsewhere.

        Args:
            move: Returns what a tensor is there.
        """
        args, kwargs = tree_map_only(Tensor, move, (list(self.args), dict(self.kwargs)))
        if self.nature.writes and not self.makes:
            return partial(self.operator, *args, **kwargs)
        places = [None if tensor is None else move(tensor) for tensor in self.fresh]
        return call_into(self.operator, args, kwargs, places)


class Tape:
    """Operations on memory that stays where it is.

    Args:
        calls: The operations.
        inputs: Where batches are put.
        outputs: Where results are found.

    Attributes:
        inputs: As given.
        outputs: As given; they hold until the next play of any tape with the same `Arena`.
    """

    def __init__(
        self, calls: Sequence[Callable[[], object]], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        self._calls = calls
        self.inputs = inputs
        self.outputs = outputs

    @torch.no_grad()
    def play(self) -> None:
        """Make the operations again, on what has been put into the inputs."""
        for call in self._calls:
            call()

    def __len__(self) -> int:
        return len(self._calls)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, which is untyped
    """Watch a step, and keep what it comes down to.

    A tensor is known by its memory: autograd hands out several for one. What is watched is kept alive
    meanwhile, so that no memory is used twice.

    Args:
        inputs: What another time brings other numbers in.
        places: Memory that stays, and that a step may write to.

    Attributes:
        why_not: What keeps the step from being made again without Python; empty if nothing does.
    """

    # Or torch would raise where a step has such an operator, which is refused like others.
    supports_higher_order_operators = True

    def __init__(self, inputs: Sequence[Tensor], places: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.why_not = ""
        self._exits = _Exits()
        self._inputs = inputs
        self._calls: list[_Call] = []
        self._seen: list[Tensor] = []
        self._origins: dict[int, str] = {}
        self._see(places, "place")
        self._see(inputs, "input")

    @override
    def __enter__(self) -> Recorder:
        self._exits.__enter__()  # type: ignore[no-untyped-call]  # as above
        super().__enter__()  # type: ignore[no-untyped-call]  # as above
        return self

    @override
    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self._exits.__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self.why_not = self.why_not or self._exits.why_not

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.why_not:
            self._note(func, args, kwargs or {}, result)
        return result

    def tape(self, outputs: Sequence[Tensor], arena: Arena | None = None) -> Tape | None:
        """Return what was recorded, or ``None`` where it cannot be made again.

        Args:
            outputs: Which of the tensors are wanted.
            arena: Has the memory for what is computed; others may use it as long as no play of theirs falls
                into one of this tape's, or between it and the last look at its outputs.
        """
        # What a place holds may have been looked at before the step has changed it.
        if self.why_not or not all(self._origins.get(_memory_of(t), "place") != "place" for t in outputs):
            return None
        calls = _needed(self._changing(), {_memory_of(tensor) for tensor in outputs})
        homes = (arena or Arena()).homes(self._lifetimes(calls, outputs))

        def move(tensor: Tensor) -> Tensor:
            home = homes.get(_memory_of(tensor))
            return tensor.detach() if home is None else _seen_in(home, tensor)

        return Tape([call.moved(move) for call in calls], [*map(move, self._inputs)], [*map(move, outputs)])

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        nature, results = nature_of(func), _results_of(result)
        taken = [*_tensors_in((args, kwargs))]
        self.why_not = nature.why_not or _why_not_kept(func, nature, results, taken)
        if self.why_not:
            return
        self._see(taken, "elsewhere")
        if nature.writes and not all(map(self._may_be_written, _tensors_in([*nature.written(args, kwargs)]))):
            self.why_not = f"{func} changes what is not its own"
            return
        # What lies in memory that was there before is a view of it, and stays one.
        fresh = [
            result if result is not None and _memory_of(result) not in self._origins else None
            for result in results
        ]
        self._see([tensor for tensor in fresh if tensor is not None], "made")
        if nature.writes or any(tensor is not None for tensor in fresh):
            # As they are now: Python may let a tensor have another memory or shape later on.
            args, kwargs, fresh = tree_map_only(Tensor, Tensor.detach, (list(args), dict(kwargs), fresh))
            self._calls.append(_Call(func, args, kwargs, fresh, nature))

    def _see(self, tensors: Iterable[Tensor], origin: str) -> None:
        for tensor in tensors:
            self._origins.setdefault(_memory_of(tensor), origin)
            self._seen.append(tensor)

    def _may_be_written(self, tensor: Tensor) -> bool:
        return self._origins[_memory_of(tensor)] in ("made", "place")

    def _changing(self) -> list[_Call]:
        """Leave out calls that come to the same each time; what they have made stays as it is."""
        written = {
            _memory_of(tensor)
            for call in self._calls
            for tensor in _tensors_in([*call.nature.written(call.args, call.kwargs)])
        }
        fixed: set[int] = set()
        changing = []
        for call in self._calls:
            alike = call.nature.by_shape or call.reads <= fixed
            if alike and not call.nature.writes and not call.makes & written:
                fixed |= call.makes
            else:
                changing.append(call)
        return changing

    def _lifetimes(self, calls: Sequence[_Call], outputs: Sequence[Tensor]) -> dict[int, Lifetime]:
        """Say when the memory of inputs and of what is made is in use; that of outputs is to the end."""
        spans = {_memory_of(tensor): [-1, -1] for tensor in self._inputs}
        for number, call in enumerate(calls):
            for memory in call.makes:
                spans[memory] = [number, number]
            for memory in call.reads & spans.keys():
                spans[memory][1] = number
        for tensor in outputs:
            spans.get(_memory_of(tensor), [0, 0])[1] = len(calls)
        storages = {
            _memory_of(tensor): tensor.untyped_storage()
            for tensor in (
                *self._inputs,
                *(made for call in calls for made in call.fresh if made is not None),
            )
        }
        return {
            memory: Lifetime(storages[memory].nbytes(), storages[memory].device, first, last)
            for memory, (first, last) in spans.items()
            if storages[memory].nbytes()
        }


def _memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _seen_in(home: Tensor, tensor: Tensor) -> Tensor:
    """Return what a tensor would be if its memory were another."""
    there = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return there.set_(home.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _tensors_in(part)
    elif isinstance(tree, Mapping):
        yield from _tensors_in(list(tree.values()))


def _results_of(result: Any) -> Sequence[Any]:
    return result if isinstance(result, list | tuple) else (result,)


def _why_not_kept(func: Any, nature: Nature, results: Sequence[Any], taken: Sequence[Tensor]) -> str:
    if not all(result is None or isinstance(result, Tensor) for result in results):
        return f"{func} tells Python of a value"
    tensors = [tensor for tensor in (*results, *taken) if tensor is not None]
    if not all(map(_lies_in_memory, tensors)):
        return f"{func} has to do with tensors that are not plain numbers in memory"
    if nature.by_mask and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in taken[1:]):
        return f"{func} has results of sizes that depend on numbers"
    return ""


def _lies_in_memory(tensor: Tensor) -> bool:
    """Tell whether a tensor is numbers in memory: not sparse, quantized, or changed when it is read."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor._is_zerotensor():
        return False
    return not (tensor.is_conj() or tensor.is_neg())


class _Exits(TorchFunctionMode):
    """Notice where numbers leave torch by ways of which its dispatcher is not told."""

    def __init__(self) -> None:
        super().__init__()
        self.why_not = ""

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _EXITS:
            self.why_not = f"{func} tells Python of values"
        return func(*args, **(kwargs or {}))


def _needed(calls: Sequence[_Call], outputs: set[int]) -> list[_Call]:
    """Leave out calls whose results nobody takes."""
    wanted, kept = {*outputs}, []
    for call in reversed(calls):
        if call.nature.writes or call.makes & wanted:
            wanted |= call.reads
            kept.append(call)
    return kept[::-1]
