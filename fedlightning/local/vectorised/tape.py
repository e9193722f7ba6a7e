"""A step as the tensor operations that it came down to, to be made again on other batches.

What a step of many workers costs in Python (vmap, autograd, the module itself) is as much as what small
networks compute. It is the same work in every step of a round with batches of one shape, and comes down to
the same operations on other numbers. When a tape may be played is decided in ``taped``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

_Look: TypeAlias = tuple[Any, ...]
"""What tells one tensor from another: its memory, and how it is read."""

_Builder: TypeAlias = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class _Call:
    """One operation.

    Args:
        operator: What is called.
        arguments: Builds its arguments from the values at hand.
        settings: Builds the ones by name.
        takes: Which values it takes.
        gives: Which values it gives, with their positions among its results.
        writes: Whether it changes a value in place.
    """

    operator: Callable[..., Any]
    arguments: _Builder
    settings: _Builder | None
    takes: frozenset[int]
    gives: tuple[tuple[int, int], ...]
    writes: bool


class Tape:
    """Operations on batches, on memory that stays where it is, and on what these operations make.

    Args:
        calls: The operations.
        values: A value for each number: those that stay, and ``None`` for those that are made.
        inputs: Numbers of what is put in.
        outputs: Numbers of what comes out.
    """

    def __init__(
        self,
        calls: Iterable[_Call],
        values: Sequence[Tensor | None],
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> None:
        self._values = list(values)
        self._inputs = inputs
        self._outputs = outputs
        self._plays = [
            (call.operator, call.arguments, call.settings, call.gives, dead)
            for call, dead in _with_last_uses(_needed(list(calls), outputs), {*outputs})
        ]

    @torch.no_grad()
    def play(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Make the operations again.

        Args:
            inputs: In place of those with which they were recorded; of the same shapes and types.

        Returns:
            What `Recorder.tape` was asked for.
        """
        values = self._values.copy()
        for number, tensor in zip(self._inputs, inputs, strict=True):
            values[number] = tensor
        for operator, arguments, settings, gives, dead in self._plays:
            if settings is None:
                result = operator(*arguments(values))
            else:
                result = operator(*arguments(values), **settings(values))
            if type(result) is Tensor:
                for number, _ in gives:
                    values[number] = result
            else:
                for number, position in gives:
                    values[number] = result[position]
            del result
            for number in dead:
                values[number] = None
        found: list[Any] = values
        return [found[number] for number in self._outputs]

    def __len__(self) -> int:
        return len(self._plays)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, which is untyped
    """Watch a step, and keep what it comes down to.

    A tensor is known by its memory: autograd hands out several for one. What is watched is kept alive
    meanwhile, so that no memory is used twice.

    Args:
        inputs: What another time brings in other tensors.
        places: Memory that stays, and that a step may write to.

    Attributes:
        why_not: What keeps the step from being made again without Python; empty if nothing does.
    """

    def __init__(self, inputs: Sequence[Tensor], places: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.why_not = ""
        self._calls: list[_Call] = []
        self._values: list[Tensor] = []
        self._numbers: dict[_Look, int] = {}
        self._staying: set[int] = set()
        self._memory: dict[int, str] = {_memory_of(tensor): "place" for tensor in places}
        self._inputs = [self._new(tensor, _look_of(tensor), "input") for tensor in inputs]

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

    def tape(self, outputs: Sequence[Tensor]) -> Tape | None:
        """Return what was recorded, or ``None`` where it cannot be made again.

        Args:
            outputs: Which of the tensors are wanted.
        """
        numbers = [self._numbers.get(_look_of(tensor)) for tensor in outputs]
        found = [number for number in numbers if number is not None]
        if self.why_not or len(found) < len(outputs):
            return None
        values = [
            tensor.detach() if number in self._staying else None for number, tensor in enumerate(self._values)
        ]
        return Tape(self._calls, values, self._inputs, found)

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        nature = _nature_of(func)
        results = _results_of(result)
        self.why_not = nature.why_not or ("" if _are_tensors(results) else f"{func} tells Python of a value")
        if self.why_not:
            return
        takes = frozenset([self._number_of(leaf) for leaf in _tensors_in((args, kwargs))])
        if nature.writes and not all(map(self._may_be_written, nature.written(args, kwargs))):
            self.why_not = f"{func} changes what is not its own"
            return
        stays = takes <= self._staying and bool(takes) and not nature.writes
        gives = []
        for position, tensor in enumerate(results):
            look = _look_of(tensor)
            if look in self._numbers:
                continue
            of = self._memory.get(look[0])
            number = self._new(tensor, look, of or "made")
            if not (stays and of):  # a view of what stays stays, too
                self._staying.discard(number)
                gives.append((number, position))
        if gives or nature.writes:
            build = _builder(kwargs, self._number_of) if kwargs else None
            arguments = _builder(args, self._number_of)
            self._calls.append(_Call(func, arguments, build, takes, tuple(gives), nature.writes))

    def _number_of(self, tensor: Tensor) -> int:
        """Return the number of a tensor; one that comes from elsewhere is the same in every step."""
        look = _look_of(tensor)
        number = self._numbers.get(look)
        if number is not None:
            return number
        of = self._memory.get(look[0], "elsewhere")
        if of in ("input", "made"):
            self.why_not = "a tensor is read in another way than the one in which it was made"
        return self._new(tensor, look, of)

    def _new(self, tensor: Tensor, look: _Look, of: str) -> int:
        number = len(self._values)
        self._values.append(tensor)
        self._numbers[look] = number
        self._memory.setdefault(look[0], of)
        if of in ("place", "elsewhere"):
            self._staying.add(number)
        return number

    def _may_be_written(self, tensor: Tensor) -> bool:
        return self._memory.get(_memory_of(tensor)) in ("made", "place")


def _memory_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _look_of(tensor: Tensor) -> _Look:
    signs = tensor.is_conj(), tensor.is_neg()
    return (_memory_of(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, signs)


def _tensors_in(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _tensors_in(part)
    elif isinstance(tree, Mapping):
        yield from _tensors_in(list(tree.values()))


def _results_of(result: Any) -> Sequence[Any]:
    if result is None:
        return ()
    return result if isinstance(result, list | tuple) else (result,)


def _are_tensors(values: Sequence[Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


@dataclass(frozen=True)
class _Nature:
    """What is to be known of an operator.

    Args:
        why_not: Why calls of it cannot be made again; empty if they can.
        places: Positions and names of the arguments that it writes to.
    """

    why_not: str
    places: tuple[tuple[int, str], ...]

    @property
    def writes(self) -> bool:
        return bool(self.places)

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
        """Yield what a call writes to."""
        for position, name in self.places:
            yield from _tensors_in(args[position] if position < len(args) else kwargs.get(name))


@cache
def _nature_of(func: Any) -> _Nature:
    why_not = ""
    if torch.Tag.nondeterministic_seeded in func.tags:
        why_not = f"{func} draws random numbers"
    if torch.Tag.inplace_view in func.tags:
        why_not = f"{func} changes a shape in place"
    written = [
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return _Nature(why_not, tuple(written))


def _builder(tree: Any, number_of: Callable[[Tensor], int]) -> _Builder:
    """Return what builds a tree of arguments out of values."""
    if isinstance(tree, Tensor):
        number = number_of(tree)
        return lambda values: values[number]
    if not any(True for _ in _tensors_in(tree)):
        return lambda values: tree
    if isinstance(tree, Mapping):
        named = {name: _builder(part, number_of) for name, part in tree.items()}
        return lambda values: {name: build(values) for name, build in named.items()}
    if all(isinstance(part, Tensor) for part in tree):
        numbers = [number_of(part) for part in tree]
        return lambda values: [values[number] for number in numbers]
    parts = [_builder(part, number_of) for part in tree]
    return lambda values: [build(values) for build in parts]


def _needed(calls: Sequence[_Call], outputs: Sequence[int]) -> list[_Call]:
    """Leave out calls whose results nobody takes."""
    wanted, kept = {*outputs}, []
    for call in reversed(calls):
        if call.writes or any(number in wanted for number, _ in call.gives):
            wanted |= call.takes
            kept.append(call)
    return kept[::-1]


def _with_last_uses(calls: Sequence[_Call], kept: set[int]) -> list[tuple[_Call, tuple[int, ...]]]:
    """Return calls, each with the numbers of those made values that are not taken any more after it."""
    made = {number for call in calls for number, _ in call.gives}
    seen, found = {*kept}, []
    for call in reversed(calls):
        own = {number for number, _ in call.gives} | (call.takes & made)
        found.append((call, tuple(own - seen)))
        seen |= own
    return found[::-1]
