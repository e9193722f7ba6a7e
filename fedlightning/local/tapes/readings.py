"""What steps read in Python beside their batches: whether that is all known, and still the same later on.

A step may read whatever Python can reach, and most of that can change unseen. So the code that ran is looked
through: only where it reads nothing but tensors, plain values of modules, plain globals, and torch's own
functions, is what it has read known. Any doubt counts as a no.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedlightning.local.hooks import is_hooked
from fedlightning.local.tapes.same import Same
from fedlightning.local.tapes.torch_functions import is_module_of_torch, only_computes
from fedlightning.local.tapes.torch_settings import settings_now
from fedlightning.local.tapes.watching import OF_TORCH, PLAIN, Watch

# fmt: off
_HARMLESS = frozenset({
    "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int",
    "isinstance", "len", "list", "map", "max", "min", "pow", "range", "reversed", "round", "set",
    "slice", "sorted", "str", "sum", "super", "tuple", "zip", "ValueError", "TypeError",
    "RuntimeError",
})
"""Builtins that depend on their arguments alone."""

_BUILTINS = tuple(getattr(builtins, name) for name in sorted(_HARMLESS))

_TELLING = frozenset({
    "item", "tolist", "numpy", "data_ptr", "storage", "untyped_storage", "storage_offset", "grad",
    "seed", "initial_seed", "get_rng_state", "get_state", "random", "backends", "get_num_threads",
    "get_num_interop_threads", "get_deterministic_debug_mode", "is_warn_always_enabled",
    "is_anomaly_enabled", "_version", "manual_seed", "set_rng_state", "set_state", "default_generator",
    "apply_", "map_", "map2_", "format", "format_map",
})
"""Names by which tensors tell of numbers, strings of attributes, and torch of what changes by itself."""
# fmt: on

_REFUSED = (
    *("IMPORT_", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR", "LOAD_BUILD_CLASS"),
    "MATCH_CLASS",  # reads attributes whose names stand elsewhere
    "SETUP_FINALLY",  # as Python 3.10 begins what catches errors
)
_CALLED = ("forward", "training_step", "__call__", "__getattr__", "__getattribute__", "_call_impl")
"""Methods that are called without anybody's reading their names."""

_TENSORS = frozenset({"_parameters", "_buffers", "_modules"})
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - _TENSORS

Place: TypeAlias = tuple[Mapping[str, Any], str]
"""Attributes or globals, and the name of one."""


class _Unknown(Exception):
    """A step may depend on what is not known."""


@dataclass(frozen=True)
class Beside:
    """Modules whose calls are no part of what is recorded: they are made each time, beside it.

    Args:
        modules: The modules; whoever records a step keeps it from reading anything else of them.
        methods: Names of the methods that are called so.
        settings: Names of attributes that it may read.
    """

    modules: Sequence[nn.Module] = ()
    methods: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()


class Readings:
    """All that the steps of a module have read in Python so far: places, and what was there.

    Args:
        module: The module.
        trained: Its parameters that have others in their places during a step.
        beside: Those of its modules that are called beside what is recorded.

    Attributes:
        why_not: Why not all of it is known; empty if it is.
    """

    def __init__(
        self, module: nn.Module, trained: Sequence[Tensor] = (), beside: Beside | None = None
    ) -> None:
        self.why_not = ""
        self._module = module
        self._beside = beside or Beside()
        self._are_beside = {*map(id, self._beside.modules)}
        self._trained = {id(tensor) for tensor in trained}
        self._names: dict[int, tuple[Mapping[str, Any], set[str]]] = {}
        self._before: list[Any] | None = None

    def add(self, watch: Watch) -> None:
        """Add what a step has read; what was read before must still be the same.

        Args:
            watch: Has watched it.
        """
        self.why_not = self.why_not or watch.why_not
        self.look_again()
        if self.why_not:
            return
        try:
            for place, name in self._places_of(watch):
                self._names.setdefault(id(place), (place, set()))[1].add(name)
            self._before = self._now()
        except _Unknown as unknown:
            self.why_not = str(unknown)

    def look_again(self) -> None:
        """Find that nothing is known any more, if what was read has changed."""
        if not self.why_not and not self.are_the_same():
            self.why_not = "what was read before has changed"

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
        by_code = [
            place for code, variables in watch.codes.items() for place in _read_by(code, variables, names)
        ]
        by_code += _of_torch({id(place): place for place, _ in by_code}.values(), names)
        # A stand-in for ``log`` is there during steps.
        hidden = {"log"}
        for child in modules:
            if id(child) not in self._are_beside:
                own = vars(child).keys() & names
                by_code += [
                    (vars(child), name) for name in own - (hidden if child is self._module else set())
                ]
        by_code += self._in_kinds(modules, names)
        for place, name in by_code:
            if _may_be_added_to(place.get(name)):
                raise _Unknown(f"{name} is, or has, a list or a set, which the step may change")
        yield from by_code
        for child in modules:
            yield from ((vars(child), name) for name in self._read_by_torch(child, watch.touched))
        touched = [child for child in watch.touched if id(child) not in self._are_beside]
        yield from ((kind, name) for kind in _kinds_of([self._module, *touched]) for name in _CALLED)

    def _in_kinds(self, modules: Sequence[nn.Module], names: set[str]) -> Iterator[Place]:
        """Yield where names may have been found in classes, but for methods that are called beside."""
        plain = [child for child in modules if id(child) not in self._are_beside]
        yield from ((kind, name) for kind in [*_kinds_of(plain), vars(Tensor)] for name in names)
        left = names - self._beside.methods
        yield from ((kind, name) for kind in _kinds_of(self._beside.modules) for name in left)

    def _read_by_torch(self, child: nn.Module, touched: Sequence[nn.Module]) -> set[str]:
        """Return what of a module's attributes torch's code may have read, tensors and modules apart."""
        own = vars(child).keys() - _TENSORS
        if id(child) in self._are_beside:
            return own & (_OF_EVERY_MODULE | self._beside.settings)
        if child is self._module:
            return own & _OF_EVERY_MODULE - {"log"}
        return own if any(child is one for one in touched) else set()

    def _now(self) -> list[Any]:
        slots = [self._slots_of(child) for child in self._module.modules()]
        return [
            *settings_now(),
            *slots,
            *(
                {name: _fixed(place[name]) for name in names & place.keys()}
                for place, names in self._names.values()
            ),
        ]

    def _slots_of(self, module: nn.Module) -> tuple[Any, ...]:
        """Return a module's class, the names of all that it has, and which tensors and modules."""
        own = vars(module)
        if id(module) in self._are_beside:
            return type(module), [(name, _same(part)) for name, part in own["_modules"].items()]
        slots = [
            (name, Same(value) if id(value) in self._trained else _same(value))
            for kind in sorted(_TENSORS)
            for name, value in own[kind].items()
        ]
        return type(module), {*own} - {"log"}, slots


