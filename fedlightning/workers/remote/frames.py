"""The bytes of a message: a header of fixed size, the structure as msgpack, then the tensors' memory."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

from fedlightning.workers.remote.codecs.packing import Packer, Surroundings, Unpacker
from fedlightning.workers.remote.codecs.tensors import allocate, finish
from fedlightning.workers.remote.errors import BrokenChannelError, MalformedMessageError, UnsendableError

VERSION = 1
MAX_MESSAGE_BYTES = 16 * 2**30
"""Longer messages are refused, unless a worker is told otherwise."""

_MAGIC = b"FLtn"
_HEADER = struct.Struct("<4sIQQ")
HEADER_BYTES = _HEADER.size
# Names, shapes and numbers; bulk belongs into tensors.
_MAX_STRUCTURE_BYTES = 64 * 2**20
_MAX_ITEMS = 2**20
# Of msgpack, to begin with. By default it takes one MiB, which many a C library maps anew for each message.
_BUFFER_BYTES = 4096


class Header(NamedTuple):
    """Say how much follows: bytes of structure, then bytes of tensors."""

    structure: int
    memory: int


def encode(
    value: Any, surroundings: Surroundings, limit: int = MAX_MESSAGE_BYTES
) -> list[bytes | memoryview]:
    """Make the parts of a message, to be sent one after the other.

    Args:
        value: What to send.
        surroundings: What this side knows and allows.
        limit: The most bytes that the other side accepts.

    Returns:
        Bytes; views of them for tensors, which are not copied where they are dense.

    Raises:
        UnsendableError: Something in it cannot be sent, or it is too long.
    """
    packer = Packer(surroundings)
    root = packer.pack(value)
    try:
        structure = msgpack.packb(
            [packer.tensors.entries, root], unicode_errors="surrogatepass", buf_size=_BUFFER_BYTES
        )
    except (ValueError, OverflowError) as error:
        raise UnsendableError(f"a {type(value).__name__} cannot be sent: {error}") from error
    memory = packer.tensors.nbytes
    if len(structure) > _MAX_STRUCTURE_BYTES or len(structure) + memory > limit:
        raise UnsendableError(
            f"a message of {len(structure)} bytes beside {memory} bytes of tensors is too long (at most "
            f"{_MAX_STRUCTURE_BYTES} and {limit} together): send it in parts, bulk as tensors"
        )
    header = _HEADER.pack(_MAGIC, VERSION, len(structure), memory)
    return [header + structure, *packer.tensors.memories]


def read_header(data: bytes, limit: int) -> Header:
    """Read what comes first.

    Raises:
        BrokenChannelError: It is no header of this version, or announces more than the limit. Where the next
            message begins is then unknown.
    """
    magic, version, structure, memory = _HEADER.unpack(data)
    if magic != _MAGIC:
        raise BrokenChannelError(f"{data[:4]!r} begins no message of fedlightning")
    if version != VERSION:
        raise BrokenChannelError(
            f"the other side speaks version {version} of the protocol, this one {VERSION}"
        )
    if structure > _MAX_STRUCTURE_BYTES or structure + memory > limit:
        raise BrokenChannelError(
            f"a message of {structure} bytes beside {memory} bytes of tensors is longer than {limit} bytes"
        )
    return Header(structure, memory)


class Incoming:
    """A message whose structure has arrived, and whose tensors' memory is still to come.

    Args:
        structure: Its bytes; not trusted.
        header: What was announced.

    Attributes:
        tensors: Where the memory is to go; see `tensors.bytes_of`.

    Raises:
        MalformedMessageError: The structure is none.
    """

    def __init__(self, structure: bytes, header: Header) -> None:
        self._entries, self._root = _read_structure(structure)
        self.tensors = allocate(self._entries, header.memory)

    @property
    def tag(self) -> Any:
        """What kind of value it is, before anything of it is made."""
        return self._root[0] if type(self._root) is list and self._root else None

    def decode(self, surroundings: Surroundings) -> Any:
        """Make the value, when all memory has arrived.

        Raises:
            MalformedMessageError: It is none.
        """
        return Unpacker(surroundings, finish(self.tensors, self._entries)).unpack_root(self._root)


def _read_structure(structure: bytes) -> list[Any]:
    try:
        parts = msgpack.unpackb(
            structure,
            unicode_errors="surrogatepass",
            max_array_len=_MAX_ITEMS,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, MemoryError, RecursionError) as error:
        raise MalformedMessageError(
            f"the structure is no msgpack: {error or type(error).__name__}"
        ) from error
    if type(parts) is not list or len(parts) != 2:
        raise MalformedMessageError("the structure does not consist of a table and a value")
    return parts
