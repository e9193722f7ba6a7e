"""Memory that several processes of this machine see, and where tensors lie in it.

It is a file without a name, so that nothing is left behind, however the processes end.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeAlias

import torch
from torch import Tensor

_RAM = Path("/dev/shm")
_ALIGNMENT = 64

File: TypeAlias = IO[bytes]
"""An open file."""


class SharedMemory:
    """Hold some bytes that other processes can see.

    Args:
        nbytes: How many.

    Attributes:
        bytes: The memory, uint8, of shape ``(nbytes,)``.
        file: The open file.

    Example:
        >>> memory = SharedMemory(4)
        >>> there = mapped(os.dup(memory.descriptor), 4)
        >>> memory.bytes[1] = 7
        >>> there.tolist()
        [0, 7, 0, 0]
    """

    def __init__(self, nbytes: int) -> None:
        self._map(_in_memory(partial(_reserve, nbytes=max(nbytes, 1))), nbytes)

    @classmethod
    def filled(cls, nbytes: int, contents: Mapping[int, memoryview]) -> SharedMemory:
        """Return memory with something in it, in half the time of filling what is there.

        Args:
            nbytes: How many bytes.
            contents: Bytes that lie in it, by the place of the first of them.
        """
        memory = cls.__new__(cls)
        memory._map(_in_memory(partial(_fill, nbytes=max(nbytes, 1), contents=contents)), nbytes)
        return memory

    def _map(self, file: File, nbytes: int) -> None:
        self.file = file
        self.bytes = _as_tensor(file.fileno(), max(nbytes, 1))[:nbytes]

    @property
    def descriptor(self) -> int:
        """The open file that another process maps; valid as long as this object is there."""
        return self.file.fileno()


def mapped(descriptor: int, nbytes: int, *, at_once: bool = False) -> Tensor:
    """Return the memory that another process has shared.

    Args:
        descriptor: The open file; closed here.
        nbytes: As it was made.
        at_once: Whether all of it is made accessible now, rather than page by page when it is first read.

    Returns:
        The same memory, uint8, of shape ``(nbytes,)``.
    """
    try:
        return _as_tensor(descriptor, max(nbytes, 1), at_once=at_once)[:nbytes]
    finally:
        os.close(descriptor)


def aligned(nbytes: int) -> int:
    """Return where the next thing begins after some bytes."""
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Shape:
    """What memory a tensor takes.

    Args:
        size: Its size.
        stride: Its strides, in elements.
        dtype: Of its elements.
        parameter: Whether it is a parameter, rather than a buffer.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    parameter: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Shape:
        """Return that of a tensor, packed without gaps in the order in which its elements lie."""
        packed = torch.empty_like(tensor, device="meta")
        parameter = isinstance(tensor, torch.nn.Parameter)
        return cls(tuple(packed.shape), packed.stride(), tensor.dtype, parameter)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        numel = torch.Size(self.size).numel()
        return numel * self.dtype.itemsize

    def within(self, memory: Tensor, offset: int) -> Tensor:
        """Return the tensor that begins somewhere in some memory."""
        flat = memory[offset : offset + self.nbytes].view(self.dtype)
        return flat.as_strided(self.size, self.stride, flat.storage_offset())


@dataclass(frozen=True)
class Layout:
    """Where the parameters and buffers of a module lie, one after the other.

    Args:
        shapes: Theirs, parameters first.
    """

    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Layout:
        """Return the layout of some tensors."""
        return cls(tuple(Shape.of(tensor) for tensor in tensors))

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take."""
        return sum(aligned(shape.nbytes) for shape in self.shapes)

    @property
    def parameters(self) -> int:
        """How many parameters there are, which come first."""
        return sum(shape.parameter for shape in self.shapes)

    def within(self, memory: Tensor, number: int) -> list[Tensor]:
        """Return the tensors of one of several such modules in some memory.

        Args:
            memory: Of `nbytes` for each of them.
            number: Which of them.
        """
        tensors, offset = [], number * self.nbytes
        for shape in self.shapes:
            tensors.append(shape.within(memory, offset))
            offset += aligned(shape.nbytes)
        return tensors


def _in_memory(make: Callable[[int], None]) -> File:
    """Return an open file without a name, made in main memory if there is room for it."""
    if _RAM.is_dir():
        try:
            return _made(make, str(_RAM))
        except OSError:
            pass  # containers often have 64 MiB of it; a file elsewhere is kept in memory as well as can be
    return _made(make, None)


def _made(make: Callable[[int], None], folder: str | None) -> File:
    file: File = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the memory is used
    try:
        make(file.fileno())
    except OSError:
        file.close()
        raise
    return file


def _reserve(descriptor: int, nbytes: int) -> None:
    # Without room for it, writing to the memory would end the process.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.truncate(descriptor, nbytes)


def _fill(descriptor: int, nbytes: int, contents: Mapping[int, memoryview]) -> None:
    for start, raw in contents.items():
        rest = raw
        while rest.nbytes:
            written = os.pwrite(descriptor, rest, start + raw.nbytes - rest.nbytes)
            rest = rest[written:]
    os.truncate(descriptor, nbytes)


def _as_tensor(descriptor: int, nbytes: int, *, at_once: bool = False) -> Tensor:
    flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if at_once else 0)  # it is Linux's
    return torch.frombuffer(mmap.mmap(descriptor, nbytes, flags=flags), dtype=torch.uint8)
