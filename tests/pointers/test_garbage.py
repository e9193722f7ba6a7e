"""No object outlives its pointers, whatever is done with them."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, ones

from fedlightning.workers import RemoteError, VirtualWorker

ACTIONS = ("send", "add", "view", "in place", "drop", "get", "fail", "cycle", "backward")


@pytest.mark.usefixtures("quick_searches")
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=30))
def test_as_many_objects_as_live_pointers(steps: list[tuple[str, int]]) -> None:
    worker = VirtualWorker(id="bob")
    live: list[Tensor] = []
    for action, choice in steps:
        _act(worker, live, action, choice)
    gc.collect()
    assert len(worker) == len(live)
    live.clear()
    gc.collect()
    assert len(worker) == 0


def _act(worker: VirtualWorker, live: list[Tensor], action: str, choice: int) -> None:
    if action == "send" or not live:
        live.append(worker.send(ones(2, requires_grad=True)))
        return
    pointer = live[choice % len(live)]
    if action == "add":
        live.append(pointer + pointer)
    elif action == "view":
        live.append(pointer.view(2, 1).view(2))
    elif action == "in place":
        pointer.data.mul_(2)
    elif action == "drop":
        live.pop(choice % len(live))
    elif action == "get":
        live[:] = [other for other in live if other is not pointer]
        pointer.get()
    elif action == "fail":
        _fail(pointer)
    elif action == "cycle":
        ring: list[object] = [pointer * 2]
        ring.append(ring)
    elif action == "backward":
        (pointer * 3).sum().backward()


def _fail(pointer: Tensor) -> None:
    try:
        pointer.view(7)
    except RemoteError:
        return
    raise AssertionError("a view of the wrong size must fail")
