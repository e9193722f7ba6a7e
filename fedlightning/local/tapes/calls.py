"""An operation of a recorded step, and the same operation on memory elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from fedlightning.local.tapes.overloads import Nature, call_into, is_told_where

_WORTH_FOLLOWING = 1 << 15
"""Bytes of a result of which a copy takes longer than looking for it where it is."""


@dataclass(frozen=True)
class Call:
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
        return {memory_of(tensor) for tensor in tensors_in((self.args, self.kwargs))}

    @property
    def makes(self) -> set[int]:
        """The memory that its results are in."""
        return {memory_of(tensor) for tensor in self.fresh if tensor is not None}

    @property
    def changes(self) -> set[int]:
        """The memory of the arguments that it writes to."""
        return {memory_of(tensor) for tensor in tensors_in([*self.nature.written(self.args, self.kwargs)])}

    @property
    def is_silent(self) -> bool:
        """Whether nothing comes of it but an error, if anything does."""
        return not self.nature.writes and not self.makes

    @property
    def may_raise(self) -> bool:
        """Whether it may raise because of the numbers that it takes: most do of indices alone."""
        if self.nature.by_shape or self.nature.leaves_unset or self.nature.is_sure:
            return False
        taken = tensors_in((self.args, self.kwargs))
        return self.nature.judges or any(not (t.is_floating_point() or t.is_complex()) for t in taken)

    @property
    def gives(self) -> set[int]:
        """The memory of results that are large, and come in memory of the operator's own choice."""
        if self.nature.writes or self.nature.leaves_unset or is_told_where(self.operator):
            return set()
        large = [t for t in self.fresh if t is not None and t.untyped_storage().nbytes() >= _WORTH_FOLLOWING]
        return {memory_of(tensor) for tensor in large}

    def moved(self, elsewhere: Elsewhere) -> Callable[[], object]:
        """Return the same call elsewhere.

        Args:
            elsewhere: Knows what a tensor is there.
        """
        args, kwargs = tree_map_only(Tensor, elsewhere.of, (list(self.args), dict(self.kwargs)))
        if self.nature.writes and not self.makes:
            return partial(self.operator, *args, **kwargs)
        if self.gives:
            found = [None if tensor is None else elsewhere.followed(tensor) for tensor in self.fresh]
            return partial(_called_and_followed, self.operator, args, kwargs, found)
        places = [None if tensor is None else elsewhere.of(tensor) for tensor in self.fresh]
        return call_into(self.operator, args, kwargs, places)


class _Look:
    """A look at memory that is another each time.

    Args:
        tensor: Looks at some of it.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._offset, self._shape, self._stride = tensor.storage_offset(), tensor.shape, tensor.stride()

    def let_go(self) -> None:
        """Look at nothing."""
        self._tensor.set_()  # type: ignore[call-overload]  # torch has it, its types do not

    def turn_to(self, memory: torch.UntypedStorage) -> None:
        """Look at other memory in the same way.

        Args:
            memory: The memory.
        """
        self._tensor.set_(memory, self._offset, self._shape, self._stride)

    def laid_alike(self, result: Tensor) -> Tensor:
        """Return a result as it has to lie in its memory, if need be as a copy.

        Args:
            result: Of the same shape.
        """
        if result.stride() == self._stride and result.storage_offset() == self._offset:
            return result
        lying = torch.empty_strided(self._shape, self._stride, dtype=result.dtype, device=result.device)
        return lying.copy_(result)


@dataclass(frozen=True)
class _Followed:
    """A result that is left in the memory in which it comes.

    Args:
        own: Looks at the result itself.
        followers: All that look at its memory.
    """

    own: _Look
    followers: Sequence[_Look]

    def let_go(self) -> None:
        """Give back the memory of the play before: what comes next may lie there, and find it in a cache."""
        _let_go(self.followers)

    def take(self, result: Tensor) -> None:
        """Let everybody look at it who wants it."""
        memory = self.own.laid_alike(result).untyped_storage()
        for look in self.followers:
            look.turn_to(memory)


@dataclass(frozen=True)
class _Copied:
    """A result that goes into memory that stays.

    Args:
        place: That memory.
    """

    place: Tensor

    def let_go(self) -> None:
        """Keep it."""

    def take(self, result: Tensor) -> None:
        """Copy the result."""
        self.place.copy_(result)


class Elsewhere:
    """What tensors of a recorded step are in a tape.

    Args:
        homes: Memory that stays, by the memory that was there.
        given: Memory in whose place there is another each time.
    """

    def __init__(self, homes: Mapping[int, Tensor], given: set[int]) -> None:
        self._homes = homes
        self._given = given
        self._moved: dict[Any, Tensor] = {}
        self._followers: dict[int, list[_Look]] = {memory: [] for memory in given}

    def of(self, tensor: Tensor) -> Tensor:
        """Return what a tensor is there: one for all that look at the same numbers in the same way.

        Args:
            tensor: As it was recorded.
        """
        memory = memory_of(tensor)
        look = memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype
        moved = self._moved.get(look)
        if moved is None:
            home = self._homes.get(memory)
            moved = self._moved[look] = tensor.detach() if home is None else _seen_in(home, tensor)
            if memory in self._given:
                self._followers[memory].append(_Look(moved))
        return moved

    def followed(self, tensor: Tensor) -> _Followed | _Copied:
        """Return where a result goes, and who follows it; asked for before all have been who do.

        Args:
            tensor: As it was recorded.
        """
        place = self.of(tensor)
        followers = self._followers.get(memory_of(tensor))
        return _Copied(place) if followers is None else _Followed(_Look(place), followers)

    def let_go(self, memory: int) -> Callable[[], object]:
        """Return a call that gives back memory in whose place there is another each time.

        Args:
            memory: As it was recorded.
        """
        return partial(_let_go, self._followers[memory])


def _let_go(looks: Sequence[_Look]) -> None:
    for look in looks:
        look.let_go()


def _called_and_followed(
    operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Sequence[_Followed | _Copied | None]
) -> None:
    for followed in found:
        if followed is not None:
            followed.let_go()
    for followed, result in zip(found, results_of(operator(*args, **kwargs)), strict=True):
        if followed is not None:
            followed.take(result)


def memory_of(tensor: Tensor) -> int:
    """Return by what the memory of a tensor is known, as long as it is kept.

    Args:
        tensor: The tensor.
    """
    return tensor.untyped_storage().data_ptr()


def _seen_in(home: Tensor, tensor: Tensor) -> Tensor:
    """Return what a tensor would be if its memory were another."""
    there = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return there.set_(home.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in the arguments of an operator.

    Args:
        tree: Some of them.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from tensors_in(part)
    elif isinstance(tree, Mapping):
        yield from tensors_in(list(tree.values()))


def results_of(result: Any) -> Sequence[Any]:
    """Return all that an operator has returned.

    Args:
        result: What it has.
    """
    return result if isinstance(result, list | tuple) else (result,)
