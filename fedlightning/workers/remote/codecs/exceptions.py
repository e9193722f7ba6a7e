"""Exceptions cross the wire as type, text and cause. No constructor of an exception runs on arrival."""

from __future__ import annotations

import builtins
import sys
import traceback
from types import FunctionType
from typing import Any

from fedlightning.workers.errors import WorkerError
from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register_family
from fedlightning.workers.remote.errors import MalformedMessageError

_DEEPEST = 16
_PLAIN = (str, int, float, bool, type(None))


class RemoteTraceback(Exception):
    """Show where an exception was raised in the other process; it is the cause of the copy raised here.

    Args:
        text: The traceback, as Python prints it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _pack(error: BaseException, packer: Packer) -> list[Any]:
    return _pack_chain(error, _DEEPEST)


def _pack_chain(error: BaseException, depth: int) -> list[Any]:
    kind = type(error)
    base = next(base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base)
    arguments = list(error.args) if all(type(item) in _PLAIN for item in error.args) else None
    attributes = {
        name: value
        for name, value in vars(error).items()
        if type(value) in _PLAIN and not name.startswith("_")
    }
    cause = error.__cause__ if error.__suppress_context__ else error.__cause__ or error.__context__
    followed = _pack_chain(cause, depth - 1) if cause is not None and depth > 0 else None
    pairs = [part for pair in attributes.items() for part in pair]
    return [kind.__module__, kind.__qualname__, base, arguments, str(error), pairs, followed, _place(error)]


def _place(error: BaseException) -> str:
    # Where the worker itself made an error of its own is of no use to anybody.
    if error.__traceback__ is None or isinstance(error, WorkerError):
        return ""
    return "".join(traceback.format_exception(error, chain=False))


def _unpack(items: list[Any], unpacker: Unpacker) -> BaseException:
    module, qualname, base, arguments, text, pairs, cause, place = items
    for item in (module, qualname, base, text, place):
        if type(item) is not str:
            raise MalformedMessageError("an exception is told by strings")
    error = _make(_find(module, qualname), arguments, pairs, text)
    if error is None or str(error) != text:
        error = _stand_in(qualname, base, text)
    if cause is not None:
        error.__cause__ = _unpack(cause, unpacker)
    elif place:
        error.__cause__ = RemoteTraceback(place)
    return error


def _find(module: str, qualname: str) -> type[BaseException] | None:
    """Return an exception class that is loaded here, if no code of its own would run when one is made."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    return None if isinstance(found.__new__, FunctionType) else found


def _make(
    kind: type[BaseException] | None, arguments: Any, pairs: list[Any], text: str
) -> BaseException | None:
    if kind is None:
        return None
    error = kind.__new__(kind)
    error.args = tuple([text] if arguments is None else arguments)
    vars(error).update(dict(zip(pairs[::2], pairs[1::2], strict=True)))
    return error


def _stand_in(qualname: str, base: str, text: str) -> BaseException:
    """Make an exception of the same name for a class that is not here, to be caught as its built-in base."""
    parent = getattr(builtins, base, Exception)
    if not (isinstance(parent, type) and issubclass(parent, Exception)):
        parent = Exception
    name = qualname.rpartition(".")[2]
    kind: type[Exception] = type(name, (parent,), {"__str__": lambda error: text, "__module__": __name__})
    error = kind.__new__(kind)
    error.args = (text,)
    return error


register_family(BaseException, "exception", _pack, _unpack)
