"""What torch's dispatcher tells of its operators: which write, which draw, which can be told where to write.

The private parts of its schemas are read here alone.

``tests/local/vectorised/test_overloads.py`` fails clearly when its schemas move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from fedlightning.local.tapes.pooling import is_faster_by_channel, pooled_by_channel

_aten = torch.ops.aten

_COPIES = frozenset({_aten.clone.default, _aten._to_copy.default})
"""Operators that make a copy of another type or layout, if any: of that of the memory into which it goes."""

_WRITE_UNSAID = frozenset(
    {
        _aten.native_batch_norm.default,
        _aten.cudnn_batch_norm.default,
        _aten.miopen_batch_norm.default,
        _aten.batch_norm_gather_stats.default,
        _aten.batch_norm_gather_stats_with_counts.default,
        _aten.batch_norm_update_stats.default,
    }
)
"""Operators that change running statistics, of which their schemas say nothing."""

_RELU = _aten.relu.default

_UNSET = frozenset({_aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default})
"""Operators that find memory for others to fill."""

_JUDGES = frozenset({_aten.binary_cross_entropy.default})
"""Operators that look whether floating-point numbers are fit, and raise where they are not."""

_SURE = frozenset(
    {
        _aten.max_pool2d_with_indices_backward.default,
        _aten.max_pool3d_with_indices_backward.default,
        _aten.nll_loss_backward.default,
        _aten.nll_loss2d_backward.default,
    }
)
"""Operators that take indices which those before them, whose gradients they give, have found or looked at."""

_BY_SHAPE = frozenset({_aten.ones_like.default, _aten.zeros_like.default, _aten.full_like.default})
"""Operators that look at no number of the tensors that they take."""


@dataclass(frozen=True)
class Nature:
    """What is to be known of an operator.

    Args:
        why_not: Why calls of it cannot be made again; empty if they can.
        places: Positions and names of the arguments that it writes to.
        by_shape: Whether its results depend on no number of any tensor.
        by_mask: Whether indices that are truths decide how large its results are.
        draws: Whether it draws random numbers.
        leaves_unset: Whether its results are memory in which there is nothing yet.
        judges: Whether it raises where floating-point numbers are unfit.
        is_sure: Whether it never raises because of the numbers that it takes.
    """

    why_not: str
    places: tuple[tuple[int, str], ...]
    by_shape: bool
    by_mask: bool
    draws: bool = False
    leaves_unset: bool = False
    judges: bool = False
    is_sure: bool = False

    @property
    def writes(self) -> bool:
        """Whether it changes any of its arguments."""
        return bool(self.places)

    def written(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the arguments that a call writes to.

        Args:
            args: The call's arguments.
            kwargs: Those by name.
        """
        for position, name in self.places:
            yield args[position] if position < len(args) else kwargs.get(name)


@cache
def nature_of(operator: Any) -> Nature:
    """Say what is to be known of an operator.

    Args:
        operator: As a ``TorchDispatchMode`` is shown it.
    """
    if not isinstance(operator, OpOverload) or operator.namespace != "aten":
        return Nature(f"{operator} is none of torch's own operators", (), by_shape=False, by_mask=False)
    written = [
        (position, argument.name)
        for position, argument in enumerate(operator._schema.arguments)
        if _is_written(argument)
    ]
    by_mask = operator is _aten.index.Tensor
    draws = torch.Tag.nondeterministic_seeded in operator.tags
    return Nature(
        _why_never(operator),
        tuple(written),
        by_shape=operator in _BY_SHAPE,
        by_mask=by_mask,
        draws=draws,
        leaves_unset=operator in _UNSET,
        judges=operator in _JUDGES,
        is_sure=operator in _SURE,
    )


def _why_never(operator: OpOverload) -> str:
    if torch.Tag.inplace_view in operator.tags:
        return f"{operator} changes a shape in place"
    if torch.Tag.dynamic_output_shape in operator.tags and operator is not _aten.index.Tensor:
        return f"{operator} has results of sizes that depend on numbers"
    if operator in _WRITE_UNSAID:
        return f"{operator} changes running statistics"
    return ""


def call_into(
    operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], places: Sequence[Tensor | None]
) -> Callable[[], object]:
    """Return a call of an operator that leaves its results in given memory.

    Args:
        operator: Any; what it writes to its arguments it goes on writing there.
        args: The arguments.
        kwargs: Those by name.
        places: For each of its results where it goes; ``None`` where nobody wants it.
    """
    if operator in _COPIES:
        (place,) = places
        assert place is not None
        return partial(place.copy_, args[0])
    if operator is _RELU:
        # What relu is made of, which, other than relu, can be told where to write.
        return partial(_aten.clamp_min.out, args[0], 0, out=places[0])
    if is_faster_by_channel(operator, args) and not kwargs:
        values, indices = places
        if values is not None and indices is not None:
            return pooled_by_channel(args, values, indices)
    found = _told_where(operator)
    if found is None or any(place is None for place in places):
        return partial(_called_and_copied, operator, args, kwargs, places)
    told, names = found
    return partial(told, *args, **kwargs, **dict(zip(names, places, strict=True)))


def is_told_where(operator: Any) -> bool:
    """Tell whether an operator can leave its results in given memory, rather than have them copied there.

    Args:
        operator: Any that writes to none of its arguments.
    """
    return operator in _COPIES or operator is _RELU or _told_where(operator) is not None


def _called_and_copied(
    operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], places: Sequence[Tensor | None]
) -> None:
    result = operator(*args, **kwargs)
    results = result if isinstance(result, list | tuple) else (result,)
    for place, value in zip(places, results, strict=True):
        if place is not None:
            place.copy_(value)


@cache
def _told_where(operator: Any) -> tuple[Callable[..., Any], list[str]] | None:
    """Find the overload that writes where it is told, if there is one that does not just copy."""
    schema = operator._schema
    expected = [(argument.name, str(argument.type)) for argument in schema.arguments]
    for name in operator.overloadpacket.overloads():
        other = getattr(operator.overloadpacket, name)
        arguments = other._schema.arguments
        taken = [(a.name, str(a.type)) for a in arguments if not _is_written(a)]
        told = [a.name for a in arguments if _is_written(a) and a.kwarg_only]
        if (
            taken == expected
            and len(told) == len(schema.returns) == len(arguments) - len(taken)
            and all(str(argument.type) == "Tensor" for argument in schema.returns)
            and torch.Tag.generated not in other.tags
        ):
            return other, told
    return None


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)
