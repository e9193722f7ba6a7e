"""The processes of one fit: hired, given blocks of visits as they get free, and kept for the next fit."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from fedlightning.strategy.processes.messages import Broken, Done, Forget
from fedlightning.strategy.processes.packing import pack
from fedlightning.strategy.processes.process import Process, ProcessEnded

# Starting one takes seconds of torch's imports: those of the last fit wait for the next, until they tire.
_idle: list[Process] = []

AHEAD = 2
"""Blocks that a process has at the most: one that it works on, and one so that it need not wait."""


class Crew:
    """Hire processes: those that are idle first, new ones beside.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        rested = [process for process in _idle if process.alive]
        _idle.clear()
        _idle.extend(rested[count:])
        self.processes = rested[:count]
        self.processes += [Process() for _ in range(count - len(self.processes))]
        self._given: list[list[int]] = [[] for _ in self.processes]

    @property
    def slots(self) -> int:
        """How many blocks may be under way or wait to be taken in."""
        return (AHEAD + 1) * len(self.processes)

    def tell(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a packed message to all of them."""
        for process in self.processes:
            process.tell(message, descriptor)

    def work_off(self, blocks: int, message: Callable[[int, int, int], bytes]) -> Generator[Done, None, None]:
        """Have blocks done by whoever is free, and yield them in their order.

        Args:
            blocks: How many.
            message: Returns the packed message of a block, given its number, its slot and the number of the
                process that gets it.

        Yields:
            What has been done. Its slot is used again from the next one on.

        Raises:
            BlockLost: A process has ended.
            RuntimeError: A process could not do what it was told.
        """
        given = self._given = [[] for _ in self.processes]
        done: dict[int, Done] = {}
        first, following = 0, 0
        while first < blocks:
            while following < min(blocks, first + self.slots):
                most = AHEAD if blocks - following > len(self.processes) else 1
                number = min(range(len(given)), key=lambda process: len(given[process]))
                if len(given[number]) >= most:
                    break
                sent = message(following, following % self.slots, number)
                given[number].append(following)
                self._do(number, partial(Process.tell, message=sent))
                following += 1
            if first in done:
                yield done.pop(first)
                first += 1
                continue
            ready = wait([process.line.framed for process in self.processes])
            for number, process in enumerate(self.processes):
                if process.line.framed not in ready:
                    continue
                answer = self._do(number, Process.hear)
                if isinstance(answer, Broken):
                    raise RuntimeError(f"process {self.processes[number].pid}:\n{answer.text}")
                given[number].remove(answer.number)
                done[answer.number] = answer

    def _do(self, number: int, act: Callable[[Process], Any]) -> Any:
        try:
            return act(self.processes[number])
        except ProcessEnded as ended:
            raise BlockLost(min(self._given[number], default=0), str(ended)) from ended

    def dismiss(self) -> None:
        """Let them go, for another fit to hire; those that are still at work end."""
        for process, blocks in zip(self.processes, self._given, strict=True):
            if blocks:
                process.close()
            elif _lets_go(process):
                _idle.append(process)
        self.processes = []

    def end(self) -> None:
        """End them, whatever they are at."""
        for process in self.processes:
            process.close()
        self.processes = []


def _lets_go(process: Process) -> bool:
    try:
        process.tell(pack(Forget()))
    except ProcessEnded:
        process.close()
    return process.alive


class BlockLost(RuntimeError):
    """A process has ended before it had done a block.

    Args:
        block: Number of the block.
        reason: What is known of it.
    """

    def __init__(self, block: int, reason: str) -> None:
        super().__init__(reason)
        self.block = block