def _read_by(code: CodeType, variables: Mapping[str, Any], names: set[str]) -> Iterator[Place]:
    """Yield the globals that code reads, and add the names of the attributes that it reads."""
    if {*code.co_freevars} - {"__class__"}:
        raise _Unknown(f"{code.co_name} reads variables of another function")
    before = ""
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        # It might catch the error by which a recording is stopped, and the errors of a step are not played.
        if before == "PUSH_EXC_INFO" and operation != "WITH_EXCEPT_START":
            raise _Unknown(f"{code.co_name} catches errors")
        before = operation
        if operation.startswith(_REFUSED):
            raise _Unknown(f"{code.co_name}: {operation} {name}")
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            if name not in variables and name not in _HARMLESS:
                raise _Unknown(f"{code.co_name} calls {name}")
            yield variables, name
            if name not in variables:
                yield vars(builtins), name
        elif operation.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER")):
            if name in _TELLING or (name.startswith("__") and name.endswith("__") and name != "__init__"):
                raise _Unknown(f"{code.co_name} calls {name}")
            names.add(name)


def _of_torch(read: Iterable[Mapping[str, Any]], names: set[str]) -> list[Place]:
    """Return what may have been read of torch's modules, and of ``math``, which anybody may patch."""
    found: list[Place] = []
    left = [value for place in read for value in place.values() if _is_known_module(value)]
    seen = set[int]()
    while left:
        own = vars(left.pop())
        if id(own) not in seen:
            seen.add(id(own))
            found += [(own, name) for name in own.keys() & names]
            left += [own[name] for name in own.keys() & names if _is_known_module(own[name])]
    return found


def _kinds_of(modules: Sequence[nn.Module]) -> list[Mapping[str, Any]]:
    """Return the attributes of all classes of some modules that can be changed."""
    kinds = dict.fromkeys(kind for child in modules for kind in type(child).__mro__ if kind is not object)
    return [vars(kind) for kind in kinds]


def _same(value: Any) -> tuple[Any, ...]:
    """Return what only the same thing comes to; with the same memory, if it is a tensor.

    Raises:
        _Unknown: It is a tensor with attributes or hooks of its own, or none that just lies in memory.
    """
    if not isinstance(value, Tensor):
        return (Same(value),)
    if type(value) not in (Tensor, nn.Parameter) or vars(value) or value.layout is not torch.strided:
        raise _Unknown(f"a {type(value).__name__} that is not plain")
    if is_hooked(value):
        raise _Unknown("a tensor with a hook")
    return Same(value), value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad


def _fixed(value: Any) -> Any:
    """Return what a value is now, to be compared with what it is later.

    Raises:
        _Unknown: It may change in ways that would not be seen.
    """
    if type(value) in PLAIN:
        # Zeros have signs, which no comparison tells.
        return type(value), repr(value) if type(value) in (float, complex) else value
    if isinstance(value, OF_TORCH):
        return value
    if type(value) in (list, tuple, set, frozenset, torch.Size):
        return type(value), [_fixed(part) for part in value]
    if type(value) in (dict, OrderedDict) and not value:
        return dict, ()
    if isinstance(value, Tensor) or _is_of_torch(value):
        return _same(value)
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        return Same(value), [_fixed(part) for part in parts]
    if (function := _function_of(value)) is not None:
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return Same(value), Same(function.__code__), [_fixed(part) for part in defaults]
    raise _Unknown(f"a {type(value).__name__}: {value}")


def _may_be_added_to(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return any(map(_may_be_added_to, value))
    if (function := _function_of(value)) is not None:
        defaults = function.__defaults__ or (), tuple((function.__kwdefaults__ or {}).values())
        return any(map(_may_be_added_to, defaults))
    return type(value) in (list, set)


def _is_known_module(value: Any) -> bool:
    return value is math or is_module_of_torch(value)


def _is_of_torch(value: Any) -> bool:
    """Tell whether it is torch's, ``math``'s or a builtin, and does nothing but compute."""
    if isinstance(value, BuiltinFunctionType) and value.__module__ == "math":
        return True
    return _is_known_module(value) or only_computes(value) or any(value is one for one in _BUILTINS)


def _function_of(value: Any) -> FunctionType | None:
    """Return the function that it is, which would be watched itself when it is called."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if not inspect.isfunction(value) or {*vars(value)} - {"__override__"}:
        return None
    return None if {*value.__code__.co_freevars} - {"__class__"} else value
