"""Optimizer states of many workers as rows of a few large tensors: a worker costs its numbers, and no object.

Which worker has which row, and since which round, is for ``kept_states`` to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

State: TypeAlias = Mapping[int, Mapping[str, Any]]
"""An optimizer's state by the index of the parameter, as `Optimizer.state_dict` has it."""

_WORD = 8
_ALIGNED = 2  # words: what the widest numbers need
_BLOCK_WORDS = 4 * 2**20 // _WORD


@dataclass(frozen=True)
class Entry:
    """One tensor of a state.

    Args:
        index: Index of its parameter.
        name: Its name there.
        dtype: Type of its numbers.
        size: Its size.
        stride: In which order the numbers lie.
    """

    index: int
    name: str
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def words(self) -> int:
        """What it takes of a row, in words of eight bytes."""
        nbytes = int(np.prod(self.size, dtype=np.int64)) * self.dtype.itemsize
        return -(-nbytes // (_WORD * _ALIGNED)) * _ALIGNED


Layout: TypeAlias = tuple[Entry, ...]
"""Which tensors a state consists of, in their order."""


def layout_of_tensors(state: State) -> Layout | None:
    """Return the layout of a state that consists of tensors in memory, and nothing else; else ``None``.

    Args:
        state: The state.

    Example:
        >>> layout_of_tensors({0: {"momentum_buffer": torch.zeros(3)}})[0].size
        (3,)
        >>> layout_of_tensors({0: {"history": []}})
    """
    entries = []
    for index, own in state.items():
        if not own:
            return None
        for name, value in own.items():
            if not _is_plain(value):
                return None
            entries.append(Entry(index, name, value.dtype, tuple(value.shape), value.stride()))
    return tuple(entries)


def _is_plain(value: Any) -> bool:
    if type(value) is not Tensor or value.requires_grad or value.device.type != "cpu":
        return False
    return value.layout is torch.strided and _is_dense(value)


def _is_dense(tensor: Tensor) -> bool:
    """Tell whether a tensor's numbers lie side by side, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


class StateTable:
    """Hold the states of one layout, a row each.

    Rows lie in blocks of some megabytes, of which only those pages are in memory that were written to.

    Args:
        layout: Which tensors a state consists of.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._starts = np.cumsum([0, *(entry.words for entry in layout)])
        self._width = int(self._starts[-1])
        self._per_block = max(1, _BLOCK_WORDS // max(self._width, 1))
        self._blocks: list[Tensor] = []
        self._used = 0
        self._free: list[int] = []
        self._working: tuple[Tensor, dict[int, dict[str, Tensor]]] | None = None

    def take(self) -> int:
        """Return the number of a row that is free, and no longer is."""
        if self._free:
            return self._free.pop()
        if self._used == len(self._blocks) * self._per_block:
            self._blocks.append(torch.empty(self._per_block, self._width, dtype=torch.int64))
        self._used += 1
        return self._used - 1

    def give_back(self, row: int) -> None:
        """Let a row be free.

        Args:
            row: Its number.
        """
        self._free.append(row)

    @property
    def is_empty(self) -> bool:
        """Whether all rows are free."""
        return len(self._free) == self._used

    def read(self, row: int) -> dict[int, dict[str, Tensor]]:
        """Return a state, each tensor of which has memory of its own.

        Args:
            row: Number of its row.
        """
        return self._by_index([view.clone() for view in self._views(self._row(row))])

    def write(self, row: int, state: State) -> None:
        """Put down a state of this layout.

        Args:
            row: Number of its row.
            state: The state; may be that of `lent`.
        """
        tensors = [value for own in state.values() for value in own.values()]
        if tensors:
            torch._foreach_copy_(self._views(self._row(row)), tensors)

    def lent(self, row: int) -> dict[int, dict[str, Tensor]]:
        """Return a state to work with, in memory that is there for the one state in use.

        Args:
            row: Number of its row.
        """
        if self._working is None:
            memory = torch.empty(self._width, dtype=torch.int64)
            self._working = memory, self._by_index(self._views(memory))
        memory, state = self._working
        memory.copy_(self._row(row))
        return {index: dict(own) for index, own in state.items()}

    def write_lent(self, row: int, state: State) -> bool:
        """Put down what has become of the state in use, if it consists of the same tensors still.

        Args:
            row: Number of its row.
            state: What the optimizer holds now.

        Returns:
            Whether it does; if not, nothing was written.
        """
        if self._working is None or not _same_tensors(self._working[1], state):
            return False
        self._row(row).copy_(self._working[0])
        return True

    def stacked(self, rows: Sequence[int]) -> list[Tensor]:
        """Return the tensors of several states, stacked, in the order of the layout.

        Args:
            rows: Numbers of their rows.
        """
        together = torch.empty(len(rows), self._width, dtype=torch.int64)
        for block, places, within in self._in_blocks(rows):
            together[places] = block[within]
        return [view.contiguous() for view in self._views(together)]

    def write_stacked(self, rows: Sequence[int], stacks: Sequence[Tensor]) -> None:
        """Put down several states.

        Args:
            rows: Numbers of their rows.
            stacks: Their tensors, as `stacked` returns them.
        """
        together = torch.empty(len(rows), self._width, dtype=torch.int64)
        for view, stack in zip(self._views(together), stacks, strict=True):
            view.copy_(stack)
        for block, places, within in self._in_blocks(rows):
            block[within] = together[places]

    def columns(self, rows: Sequence[int], names: frozenset[str]) -> npt.NDArray[np.float64]:
        """Return the numbers that entries of some names consist of, shape ``(rows, entries)``.

        Args:
            rows: Numbers of the rows.
            names: Which entries; each is a single number.
        """
        chosen = [number for number, entry in enumerate(self.layout) if entry.name in names]
        values = np.zeros((len(rows), len(chosen)))
        if chosen:
            for block, places, within in self._in_blocks(rows):
                views = self._views(block)
                for column, number in enumerate(chosen):
                    values[places, column] = views[number][within].double().numpy()
        return values

    def _row(self, row: int) -> Tensor:
        block, within = divmod(row, self._per_block)
        return self._blocks[block][within]

    def _in_blocks(self, rows: Sequence[int]) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """Yield blocks, places of rows among those given, and where these are within the block."""
        numbers = np.asarray(rows, dtype=np.int64)
        blocks, within = np.divmod(numbers, self._per_block)
        for block in np.unique(blocks).tolist():
            places = np.flatnonzero(blocks == block)
            yield self._blocks[block], places, torch.from_numpy(within[places])

    def _views(self, rows: Tensor) -> list[Tensor]:
        """Return a row's tensors, or those of several rows, stacked, as views.

        Args:
            rows: Shape ``(..., width)``.
        """
        views = []
        for start, entry in zip(self._starts.tolist(), self.layout, strict=False):
            numbers = rows.view(entry.dtype)
            offset = numbers.storage_offset() + start * _WORD // entry.dtype.itemsize
            size, stride = numbers.shape[:-1] + entry.size, numbers.stride()[:-1] + entry.stride
            views.append(numbers.as_strided(size, stride, offset))
        return views

    def _by_index(self, tensors: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
        state: dict[int, dict[str, Tensor]] = {}
        for entry, tensor in zip(self.layout, tensors, strict=True):
            state.setdefault(entry.index, {})[entry.name] = tensor
        return state


def _same_tensors(state: State, other: State) -> bool:
    if state.keys() != other.keys():
        return False
    pairs = ((own, other[index]) for index, own in state.items())
    return all(own.keys() == now.keys() and all(own[n] is now[n] for n in own) for own, now in pairs)
