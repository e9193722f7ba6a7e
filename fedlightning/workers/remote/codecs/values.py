"""How plain Python and torch values cross the wire: containers, slices, dtypes, and the like.

Each is packed by its exact type: a subclass may mean more than its items tell, and is refused instead.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import partial
from itertools import chain
from types import EllipsisType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register, register_family
from fedlightning.workers.remote.codecs.tensors import DTYPES
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError

_LAYOUTS = {str(value): value for value in vars(torch).values() if isinstance(value, torch.layout)}
_FORMATS = {str(value): value for value in vars(torch).values() if isinstance(value, torch.memory_format)}
_TUPLES = {
    name: value
    for name, value in vars(torch.return_types).items()
    if isinstance(value, type) and issubclass(value, tuple)
}


def _pack_items(value: Any, packer: Packer) -> list[Any]:
    return packer.pack_each(value)


def _pack_pairs(value: dict[Any, Any], packer: Packer) -> list[Any]:
    return packer.pack_each(chain.from_iterable(value.items()))


def _unpack_pairs(items: list[Any], unpacker: Unpacker) -> list[tuple[Any, Any]]:
    parts = unpacker.unpack_each(items)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _unpack_tensor(items: list[Any], unpacker: Unpacker) -> Tensor:
    (position,) = items
    if type(position) is not int or not 0 <= position < len(unpacker.tensors):
        raise MalformedMessageError(f"{position!r:.80} is no position of a tensor")
    return unpacker.tensors[position]


def _unpack_slice(items: list[Any], unpacker: Unpacker) -> slice:
    start, stop, step = map(unpacker.unpack, items)
    return slice(start, stop, step)


def _register_table(kind: type, tag: str, table: dict[str, Any]) -> None:
    names = {value: name for name, value in table.items()}
    register(kind, tag, lambda value, packer: [names[value]], lambda items, unpacker: table[items[0]])


def _register_containers() -> None:
    for kind in (tuple, list, set, frozenset, torch.Size):
        # Bound at definition: each kind keeps its own.
        def unpack(items: list[Any], unpacker: Unpacker, kind: Any = kind) -> Any:
            return kind(unpacker.unpack_each(items))

        register(kind, kind.__name__, _pack_items, unpack)
    for mapping in (dict, OrderedDict, Counter):

        def unpack_pairs(items: list[Any], unpacker: Unpacker, kind: Any = mapping) -> Any:
            return kind(dict(_unpack_pairs(items, unpacker)))

        register(mapping, mapping.__name__, _pack_pairs, unpack_pairs)


def _refuse_generator(value: Any, packer: Packer) -> list[Any]:
    raise UnsendableError(
        "a torch.Generator cannot be sent: it is a stream of this process. Send a seed, and make the "
        "generator at the worker"
    )


def _refuse_all(items: list[Any], unpacker: Unpacker) -> Any:
    raise MalformedMessageError("values of this type are never sent")


def _pack_array(value: np.ndarray[Any, Any], packer: Packer) -> list[Any]:
    if value.dtype.kind not in "biufc":
        raise UnsendableError(f"an array of {value.dtype} cannot be sent: send numbers, or lists of strings")
    # torch takes neither negative strides nor arrays that are not writable.
    return [packer.tensors.add(torch.from_numpy(np.array(value)))]


def _pack_call(value: partial[Any], packer: Packer) -> list[Any]:
    return [packer.pack(part) for part in (value.func, value.args, value.keywords)]


def _unpack_call(items: list[Any], unpacker: Unpacker) -> partial[Any]:
    function, args, keywords = map(unpacker.unpack, items)
    return partial(function, *args, **keywords)


def _register_torch() -> None:
    register_family(
        Tensor, "tensor", lambda value, packer: [packer.tensors.add(value)], lambda i, u: _unpack_tensor(i, u)
    )
    _register_table(torch.dtype, "dtype", DTYPES)
    _register_table(torch.layout, "layout", _LAYOUTS)
    _register_table(torch.memory_format, "memory_format", _FORMATS)
    register(torch.device, "device", lambda value, packer: [str(value)], lambda i, u: torch.device(*i))
    register(torch.Generator, "generator", _refuse_generator, _refuse_all)
    for name, kind in _TUPLES.items():

        def unpack(items: list[Any], unpacker: Unpacker, kind: Any = kind) -> Any:
            return kind(unpacker.unpack_each(items))

        register(kind, f"return_types.{name}", _pack_items, unpack)


def _register_python() -> None:
    register(
        int, "int", lambda value, packer: [str(value)], lambda items, unpacker: int(str(items[0])[:5000])
    )
    register(complex, "complex", lambda v, packer: [v.real, v.imag], lambda items, u: complex(*items))
    register(slice, "slice", lambda v, packer: _pack_items((v.start, v.stop, v.step), packer), _unpack_slice)
    register(range, "range", lambda v, packer: [v.start, v.stop, v.step], lambda items, u: range(*items))
    register(EllipsisType, "...", lambda value, packer: [], lambda items, unpacker: ...)
    register(partial, "partial", _pack_call, _unpack_call)
    for kind in (type, FunctionType, type(torch.add), type(torch.relu)):
        register_family(
            kind,
            "name" if kind is type else f"name of {kind.__name__}",
            lambda value, packer: [packer.surroundings.names.name(value)],
            lambda items, unpacker: unpacker.surroundings.names.find(*items),
        )


def _register_numpy() -> None:
    register(
        np.ndarray, "array", _pack_array, lambda items, unpacker: _unpack_tensor(items, unpacker).numpy()
    )
    register_family(
        np.generic,
        "number",
        lambda value, packer: _pack_array(np.asarray(value), packer),
        lambda items, unpacker: _unpack_tensor(items, unpacker).numpy()[()],
    )


_register_containers()
_register_python()
_register_torch()
_register_numpy()
