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
    def is_silent(self) -> bool:
        """Whether nothing comes of it but an error, if anything does."""
        return not self.nature.writes and not self.makes

    @property
    def may_raise(self) -> bool:
        """Whether it may raise because of the numbers that it takes: most do of indices alone."""
        if self.nature.by_shape or self.nature.leaves_unset:
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


@dataclass(frozen=True)
class _Followed:
    """A result that is left in the memory in which it comes, or goes into memory that stays.

    Args:
        place: What it is like, in memory that stays if it has some.
        followers: Other looks at the memory in which it comes.
    """

    place: Tensor
    followers: Sequence[Tensor] | None

    def take(self, result: Tensor) -> None:
        """Let everybody look at it who wants it."""
        if self.followers is None:
            self.place.copy_(result)
            return
        if result.stride() != self.place.stride() or result.storage_offset() != self.place.storage_offset():
            result = torch.empty_strided(
                self.place.shape, self.place.stride(), dtype=result.dtype, device=result.device
            ).copy_(result)
        memory = result.untyped_storage()
        for look in self.followers:
            look.set_(memory, look.storage_offset(), look.shape, look.stride())


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
        self._followers: dict[int, list[Tensor]] = {memory: [] for memory in given}

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
                self._followers[memory].append(moved)
        return moved

    def followed(self, tensor: Tensor) -> _Followed:
        """Return where a result goes, and who follows it; asked for before all have been who do.

        Args:
            tensor: As it was recorded.
        """
        return _Followed(self.of(tensor), self._followers.get(memory_of(tensor)))


def _called_and_followed(
    operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Sequence[_Followed | None]
) -> None:
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
