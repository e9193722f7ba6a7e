"""Measure what pointers cost, against doing the same without them in the same run.

    python -m benchmarks.pointers [--quick]

Ratios are medians over interleaved repetitions on one thread; see `measuring` for how. ``--quick`` only tries
out that everything can be measured.
"""

from __future__ import annotations

import argparse
import gc
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor
from typing_extensions import override

import fedlightning as fl
from benchmarks.measuring import FULL, QUICK, WALL, Effort, Spread, Work, ratio, seconds_each
from benchmarks.models import Task, cnn, mlp, transformer
from benchmarks.programs import train_step
from benchmarks.table import Row, exactly, render
from fedlightning.pointers import send_module
from fedlightning.pointers.arguments import refer
from fedlightning.pointers.messages import Message, Run
from fedlightning.workers import ProcessWorker, Reply
from fedlightning.workers.programs import program_name

PIPELINED = 100
UNDER_WAY = 10


class CountingWorker(fl.VirtualWorker):
    """Count the messages that arrive."""

    messages = 0

    @override
    def submit(self, message: Message) -> Reply:
        self.messages += 1
        return super().submit(message)


class Through(Tensor):
    """Be the least that a tensor elsewhere can be: torch calls it, it calls the operation, and that is all.

    Attributes:
        held: The tensor that it stands for.
    """

    held: Tensor

    @classmethod
    def around(cls, tensor: Tensor) -> Through:
        """Make one that stands for a tensor."""
        through = torch.empty(0).as_subclass(cls)
        through.held = tensor
        return through

    @classmethod
    @override
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return func(*[arg.held for arg in args], **(kwargs or {}))


