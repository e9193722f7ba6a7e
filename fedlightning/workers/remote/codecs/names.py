"""Classes and functions by import path, under an allow-list: the only way in which code is ever named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import default_collate
from typing_extensions import override

from fedlightning.pointers.operations import NAMES, OPERATIONS
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError

# Layers, optimizers and schedulers of torch hold data only, and building one has no effect outside of it.
_ALWAYS = ("torch.nn.modules", "torch.optim")
_KINDS = (nn.Module, Optimizer, LRScheduler)
_FUNCTIONS = {f"{function.__module__}:{function.__qualname__}": function for function in (default_collate,)}


class AllowedNames:
    """Name classes and functions, and find them by name.

    Args:
        modules: Python modules or packages, beside torch's own layers and optimizers, whose classes and
            functions may be named.

    Raises:
        ValueError: One is no dotted name, or of Python's standard library, which can do anything.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self.modules = tuple(modules)
        for name in self.modules:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"modules={name!r} is no dotted name of a Python module")
            if name.partition(".")[0] in sys.stdlib_module_names:
                raise ValueError(
                    f"modules={name!r} is of Python's standard library: list modules of your own"
                )

    def allows(self, module: str, thing: Any) -> bool:
        """Tell whether something in a Python module may be named: it, or a package, is on the list."""
        if _is_in(module, self.modules):
            return True
        return _is_in(module, _ALWAYS) and isinstance(thing, type) and issubclass(thing, _KINDS)

    def name(self, thing: Any) -> str:
        """Return the import path of a class or function.

        Raises:
            UnsendableError: It has none, or it is not on the list.
        """
        operation = NAMES.get(thing) if not isinstance(thing, type) else None
        if operation is not None:
            return operation
        for path, function in _FUNCTIONS.items():
            if function is thing:
                return path
        module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "<")
        if not module or module == "__main__" or "<" in qualname or _look_up(module, qualname) is not thing:
            raise UnsendableError(
                f"{thing!r} has no import path, so a worker in another process cannot find it: "
                f"define it at the top level of a module that both can import"
            )
        if module.partition(".")[0] in sys.stdlib_module_names and not self.allows(module, thing):
            raise UnsendableError(
                f"{thing!r} is code, which does not travel: let a program use it at the worker"
            )
        if not self.allows(module, thing):
            raise UnsendableError(
                f"{module}:{qualname} is not on the worker's list of modules: give the worker "
                f"modules=[{module!r}], which lets messages name its classes and functions"
            )
        return f"{module}:{qualname}"

    def find(self, path: Any) -> Any:
        """Return the class or function of an import path, importing its module if need be.

        Raises:
            MalformedMessageError: It is not on the list, or there is none.
        """
        if type(path) is not str:
            raise MalformedMessageError(f"an import path is a string, not a {type(path).__name__}")
        if path in OPERATIONS:
            return OPERATIONS[path]
        if path in _FUNCTIONS:
            return _FUNCTIONS[path]
        module, _, qualname = path.partition(":")
        if "__" in path or not self.may_import(module):
            raise MalformedMessageError(f"{path[:200]!r} is not on this worker's list of modules")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MalformedMessageError(f"{module!r} cannot be imported here: {error}") from error
        found = _look_up(module, qualname)
        # What a listed module has merely imported is not listed: its own name says where it comes from.
        if not isinstance(found, (type, FunctionType)) or (found.__module__, found.__qualname__) != (
            module,
            qualname,
        ):
            raise MalformedMessageError(f"{path[:200]!r} names no class or function of that module")
        if not self.allows(module, found):
            raise MalformedMessageError(f"{path[:200]!r} is not on this worker's list of modules")
        return found

    def may_import(self, module: str) -> bool:
        """Tell whether a Python module may be imported to look for a name in it."""
        return _is_in(module, (*_ALWAYS, *self.modules))


class AnyNames(AllowedNames):
    """Allow whatever has an import path: for what a process's own starter says, and for nobody else."""

    @override
    def allows(self, module: str, thing: Any) -> bool:
        return True

    @override
    def may_import(self, module: str) -> bool:
        return True


def _is_in(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _look_up(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
