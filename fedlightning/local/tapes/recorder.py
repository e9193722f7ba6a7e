"""Watch a step, and keep what it comes down to; what tensor operations alone cannot make again is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from fedlightning.local.tapes.arena import Arena, Lifetime
from fedlightning.local.tapes.calls import Call, Elsewhere, memory_of, results_of, tensors_in
from fedlightning.local.tapes.overloads import Nature, nature_of
from fedlightning.local.tapes.schedule import updates_early
from fedlightning.local.tapes.tape import Tape

_EXITS = (
    *(Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr),
    *(Tensor.apply_, Tensor.map_, Tensor.map2_),
)
"""Methods by which tensors hand out their numbers, or the place where they are."""

_MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor, torch.Tensor.new)
"""Functions that read the numbers of tensors in lists, and tell nobody."""


class NotRecordable(RuntimeError):
    """A step does what cannot be made again."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, which is untyped
    """Watch a step, and keep what it comes down to.

    A tensor is known by its memory: autograd hands out several for one. What is watched is kept alive
    meanwhile, so that no memory is used twice.

    Args:
        inputs: What another time brings other numbers in.
        places: Memory that stays, and that a step may write to.
        may_draw: Whether it may draw random numbers, from torch's default generator; it will each time.
        most_bytes: Of what it makes, all of which is kept until this is over; ``None`` for no limit.
        stops: Whether a step that cannot be made again is stopped, before it changes what is not its own, and
            before Python is told of a value, by which it might do so.

    Raises:
        NotRecordable: From within the step, where it is stopped.

    Attributes:
        why_not: What keeps the step from being made again without Python; empty if nothing does.
        nbytes: What it has made so far.
    """

    # Or torch would raise where a step has such an operator, which is refused like others.
    supports_higher_order_operators = True

    def __init__(
        self,
        inputs: Sequence[Tensor],
        places: Sequence[Tensor],
        *,
        may_draw: bool = False,
        most_bytes: int | None = None,
        stops: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.why_not = ""
        self._may_draw = may_draw
        self._most_bytes = most_bytes
        self.nbytes = 0
        self._stops = stops
        self._looks: list[tuple[int, int]] = []
        self._exits = _Exits(stops)
        self._inputs = inputs
        self._calls: list[Call] = []
        self._seen: list[Tensor] = []
        self._origins: dict[int, str] = {}
        self._see(places, "place")
        self._see(inputs, "input")

    @override
    def __enter__(self) -> Recorder:
        self._exits.__enter__()  # type: ignore[no-untyped-call]  # as above
        super().__enter__()  # type: ignore[no-untyped-call]  # as above
        return self

    @override
    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self._exits.__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self.why_not = self.why_not or self._exits.why_not

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self.why_not:
            self._foresee(func, args, kwargs)
        self._stop_if_it_has_to()
        result = func(*args, **kwargs)
        if not self.why_not:
            self._note(func, args, kwargs, result)
        self._stop_if_it_has_to()
        return result

    def _stop_if_it_has_to(self) -> None:
        if self.why_not and self._stops:
            raise NotRecordable(self.why_not)

    def want(self, output: Tensor) -> None:
        """Take note that an output is what a tensor holds now, rather than at the end.

        Args:
            output: The tensor.
        """
        self._looks.append((memory_of(output), len(self._calls)))

    def tape(
        self, outputs: Sequence[Tensor], arena: Arena | None = None, *, computed: Sequence[Tensor] = ()
    ) -> Tape | None:
        """Return what was recorded, or ``None`` where it cannot be made again.

        Args:
            outputs: Which of the tensors are wanted.
            arena: Has the memory for what is computed; others may use it as long as no play of theirs falls
                into one of this tape's, or between it and the last look at its outputs.
            computed: Further outputs, computed anew in each play, so that anybody may write to them.
        """
        # What a place holds may have been looked at before the step has changed it.
        if self.why_not or not all(self._origins.get(memory_of(t), "place") != "place" for t in outputs):
            return None
        if {*map(memory_of, outputs)} & {*map(memory_of, computed)}:
            return None
        every = [*outputs, *computed]
        calls = updates_early(_needed(self._changing(), {memory_of(tensor) for tensor in every}))
        made = {memory for call in calls for memory in call.makes}
        if self._is_changed_after_a_look() or not {memory_of(tensor) for tensor in computed} <= made:
            return None
        given = {memory for call in calls for memory in call.gives}
        lifetimes = self._lifetimes(calls, every)
        lasting = {memory: own for memory, own in lifetimes.items() if memory not in given}
        elsewhere = Elsewhere((arena or Arena()).homes(lasting), given)
        # Memory that others fill has been found by now.
        moved: list[Callable[[], object]] = []
        over: dict[int, list[int]] = defaultdict(list)
        for memory in given:
            over[lifetimes[memory].last].append(memory)
        for number, call in enumerate(calls):
            if not call.nature.leaves_unset:
                moved.append(call.moved(elsewhere))
            moved += map(elsewhere.let_go, over[number])
        return Tape(moved, [*map(elsewhere.of, self._inputs)], [*map(elsewhere.of, every)])

    def _is_changed_after_a_look(self) -> bool:
        for memory, position in self._looks:
            for call in self._calls[position:]:
                if memory in call.changes:
                    return True
        return False

    def _foresee(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Find out whether a call may be made, before it is."""
        nature, taken = nature_of(func), [*tensors_in((args, kwargs))]
        self.why_not = nature.why_not or _why_not_taken(func, nature, taken)
        if nature.draws and not (self._may_draw and kwargs.get("generator") is None):
            self.why_not = f"{func} draws random numbers"
        if self.why_not:
            return
        self._see(taken, "elsewhere")
        if nature.writes and not all(map(self._may_be_written, tensors_in([*nature.written(args, kwargs)]))):
            self.why_not = f"{func} changes what is not its own"

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        nature, results = nature_of(func), results_of(result)
        self.why_not = _why_not_kept(func, results)
        if self.why_not:
            return
        # What lies in memory that was there before is a view of it, and stays one.
        fresh = [
            result if result is not None and memory_of(result) not in self._origins else None
            for result in results
        ]
        self._see([tensor for tensor in fresh if tensor is not None], "made")
        if not self._has_room_for(fresh):
            return
        is_silent = all(result is None for result in results)
        if nature.writes or is_silent or any(tensor is not None for tensor in fresh):
            # As they are now: Python may let a tensor have another memory or shape later on.
            args, kwargs, fresh = map(_detached, (args, kwargs, fresh))
            self._calls.append(Call(func, args, kwargs, fresh, nature))

    def _see(self, tensors: Iterable[Tensor], origin: str) -> None:
        for tensor in tensors:
            self._origins.setdefault(memory_of(tensor), origin)
            self._seen.append(tensor)

    def _has_room_for(self, fresh: Sequence[Tensor | None]) -> bool:
        """Go on keeping what is made, as long as it is not too much."""
        self.nbytes += sum(t.untyped_storage().nbytes() for t in fresh if t is not None)
        if self._most_bytes is None or self.nbytes <= self._most_bytes:
            return True
        self.why_not = "it makes too much to keep all of it"
        self._calls.clear()
        self._seen.clear()
        return False

    def _may_be_written(self, tensor: Tensor) -> bool:
        return self._origins[memory_of(tensor)] in ("made", "place")

    def _changing(self) -> list[Call]:
        """Leave out calls that come to the same each time; what they have made stays as it is."""
        written = {memory for call in self._calls for memory in call.changes}
        fixed: set[int] = set()
        changing = []
        for call in self._calls:
            alike = call.nature.by_shape or call.reads <= fixed
            alike = alike and not (call.nature.draws or call.is_silent)
            if alike and not call.nature.writes and not call.makes & written:
                fixed |= call.makes
            else:
                changing.append(call)
        return changing

    def _lifetimes(self, calls: Sequence[Call], outputs: Sequence[Tensor]) -> dict[int, Lifetime]:
        """Say when the memory of inputs and of what is made is in use; that of outputs is to the end."""
        spans = {memory_of(tensor): [-1, -1] for tensor in self._inputs}
        for number, call in enumerate(calls):
            for memory in call.makes:
                spans[memory] = [number, number]
            for memory in call.reads & spans.keys():
                spans[memory][1] = number
        for tensor in outputs:
            spans.get(memory_of(tensor), [0, 0])[1] = len(calls)
        storages = {
            memory_of(tensor): tensor.untyped_storage()
            for tensor in (
                *self._inputs,
                *(made for call in calls for made in call.fresh if made is not None),
            )
        }
        return {
            memory: Lifetime(storages[memory].nbytes(), storages[memory].device, first, last)
            for memory, (first, last) in spans.items()
            if storages[memory].nbytes()
        }


def _detached(tree: Any) -> Any:
    """Return the arguments, or the results, of an operator on detached tensors."""
    if isinstance(tree, Tensor):
        return tree.detach()
    if type(tree) is dict:
        return {name: _detached(part) for name, part in tree.items()}
    return [*map(_detached, tree)] if type(tree) in (list, tuple) else tree


def _why_not_taken(func: Any, nature: Nature, taken: Sequence[Tensor]) -> str:
    if not all(map(_lies_in_memory, taken)):
        return f"{func} has to do with tensors that are not plain numbers in memory"
    if nature.by_mask and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in taken[1:]):
        return f"{func} has results of sizes that depend on numbers"
    return ""


def _why_not_kept(func: Any, results: Sequence[Any]) -> str:
    if not all(result is None or isinstance(result, Tensor) for result in results):
        return f"{func} tells Python of a value"
    if not all(result is None or _lies_in_memory(result) for result in results):
        return f"{func} has to do with tensors that are not plain numbers in memory"
    return ""


def _lies_in_memory(tensor: Tensor) -> bool:
    """Tell whether a tensor is numbers in memory: not sparse, quantized, or changed when it is read."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor._is_zerotensor():
        return False
    return not (tensor.is_conj() or tensor.is_neg())


class _Exits(TorchFunctionMode):
    """Notice where numbers leave torch by ways of which its dispatcher is not told.

    Args:
        stops: Whether it raises `NotRecordable` before they do.
    """

    def __init__(self, stops: bool) -> None:
        super().__init__()
        self.why_not = ""
        self._stops = stops

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _EXITS or (func in _MAKERS and _has_tensors_inside(args, kwargs or {})):
            self.why_not = f"{func} tells Python of values"
            if self._stops:
                raise NotRecordable(self.why_not)
        return func(*args, **(kwargs or {}))


def _has_tensors_inside(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list | tuple)]
    return next(tensors_in(lists), None) is not None


def _needed(calls: Sequence[Call], outputs: set[int]) -> list[Call]:
    """Leave out calls whose results nobody takes, unless they draw random numbers, or may raise."""
    wanted, kept = {*outputs}, []
    for call in reversed(calls):
        acts = call.nature.writes or call.nature.draws or call.is_silent or call.may_raise
        if acts or call.makes & wanted:
            wanted |= call.reads
            kept.append(call)
    return kept[::-1]