def local_step(task: Task) -> Work:
    """Prepare steps of training without workers."""
    network = deepcopy(task.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    return lambda: train_step(network, optimizer, task.inputs, task.labels)


def step_by_pointers(task: Task, worker: fl.Worker) -> Work:
    """Prepare the same steps on pointers: each operation is a message."""
    network = deepcopy(task.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    send_module(network, worker)
    inputs, labels = worker.send(task.inputs), worker.send(task.labels)
    return lambda: train_step(network, optimizer, inputs, labels)


def step_by_program(task: Task, worker: fl.Worker) -> Work:
    """Prepare the same steps as a program: each step is a message."""
    network = deepcopy(task.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    args = [worker.send(value) for value in (network, optimizer, task.inputs, task.labels)]
    return lambda: worker.run(train_step, *args)


def steps_under_way(task: Task, worker: fl.Worker) -> Work:
    """Prepare several of these steps, each sent without waiting for the answer to the one before."""
    network = deepcopy(task.network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    args = tuple(worker.send(value) for value in (network, optimizer, task.inputs, task.labels))

    def several() -> None:
        request = Run(program_name(train_step), refer(args, worker), {}, keep=False, result_id=0)
        for reply in [worker.submit(request) for _ in range(UNDER_WAY)]:
            reply.wait()

    return several


def local_steps(task: Task) -> Work:
    """Prepare as many steps without workers."""
    step = local_step(task)

    def several() -> None:
        for _ in range(UNDER_WAY):
            step()

    return several


def additions(effort: Effort) -> Iterator[Row]:
    """Measure `x + y`, where the overhead is all and where it is next to nothing."""
    worker = fl.VirtualWorker(id="bob")
    for name, elements, target in (("2 elements", 2, 10.0), ("1e6 elements", 1_000_000, 1.02)):
        x, y = worker.send(torch.rand(elements)), worker.send(torch.rand(elements))
        # The very tensors that are there, so that where memory lies makes no difference.
        held = worker._objects
        there = held[x.id_at_location], held[y.id_at_location]
        local = partial(operator.add, *there)
        yield Row(f"x + y, {name}", ratio(partial(operator.add, x, y), local, effort), "x", target)
        # What is left to torch of that, to know how far the rest can go down at most.
        least = partial(operator.add, *map(Through.around, there))
        yield Row(f"x + y, {name}, torch's call alone", ratio(least, local, effort), "x")


def training_steps(effort: Effort) -> Iterator[Row]:
    """Measure a step of training in this process: op by op, and as one program."""
    worker = fl.VirtualWorker(id="bob")
    baseline = local_step(cnn())
    yield Row("CNN step, op by op", ratio(step_by_pointers(cnn(), worker), baseline, effort), "x", 1.2)
    yield Row("CNN step, one program", ratio(step_by_program(cnn(), worker), baseline, effort), "x", 1.03)
    baseline = local_step(mlp())
    yield Row("small MLP step, op by op", ratio(step_by_pointers(mlp(), worker), baseline, effort), "x")
    yield Row("small MLP step, one program", ratio(step_by_program(mlp(), worker), baseline, effort), "x")


def messages(effort: Effort) -> Iterator[Row]:
    """Count the messages of one step, after a first one."""
    cases = (
        ("2-layer transformer step, op by op", step_by_pointers, transformer(), 170),
        ("CNN step, one program", step_by_program, cnn(), 1),
    )
    for name, prepare, task, target in cases:
        worker = CountingWorker(id="bob")
        step = prepare(task, worker)
        step()
        worker.messages = 0
        step()
        yield Row(name, exactly(worker.messages), "messages", target)


def memory(effort: Effort) -> Iterator[Row]:
    """Watch what remains of many steps, once the first tenth has filled torch's and Python's own caches."""
    worker = fl.VirtualWorker(id="bob")
    step = step_by_pointers(mlp(), worker)
    process = psutil.Process(os.getpid())

    def holdings() -> tuple[float, int, int]:
        gc.collect()
        return process.memory_info().rss / 1e6, len(worker), len(gc.get_objects())

    holdings()  # looking takes memory, too, the first time
    for _ in range(effort.steps // 10):
        step()
    before = holdings()
    for _ in range(effort.steps):
        step()
    megabytes, at_worker, in_python = (
        after - earlier for after, earlier in zip(holdings(), before, strict=True)
    )
    yield Row(f"resident memory gained in {effort.steps:,} steps", exactly(megabytes), "MB", 1.0)
    yield Row("objects gained at the worker", exactly(at_worker), "objects", 0)
    yield Row("objects gained in Python", exactly(in_python), "objects", 20)


def another_process(effort: Effort) -> Iterator[Row]:
    """Measure a worker in a process of its own, by the time on the wall: one waits for it."""
    with ProcessWorker(id="bob", programs=["benchmarks.programs"], threads=1) as worker:
        step, baseline = step_by_program(cnn(), worker), local_step(cnn())
        yield Row("process: CNN step, one program", ratio(step, baseline, effort, WALL), "x", 1.1)
        steps, baseline = steps_under_way(cnn(), worker), local_steps(cnn())
        name = f"process: CNN step, {UNDER_WAY} under way at once"
        yield Row(name, ratio(steps, baseline, effort, WALL), "x")

        x = worker.send(torch.rand(2))
        spread = seconds_each(partial(operator.add, x, x), effort)
        yield Row("process: x + y, 2 elements, waited for", spread.scaled(1e6), "us")

        def in_a_pipeline() -> None:
            with worker.pipeline():
                for _ in range(PIPELINED):
                    operator.add(x, x)

        spread = seconds_each(in_a_pipeline, effort).scaled(1e6 / PIPELINED)
        yield Row(f"process: x + y, {PIPELINED} in a pipeline, each", spread, "us")

        state = {f"layer{i}": torch.rand(effort.size // 4 // 10) for i in range(10)}
        spread = seconds_each(lambda: worker.send(state).get(), effort)
        moved = 2 * sum(tensor.nbytes for tensor in state.values()) / 1e6
        rates = Spread(moved / spread.high, moved / spread.middle, moved / spread.low)
        yield Row(f"process: {moved / 2:.3g} MB state dict, there and back", rates, "MB/s", 500, ">=")


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one call per measurement, to try it out")
    effort = QUICK if parser.parse_args().quick else FULL
    torch.set_num_threads(1)
    fl.TorchHook(torch)

    rows = [row for cases in MEASUREMENTS for row in cases(effort)]
    print(f"torch {torch.__version__}, one thread, {effort.repetitions} repetitions")
    print(render(rows))


MEASUREMENTS = (memory, additions, training_steps, messages, another_process)

if __name__ == "__main__":
    main()
