"""Ten thousand random operations over three workers and four threads, and then nobody holds anything.

A seeded driver rather than hypothesis: what is looked for is a leak in a long run, not a short example.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import pytest
import torch
from torch import nn

from fedlightning.pointers import PointerTensor, get_module, move_module, send_module
from fedlightning.workers import (
    HostProcess,
    ProcessWorker,
    RemoteError,
    VirtualWorker,
    Worker,
    program,
)

OPERATIONS = 10_000
THREADS = 4


@program(returns="metadata")
def double_and_backward(x: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
    (x.sum() + sum(other.sum() for other in others)).backward()
    return x * 2


Action: TypeAlias = Callable[["Driver", PointerTensor], None]


class Driver:
    """Do random things with pointers; what they have left behind is counted at the end.

    Args:
        workers: Where.
        actions: What to choose from.
        seed: Of the choices.
    """

    def __init__(self, workers: Sequence[Worker], actions: Sequence[Action], seed: int) -> None:
        self._workers = workers
        self._actions = actions
        self._random = random.Random(seed)
        self._live: list[Any] = []
        self.done: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        """Take so many random steps, then let everything go."""
        for _ in range(steps):
            action = self._random.choice(self._actions)
            action(self, self._one())
            self.done[action.__name__] += 1
            while len(self._live) > 40:
                self._live.pop(self._random.randrange(len(self._live)))
        self._live.clear()

    def _worker(self) -> Worker:
        return self._random.choice(self._workers)

    def _one(self) -> PointerTensor:
        if not self._live or self._random.random() < 0.1:
            self._live.append(self._worker().send(torch.ones(3, requires_grad=True)))
        return self._random.choice(self._live)

    def _leaf(self, pointer: PointerTensor) -> PointerTensor:
        leaf = pointer.detach().float().clone().requires_grad_()
        assert isinstance(leaf, PointerTensor)
        return leaf

    def _forget(self, pointer: PointerTensor) -> None:
        self._live = [other for other in self._live if other is not pointer]

    def add(self, pointer: PointerTensor) -> None:
        self._live.append(pointer + pointer)

    def several(self, pointer: PointerTensor) -> None:
        # Cloned: several views of one tensor do not survive a change of one in place.
        self._live += [part.clone() for part in pointer.split(1)]
        self._live += [*torch.max(pointer, 0, keepdim=True), torch.stack([pointer, pointer])[0]]

    def view(self, pointer: PointerTensor) -> None:
        self._live.append(pointer.view(-1, 1).view(-1))

    def in_place(self, pointer: PointerTensor) -> None:
        with torch.no_grad():
            pointer.mul_(1).unsqueeze_(0).squeeze_(0)

    def drop(self, pointer: PointerTensor) -> None:
        self._forget(pointer)

    def get(self, pointer: PointerTensor) -> None:
        self._forget(pointer)
        fetched: Any = pointer
        while isinstance(fetched, PointerTensor):
            fetched = fetched.get()

    def copy(self, pointer: PointerTensor) -> None:
        self._live.append(pointer.copy())

    def move(self, pointer: PointerTensor) -> None:
        self._forget(pointer)
        leaf = pointer.copy()
        if not self._is_chain(leaf):
            self._live.append(leaf.move(self._worker()))

    def send(self, pointer: PointerTensor) -> None:
        others = [worker for worker in self._workers if worker is not pointer.location]
        outer = self._leaf(pointer).send(self._random.choice(others))
        (outer * 2).sum().backward()
        self._live.append(outer.remote_get() if self._random.random() < 0.5 else outer)

    def fail(self, pointer: PointerTensor) -> None:
        with pytest.raises(RemoteError):
            pointer.view(7)
        with pytest.raises(RuntimeError):
            pointer + torch.ones(3)

    def fail_in_a_program(self, pointer: PointerTensor) -> None:
        with pytest.raises(RemoteError):
            pointer.location.run(double_and_backward, pointer.detach(), [pointer.detach()])

    def cycle(self, pointer: PointerTensor) -> None:
        ring: list[Any] = [pointer * 2]
        ring.append(ring)

    def backward(self, pointer: PointerTensor) -> None:
        leaf = self._leaf(pointer)
        (leaf * 3).sum().backward()
        assert leaf.grad is not None
        self._live.append(leaf.grad)

    def run_program(self, pointer: PointerTensor) -> None:
        leaf = self._leaf(pointer)
        if not self._is_chain(leaf):
            self._live.append(leaf.location.start(double_and_backward, leaf, [leaf]))
            assert leaf.grad is not None

    def module(self, pointer: PointerTensor) -> None:
        module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for worker in (self._worker(), self._worker()):
            send_module(module, worker)
            module(worker.send(torch.ones(2, 3))).sum().backward()
            optimizer.step()
            move_module(module, self._worker())
            if self._random.random() < 0.2:
                return
            get_module(module)

    @staticmethod
    def _is_chain(pointer: PointerTensor) -> bool:
        place = pointer.location
        return isinstance(place, VirtualWorker) and isinstance(
            place._objects[pointer.id_at_location], PointerTensor
        )


ACTIONS: tuple[Action, ...] = (
    Driver.add,
    Driver.several,
    Driver.view,
    Driver.in_place,
    Driver.drop,
    Driver.get,
    Driver.copy,
    Driver.move,
    Driver.fail,
    Driver.cycle,
    Driver.backward,
    Driver.module,
)
ACTIONS_OF_VIRTUAL_WORKERS = (*ACTIONS, Driver.send, Driver.run_program, Driver.fail_in_a_program)


def _drive(workers: Sequence[Worker], actions: Sequence[Action], operations: int) -> None:
    drivers = [Driver(workers, actions, seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for finished in [pool.submit(driver.run, operations // THREADS) for driver in drivers]:
            finished.result()
    gc.collect()
    assert sum((driver.done for driver in drivers), Counter()).total() == operations
    assert [len(worker) for worker in workers] == [0] * len(workers)


@pytest.mark.timeout(400)  # ten seconds of work, on a machine that may have other things to do
def test_no_object_is_left_behind() -> None:
    workers = [VirtualWorker(id=name) for name in ("alice", "bob", "carol")]
    _drive(workers, ACTIONS_OF_VIRTUAL_WORKERS, OPERATIONS)


@pytest.mark.timeout(400)
def test_no_object_is_left_behind_in_another_process() -> None:
    with HostProcess() as process:
        workers = [ProcessWorker(id=name, process=process) for name in ("alice", "bob")]
        _drive(workers, ACTIONS, OPERATIONS // 20)
