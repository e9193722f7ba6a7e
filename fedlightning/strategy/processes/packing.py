"""Python objects as bytes for another process of the same user: pickle, with tensors by their bytes.

What `pickle` leaves out, such as the classes and functions of a notebook, `cloudpickle` takes along.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType
from typing import Any

import cloudpickle
import torch
from cloudpickle.cloudpickle import _make_function
from torch import Tensor, nn
from typing_extensions import override

from fedlightning.strategy.processes.shared_memory import SharedMemory, aligned

Known = Mapping[int, int]
"""What both sides know: the number of an object, by its ``id`` on this side."""

Place = tuple[int, int]
"""Where something lies in shared memory: its first byte, and how many there are."""


def pack(value: Any, known: Known | None = None, *, thorough: bool = False) -> bytes:
    """Return an object as bytes; its tensors are copied.

    Args:
        value: The object.
        known: What the other side has already: tensors and other instances of classes.
        thorough: Whether it may also be a list, a dict or the like, which takes longer to look for.

    Raises:
        Exception: Whatever `pickle` raises on what cannot be sent.
    """
    buffer = io.BytesIO()
    (_ThoroughPickler if thorough else _Pickler)(buffer, known or {}).dump(value)
    return buffer.getvalue()


def unpack(data: bytes, known: Sequence[Any] | Mapping[int, Any] = (), device: str = "cpu") -> Any:
    """Return the object that was packed.

    Args:
        data: What `pack` has returned.
        known: What was known to both sides, by number.
        device: Where tensors are placed that were on an accelerator.
    """
    with _surroundings(known, device):
        return _Unpickler(io.BytesIO(data)).load()


def pack_shared(value: Any) -> tuple[bytes, list[Place], SharedMemory]:
    """Return an object as bytes, and its tensors and arrays once for all processes.

    Args:
        value: The object.

    Returns:
        The bytes; the places of its tensors' and arrays' memory; and that memory.
    """
    found: list[pickle.PickleBuffer] = []
    buffer = io.BytesIO()
    _SharingPickler(buffer, found).dump(value)
    raws = [each.raw() for each in found]
    places, end = [], 0
    for raw in raws:
        places.append((end, raw.nbytes))
        end += aligned(raw.nbytes)
    memory = SharedMemory.filled(end, {start: raw for raw, (start, _) in zip(raws, places, strict=True)})
    return buffer.getvalue(), places, memory


def unpack_shared(data: bytes, places: Sequence[Place], memory: Tensor) -> Any:
    """Return the object that `pack_shared` was given; its tensors and arrays lie in the shared memory."""
    view = memory.numpy()
    with _surroundings((), "cpu"):
        return pickle.loads(data, buffers=[view[start : start + nbytes] for start, nbytes in places])


_NO_HOOKS = OrderedDict, ()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    def __init__(self, file: io.BytesIO, known: Known) -> None:
        super().__init__(file, protocol=5)
        self._known = known

    @override
    def reducer_override(self, obj: Any) -> Any:
        number = self._known.get(id(obj))
        if number is not None:
            return _entry, (number,)
        if type(obj) is OrderedDict and not obj and not vars(obj):
            return _NO_HOOKS  # each module has a dozen of them, and pickle takes longest for these
        if type(obj) in (Tensor, nn.Parameter) and _has_plain_bytes(obj):
            return _tensor, _in_bytes(obj)
        if not isinstance(obj, (type, FunctionType)):
            return NotImplemented  # cloudpickle comes to the same, more slowly
        return super().reducer_override(obj)


class _ThoroughPickler(_Pickler):
    def persistent_id(self, obj: Any) -> int | None:
        return self._known.get(id(obj))


class _Unpickler(pickle.Unpickler):
    @override
    def persistent_load(self, pid: Any) -> Any:
        return _entry(pid)

    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == (_make_function.__module__, _make_function.__name__):
            return _function
        return super().find_class(module_name, global_name)


script: dict[str, Any] | None = None
"""Where functions of the other side's program look for names; ``None`` for wherever they come to.

What takes a function apart, as `torch.compile` does, looks for them in the module that it names.
"""


def _function(code: Any, names: dict[str, Any], *rest: Any) -> Any:
    ours = script is not None and names.get("__name__") == "__main__"
    return _make_function(code, script if ours else names, *rest)


class _SharingPickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped
    def __init__(self, file: io.BytesIO, found: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, protocol=5, buffer_callback=found.append)
        self._storages: dict[int, _Storage] = {}

    @override
    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and _has_plain_bytes(obj) and obj.device.type == "cpu":
            # Many tensors may be views of one: their memory is taken along once.
            storage = obj.untyped_storage()
            held = self._storages.setdefault(storage.data_ptr(), _Storage(obj))
            place = (tuple(obj.shape), obj.stride(), obj.storage_offset())
            return _view, (held, obj.dtype, *place, obj.requires_grad)
        return super().reducer_override(obj)


class _Storage:
    """The memory of a tensor, which pickle takes for one thing however many tensors have it."""

    def __init__(self, tensor: Tensor) -> None:
        whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        self.bytes: Tensor = whole

    def __reduce__(self) -> Any:
        return _bytes, (_buffer(self.bytes),)


_known: ContextVar[Sequence[Any] | Mapping[int, Any]] = ContextVar("known", default=())
_device: ContextVar[str] = ContextVar("device", default="cpu")


@contextmanager
def _surroundings(known: Sequence[Any] | Mapping[int, Any], device: str) -> Iterator[None]:
    tokens = _known.set(known), _device.set(device)
    try:
        yield
    finally:
        _known.reset(tokens[0])
        _device.reset(tokens[1])


def _entry(number: int) -> Any:
    return _known.get()[number]


def _has_plain_bytes(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_conj()


def _in_bytes(tensor: Tensor) -> tuple[Any, ...]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw = _buffer(flat.view(torch.uint8)) if flat.numel() else b""
    away, kind = tensor.device.type != "cpu", type(tensor)
    return raw, tensor.dtype, tuple(tensor.shape), tensor.requires_grad, away, kind


def _buffer(tensor: Tensor) -> pickle.PickleBuffer:
    memory: Any = tensor.numpy()  # a buffer, of which NumPy's types say nothing
    return pickle.PickleBuffer(memory)


def _tensor(
    raw: Any, dtype: torch.dtype, shape: tuple[int, ...], requires_grad: bool, away: bool, kind: type[Tensor]
) -> Tensor:
    tensor = torch.frombuffer(bytearray(raw), dtype=dtype) if len(raw) else torch.empty(0, dtype=dtype)
    tensor = tensor.view(shape)
    if away:
        tensor = tensor.to(_device.get())
    if kind is nn.Parameter:
        return nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)


def _bytes(raw: Any) -> Tensor:
    return torch.frombuffer(raw, dtype=torch.uint8) if len(raw) else torch.empty(0, dtype=torch.uint8)


def _view(
    memory: Tensor,
    dtype: torch.dtype,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int,
    requires_grad: bool,
) -> Tensor:
    tensor = torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), offset, size, stride)
    return tensor.requires_grad_(requires_grad)
