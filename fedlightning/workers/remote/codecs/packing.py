"""Turn values into plain scalars, lists and a table of tensors, and back.

How those become bytes is in `frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fedlightning.workers.remote.codecs.names import AllowedNames
from fedlightning.workers.remote.codecs.registry import codec_for, codec_for_exactly, codec_of
from fedlightning.workers.remote.codecs.tensors import TensorTable
from fedlightning.workers.remote.codecs.travellers import Strangers, Travellers
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError
from fedlightning.workers.remote.offers import import_offered

_PLAIN = frozenset({type(None), bool, float, bytes, str})
_ARRIVE_AS_THEY_ARE = _PLAIN | {int}
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1


def _nowhere(parameter: Tensor) -> tuple[int, int] | None:
    return None


def _nothing(object_id: int) -> Any:
    raise KeyError(f"object {object_id} is not known on this side")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Tell the codec about the side that it works for.

    Args:
        names: Import paths that may be sent and that may arrive.
        travellers: Modules and optimizers that come back as the objects they were.
        place_of: At the controller: where a parameter was sent, as (object id of its module, position).
        find: At a worker: the object of an identifier that a message refers to.
    """

    names: AllowedNames = field(default_factory=AllowedNames)
    travellers: Travellers = field(default_factory=Strangers)
    place_of: Callable[[Tensor], tuple[int, int] | None] = _nowhere
    find: Callable[[int], Any] = _nothing


class Packer:
    """Pack the values of one message.

    Args:
        surroundings: What this side knows and allows.

    Attributes:
        tensors: Every tensor that was met, each once however often it occurs.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.tensors = TensorTable()

    def pack(self, value: Any) -> Any:
        """Make a plain item of a value.

        Raises:
            UnsendableError: It, or something in it, cannot be sent.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if _LOWEST <= value <= _HIGHEST else ["int", str(value)]
        codec = codec_for_exactly(kind) or codec_for(kind)
        if codec is None:
            raise UnsendableError(_unsendable(value))
        try:
            return [codec.tag, *codec.pack(value, self)]
        except RecursionError:
            raise UnsendableError(f"a {kind.__name__} is nested too deeply, or contains itself") from None

    def pack_each(self, values: Iterable[Any]) -> list[Any]:
        """Make plain items of several values.

        Raises:
            UnsendableError: One of them, or something in it, cannot be sent.
        """
        return [value if type(value) in _PLAIN else self.pack(value) for value in values]


class Unpacker:
    """Unpack the values of one message, trusting none of it.

    Args:
        surroundings: What this side knows and allows.
        tensors: The message's tensors, in the order of its table.
    """

    def __init__(self, surroundings: Surroundings, tensors: list[Tensor]) -> None:
        self.surroundings = surroundings
        self.tensors = tensors

    def unpack(self, item: Any) -> Any:
        """Make the value of a plain item.

        Raises:
            MalformedMessageError: It is none.
        """
        kind = type(item)
        if kind in _ARRIVE_AS_THEY_ARE:
            return item
        if kind is not list or not item or type(item[0]) is not str:
            raise MalformedMessageError(f"an item of type {kind.__name__} has no tag")
        codec = codec_of(item[0])
        if codec is None:
            import_offered(item[0])
            codec = codec_of(item[0])
        if codec is None:
            raise MalformedMessageError(f"tag {item[0][:80]!r} is not known here")
        return codec.unpack(item[1:], self)

    def unpack_each(self, items: Iterable[Any]) -> list[Any]:
        """Make the values of several plain items.

        Raises:
            MalformedMessageError: One of them is none.
        """
        return [item if type(item) in _ARRIVE_AS_THEY_ARE else self.unpack(item) for item in items]

    def unpack_root(self, item: Any) -> Any:
        """Make the value of a whole message.

        Raises:
            MalformedMessageError: It is none.
        """
        try:
            return self.unpack(item)
        except RecursionError:
            raise MalformedMessageError("it is nested too deeply") from None
        except MalformedMessageError:
            raise
        except Exception as error:
            # Constructors of torch and Python meet values that nobody thought of.
            raise MalformedMessageError(f"an item cannot be made: {type(error).__name__}: {error}") from error


def _unsendable(value: Any) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if callable(value):
        return (
            f"{value!r} is code, and code does not travel: register a program at the worker and name it, "
            f"or make the function importable there"
        )
    return (
        f"a {name} cannot be sent: send tensors, numbers, strings, containers of these, or make the object "
        f"at the worker by a program (worker.start)"
    )
