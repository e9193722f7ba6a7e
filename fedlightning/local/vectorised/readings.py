"""What steps read in Python beside their batches: whether that is all known, and still the same later on.

A step may read whatever Python can reach, and most of that can change unseen. So the code that ran is looked
through: only where it reads nothing but tensors, plain values of modules, plain globals, and torch's own
functions, is what it has read known. Any doubt counts as a no.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedlightning.local.vectorised.watching import OF_TORCH, PLAIN, Watch

# fmt: off
_HARMLESS = frozenset({
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int",
    "isinstance", "len", "list", "map", "max", "min", "pow", "range", "reversed", "round", "set",
    "slice", "sorted", "str", "sum", "super", "tuple", "zip", "ValueError", "TypeError",
    "RuntimeError",
})
"""Builtins that depend on their arguments alone."""

_TELLING = frozenset({
    "item", "tolist", "numpy", "data_ptr", "storage", "untyped_storage", "seed", "initial_seed",
    "get_rng_state", "get_state", "random",
})
"""Names by which tensors tell Python of numbers, and torch of what changes by itself."""
# fmt: on

_REFUSED = ("IMPORT_", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR", "LOAD_BUILD_CLASS")
_TENSORS = frozenset({"_parameters", "_buffers", "_modules"})
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - _TENSORS

Place: TypeAlias = tuple[Mapping[str, Any], str]
"""Attributes or globals, and the name of one."""


class _Unknown(Exception):
    """A step may depend on what is not known."""


class Readings:
    """All that the steps of a module have read in Python so far: places, and what was there.

    Args:
        module: The module.
        trained: Its parameters that have others in their places during a step.

    Attributes:
        why_not: Why not all of it is known; empty if it is.
    """

    def __init__(self, module: nn.Module, trained: Sequence[Tensor] = ()) -> None:
        self.why_not = ""
        self._module = module
        self._trained = {id(tensor) for tensor in trained}
        self._places: list[Place] = []
        self._before: list[Any] | None = None

    def add(self, watch: Watch) -> None:
        """Add what a step has read; what was read before must still be the same.

        Args:
            watch: Has watched it.
        """
        self.why_not = self.why_not or watch.why_not
        if self.why_not:
            return
        try:
            self._places += self._places_of(watch)
            self._before = self._now()
        except _Unknown as unknown:
            self.why_not = str(unknown)

    def are_the_same(self) -> bool:
        """Tell whether other steps would read the same; not if nobody knows."""
        if self.why_not:
            return False
        try:
            return self._before is None or self._now() == self._before
        except _Unknown:
            return False

    def _places_of(self, watch: Watch) -> Iterator[Place]:
        modules, names = list(self._module.modules()), set[str]()
        if not {*map(id, watch.touched)} <= {*map(id, modules)}:
            raise _Unknown("a module that is no part of the one that is trained")
        for code, variables in watch.codes.items():
            yield from _read_by(code, variables, names)
        for child in modules:
            yield from ((vars(child), name) for name in self._read_of(child, names, watch.touched))
        yield from ((kind, name) for kind in _kinds_of(modules) for name in names)
        called = ("forward", "training_step")
        yield from ((kind, name) for kind in _kinds_of([self._module, *watch.touched]) for name in called)

    def _read_of(self, child: nn.Module, names: set[str], touched: Sequence[nn.Module]) -> set[str]:
        """Return what of a module's attributes may have been read, tensors and modules apart."""
        own = vars(child).keys() - _TENSORS
        if child is self._module:
            return own & (names | _OF_EVERY_MODULE) - {"log"}
        return own if any(child is one for one in touched) else own & names

    def _now(self) -> list[Any]:
        settings = [torch.get_default_dtype(), *map(torch.is_autocast_enabled, ("cpu", "cuda"))]
        slots = [self._slots_of(child) for child in self._module.modules()]
        return [*settings, *slots, *(_fixed(place.get(name, _Absent)) for place, name in self._places)]

    def _slots_of(self, module: nn.Module) -> tuple[Any, ...]:
        """Return the names of all that a module has, and which tensors and modules."""
        own = vars(module)
        slots = [
            (name, _Same(value) if id(value) in self._trained else _same(value))
            for kind in sorted(_TENSORS)
            for name, value in own[kind].items()
        ]
        return {*own} - {"log"}, slots


def _read_by(code: CodeType, variables: Mapping[str, Any], names: set[str]) -> Iterator[Place]:
    """Yield the globals that code reads, and add the names of the attributes that it reads."""
    if {*code.co_freevars} - {"__class__"}:
        raise _Unknown(f"{code.co_name} reads variables of another function")
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation.startswith(_REFUSED):
            raise _Unknown(f"{code.co_name}: {operation} {name}")
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            if name not in variables and name not in _HARMLESS:
                raise _Unknown(f"{code.co_name} calls {name}")
            yield variables, name
        elif operation.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER")):
            if name in _TELLING:
                raise _Unknown(f"{code.co_name} calls {name}")
            names.add(name)


class _Absent:
    """What stands where nothing is."""


def _kinds_of(modules: Sequence[nn.Module]) -> list[Mapping[str, Any]]:
    """Return the attributes of all classes of some modules."""
    return [vars(kind) for kind in dict.fromkeys(kind for child in modules for kind in type(child).__mro__)]


class _Same:
    """A thing that equals only itself, and that is kept as long as anybody compares with it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]  # as of all that is equal without being the same


def _same(value: Any) -> tuple[Any, ...]:
    """Return what only the same thing comes to; with the same memory, if it is a tensor."""
    if not isinstance(value, Tensor):
        return (_Same(value),)
    return _Same(value), value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad


def _fixed(value: Any) -> Any:
    """Return what a value is now, to be compared with what it is later.

    Raises:
        _Unknown: It may change in ways that would not be seen.
    """
    if type(value) in PLAIN:
        return type(value), value
    if isinstance(value, OF_TORCH) or value is _Absent:
        return value
    if type(value) in (list, tuple, set, frozenset, torch.Size):
        return type(value), [_fixed(part) for part in value]
    if isinstance(value, dict) and not value:
        return dict, ()
    if isinstance(value, Tensor) or _is_of_torch(value) or _is_function(value):
        return _same(value)
    raise _Unknown(f"a {type(value).__name__}: {value}")


def _is_of_torch(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__ == "math" or value.__name__.split(".")[0] == "torch"
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return str(value.__module__).split(".")[0] == "torch"
    return False


def _is_function(value: Any) -> bool:
    """Tell whether it is a function, which would be watched itself when it is called."""
    if isinstance(value, property):
        return True
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if not inspect.isfunction(value) or {*vars(value)} - {"__override__"}:
        return False
    return not {*value.__code__.co_freevars} - {"__class__"}
