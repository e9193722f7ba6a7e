"""Programs and modules that the tests' workers offer, in this process and in others."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from typing import Any

import torch
from torch import Tensor, nn

from fedlightning.pointers.location import find_place
from fedlightning.workers import program


class StrangeError(Exception):
    """Be an error whose constructor wants more than its text."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}: {hint}")
        self.code = code


@program(returns="metrics")
def count(samples: Any, *, more: dict[str, Any] | None = None) -> int:
    return len(samples) + sum(map(len, (more or {}).values()))


@program(returns="data")
def reveal(samples: Any) -> Any:
    return samples


@program(returns="metadata")
def make_lock() -> object:
    """Return something that no message can carry."""
    return threading.Lock()


@program(returns="module")
def fit(module: nn.Module, samples: Tensor) -> nn.Module:
    with torch.no_grad():
        module.weight.add_(samples.sum())
    return module


@program(returns="metrics")
def step(module: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> float:
    optimizer.zero_grad()
    loss = module(inputs).square().sum()
    loss.backward()
    optimizer.step()
    return loss.item()


@program(returns="metrics")
def fail() -> None:
    raise ZeroDivisionError("by design")


@program(returns="metrics")
def fail_strangely() -> None:
    try:
        raise StrangeError(7, hint="look here")
    except StrangeError as error:
        raise RuntimeError("because of it") from error


@program(returns="metrics")
def end_by_exit() -> None:
    raise SystemExit(3)


@program(returns="metadata")
def process_id() -> int:
    return os.getpid()


@program(returns="metadata")
def is_here(worker: str, generation: int) -> bool:
    return find_place(worker, generation) is not None


@program(returns="metadata")
def kill_yourself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@program(returns="metadata")
def sleep_long(path: str) -> None:
    """Say in a file that the program has begun, then take longer than any test."""
    with open(path, "w") as file:
        file.write("begun")
    time.sleep(600)


@program(returns="metrics")
def complain(samples: Any) -> None:
    """Quote data in an exception, and in the one before it."""
    try:
        raise KeyError(f"in the first place {samples}")
    except KeyError as error:
        raise ValueError(f"got {samples}") from error


@program(returns="metrics")
def exit_with(samples: Tensor) -> None:
    raise SystemExit(samples.tolist())


@program(returns="metadata")
def append(holder: list[Any], item: Any) -> None:
    holder.append(item)


@program(returns="metadata")
def write_down(holder: list[Any], samples: Tensor) -> None:
    holder.extend(samples.tolist())


@program(returns="metadata")
def first_parameter(module: nn.Module) -> Tensor:
    return next(module.parameters())


@program(returns="metrics")
def pretend(samples: Tensor) -> list[float]:
    """Return data as metrics, which a reviewed program does not."""
    return samples.tolist()


@program(returns="metadata")
def total(samples: Tensor) -> Tensor:
    return samples.sum()


@program(returns="metrics")
def page_faults_of_steps(steps: int) -> int:
    """Count the pages that the system maps for what steps allocate and free, after a first one."""

    def step() -> list[Tensor]:
        return [torch.ones(1_000_000) for _ in range(5)]

    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
