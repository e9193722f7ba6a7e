"""The programs that workers offer, by name: a message names a function and never carries one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fedlightning.workers.policy import EGRESS_KINDS, EgressKind

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Program:
    """Describe a function that workers run on their objects.

    Args:
        name: ``module:function``.
        function: Called with the worker's objects in place of pointers.
        returns: As what its result leaves the worker.
    """

    name: str
    function: Callable[..., Any]
    returns: EgressKind


_PROGRAMS: dict[str, Program] = {}


def program(*, returns: EgressKind) -> Callable[[F], F]:
    """Register a module-level function as a program that workers offer.

    Args:
        returns: As what its result leaves: ``data``, ``module``, ``metrics`` or ``metadata``.

    Returns:
        A decorator that gives the function back unchanged. Registering a name again replaces the program,
        so that a notebook's cell can be run twice.

    Raises:
        ValueError: An unknown kind, or a function that has no name to call it by.

    Example:
        >>> from fedlightning.workers import VirtualWorker, program
        >>> @program(returns="metrics")
        ... def count(samples):
        ...     return len(samples)
        >>> bob = VirtualWorker(id="bob")
        >>> bob.run(count, bob.send([34, 58, 71]))
        3
    """
    if returns not in EGRESS_KINDS:
        raise ValueError(f"returns={returns!r} is no kind of egress: use one of {', '.join(EGRESS_KINDS)}")

    def register(function: F) -> F:
        name = _name(function)
        if "<" in name:
            raise ValueError(
                f"program {name!r} has no name to call it by: define it at the top level of a module"
            )
        _PROGRAMS[name] = Program(name, function, returns)
        return function

    return register


def program_name(function: Callable[..., Any] | str) -> str:
    """Return the name under which a program is registered.

    Args:
        function: The decorated function, or its name. A name is not looked up: the worker may know more.

    Raises:
        ValueError: The function is not registered.
    """
    if isinstance(function, str):
        return function
    name = _name(function)
    if name not in _PROGRAMS:
        raise ValueError(
            f"{name!r} is not a program: decorate the function with @fedlightning.workers.program"
        )
    return name


def find_program(name: str) -> Program | None:
    """Look up a registered program; None if there is none of this name."""
    return _PROGRAMS.get(name)


def _name(function: Callable[..., Any]) -> str:
    qualname = getattr(function, "__qualname__", None) or repr(function)
    return f"{getattr(function, '__module__', '?')}:{qualname}"
