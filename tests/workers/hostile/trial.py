"""Try hostile calls in processes that may die, and tell what became of each."""

from __future__ import annotations

import ctypes
import os
import signal
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from fedlightning.workers.remote.limits import Limits
from tests.workers.hostile.samples import Call

SECONDS_PER_CALL = 10
MEMORY = Limits(memory_bytes=2**30)
_FILLINGS = (0x11, 0xEE)
_MOST_BYTES = 2**22


def try_all(calls: Sequence[Call]) -> dict[int, str]:
    """Make calls one after the other, each twice with other bytes around and within fresh memory.

    Returns:
        What was wrong, by the number of the call: the signal that ended the process, or that the result
        depends on memory that is not the operands'.
    """
    found: dict[int, str] = {}
    done = 0
    while done < len(calls):
        for number, word in _in_a_child(calls, done):
            if word.startswith("!"):
                found[number] = word[1:]
            done = number + 1
    return found


def _in_a_child(calls: Sequence[Call], first: int) -> Iterator[tuple[int, str]]:
    """Fork, and yield the number of each call with a word on it; the last one may have ended the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child(calls, first, writing)
    os.close(writing)
    begun = first - 1
    with os.fdopen(reading) as lines:
        for line in lines:
            kind, number, word = line.rstrip("\n").split(" ", 2)
            if kind == "begin":
                begun = int(number)
            else:
                yield int(number), word
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended_by = signal.Signals(os.WTERMSIG(status))
        yield (
            begun,
            f"!takes over {SECONDS_PER_CALL} s" if ended_by == signal.SIGPROF else f"!{ended_by.name}",
        )
    elif os.WEXITSTATUS(status) != 0:
        yield begun, f"!exit code {os.WEXITSTATUS(status)}"


def _be_the_child(calls: Sequence[Call], first: int, writing: int) -> None:
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    MEMORY.limit_memory()
    for number in range(first, len(calls)):
        os.write(writing, f"begin {number} -\n".encode())
        # Of the processor's time, so that other processes make no difference.
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CALL)
        word = _judge(calls[number])
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(writing, f"end {number} {word}\n".encode())
    os._exit(0)


def _judge(call: Call) -> str:
    first = _digest(call, _FILLINGS[0])
    if isinstance(first, str) or first == _digest(call, _FILLINGS[1]):
        return "ok"
    varies = first != _digest(call, _FILLINGS[0])
    return "varies from run to run" if varies else "!depends on memory that is not the operands'"


def _digest(call: Call, filling: int) -> Any:
    torch.manual_seed(0)
    torch.set_grad_enabled(True)
    fence = ctypes.CDLL(None).fence
    fence(1, filling)
    try:
        return _outcome(call.copied())
    except Exception as error:  # noqa: BLE001 - whatever it refuses with, it has refused
        return type(error).__name__
    finally:
        fence(0, 0)


def _outcome(call: Call) -> list[Any]:
    result = WORKER_OPERATIONS[call.operation](*call.args, **call.kwargs)
    leaves = [leaf for leaf in tree_leaves((result, call.args, call.kwargs)) if isinstance(leaf, Tensor)]
    starts = [leaf.sum() for leaf in tree_leaves(result) if _is_differentiable(leaf)]
    digests = [_bytes_of(leaf) for leaf in leaves]
    if starts:
        try:
            torch.autograd.backward(starts, [torch.ones_like(start) for start in starts])
        except Exception as error:  # noqa: BLE001 - likewise
            return [*digests, type(error).__name__]
        digests += [_bytes_of(leaf.grad) for leaf in leaves if leaf.is_leaf and leaf.grad is not None]
    return digests


def _is_differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad and value.numel() < _MOST_BYTES


def _bytes_of(tensor: Tensor) -> Any:
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        return str(tensor.layout)
    if tensor.numel() * tensor.element_size() > _MOST_BYTES:
        return tensor.shape
    plain = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return tensor.shape, zlib.crc32(plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
