"""Every public name says what it is for, and what each of its arguments is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

PACKAGES = (
    "fedlightning.algorithms",
    "fedlightning.callbacks",
    "fedlightning.data",
    "fedlightning.data.datasets",
    "fedlightning.data.partition",
    "fedlightning.pointers",
    "fedlightning.strategy",
    "fedlightning.workers",
    "fedlightning.workers.remote",
)


def _public() -> Iterator[Any]:
    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield pytest.param(value, id=f"{package.removeprefix('fedlightning.')}.{name}")


PUBLIC = list(_public())


def described(value: Any) -> str:
    """What the docstrings of a name say, and those of its bases, which describe inherited arguments."""
    owners = inspect.getmro(value)[:-1] if inspect.isclass(value) else (value,)
    return "\n".join(owner.__doc__ or "" for owner in owners)


@pytest.mark.parametrize("value", PUBLIC)
def test_a_public_name_has_a_docstring_of_its_own(value: Any) -> None:
    assert value.__doc__
    # A dataclass without one is given its signature by Python.
    assert not value.__doc__.startswith(f"{value.__name__}(")


def undescribed(value: Any) -> list[str]:
    """Arguments that no docstring mentions in a line of their own."""
    if inspect.isclass(value) and issubclass(value, BaseException) and "__init__" not in vars(value):
        return []
    try:
        names = inspect.signature(value).parameters
    except ValueError:  # one of torch's own signatures, in C
        return []
    said = described(value)
    return [
        name
        for name, parameter in names.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and not re.search(rf"^\s+{name}\b.*:", said, re.MULTILINE)
    ]


@pytest.mark.parametrize("value", PUBLIC)
def test_every_argument_is_described(value: Any) -> None:
    assert undescribed(value) == []


def test_an_argument_that_is_not_described_is_found() -> None:
    def send(value: int, to: str) -> None:
        """Send something.

        Args:
            value: What.
        """

    assert undescribed(send) == ["to"]


@pytest.mark.parametrize("value", [value for value in PUBLIC if inspect.isclass(value.values[0])])
def test_public_methods_have_docstrings(value: Any) -> None:
    own = [name for name, member in vars(value).items() if not name.startswith("_") and _is_method(member)]
    # What overrides a documented method does what that says.
    assert [name for name in own if not inspect.getdoc(getattr(value, name))] == []


def _is_method(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
