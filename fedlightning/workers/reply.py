"""The outcome of a message, apart from the sending of it. In process it is known at once."""

from __future__ import annotations

from typing import Any, Protocol

from typing_extensions import override


class Reply(Protocol):
    """Stand for the outcome of a message that may still be under way."""

    def wait(self) -> Any:
        """Return the worker's answer, or raise what went wrong there."""


class Done(Reply):
    """Be the answer of a message that was handled.

    Args:
        value: The answer.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    @override
    def wait(self) -> Any:
        return self._value


class Failed(Reply):
    """Be the failure of a message, raised when somebody waits for the answer.

    Args:
        error: What went wrong.
    """

    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    @override
    def wait(self) -> Any:
        raise self._error
