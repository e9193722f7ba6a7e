"""The processes of one fit: hired, given portions of visits as they get free, and kept for the next fit."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Protocol

from fedlightning.strategy.processes.messages import Broken, Forget
from fedlightning.strategy.processes.packing import pack
from fedlightning.strategy.processes.process import Process, ProcessEnded

# Starting one takes seconds of torch's imports: those of the last fit wait for the next, until they tire.
_idle: list[Process] = []

AHEAD = 2
"""Portions that a process has at the most: one that it works on, and one so that it need not wait."""


class Answer(Protocol):
    """What a process says of a portion that it has done."""

    @property
    def number(self) -> int:
        """Number of the portion."""


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
        self._given: list[dict[int, range]] = [{} for _ in self.processes]

    def tell(self, message: bytes, descriptor: int | None = None) -> None:
        """Send a packed message to all of them, who may be at work.

        Raises:
            PieceLost: A process has ended.
        """
        for number in range(len(self.processes)):
            self._do(number, partial(Process.tell, message=message, descriptor=descriptor))

    def tell_later(self, message: bytes) -> None:
        """Send a packed message to all of them, each with the next one that it gets."""
        for process in self.processes:
            process.tell_later(message)

    def work_off(
        self,
        portions: Sequence[range],
        slots: int,
        message: Callable[[int, int], bytes],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Generator[Any, None, None]:
        """Have portions done by whoever is free, and yield what comes of them in their order.

        Args:
            portions: Numbers of the pieces of each; every piece has the slot of its number, modulo ``slots``.
            slots: How many pieces may be under way or wait to be taken in; at least those of any portion.
            message: Returns the packed message of a portion, given its number and that of the process that
                gets it.
            meanwhile: What is done as soon as all of them are at work.

        Yields:
            An `Answer` each. Slots of its pieces are used again from the next one on.

        Raises:
            PieceLost: A process has ended.
            RuntimeError: A process could not do what it was told.
        """
        self._given = [{} for _ in self.processes]
        done: dict[int, Answer] = {}
        following = 0
        with self._listening() as selector:
            for first, portion in enumerate(portions):
                following = self._deal_out(portions, following, portion.start + slots, message)
                if not first:
                    meanwhile()
                while first not in done:
                    for ready, _ in selector.select():
                        answer = self._answer_of(ready.data)
                        done[answer.number] = answer
                    following = self._deal_out(portions, following, portion.start + slots, message)
                yield done.pop(first)

    def work_off_claimed(
        self, portion: range, message: bytes, meanwhile: Callable[[], None]
    ) -> Generator[Any, None, None]:
        """Have a portion done whose pieces they take for themselves, and yield what each has to say.

        Args:
            portion: Numbers of its pieces.
            message: The packed message of it, for all.
            meanwhile: What is done as soon as all of them are at work.

        Yields:
            An `Answer` each, as soon as it is there.

        Raises:
            PieceLost: A process has ended.
            RuntimeError: A process could not do what it was told.
        """
        self._given = [{0: portion} for _ in self.processes]
        for number in range(len(self.processes)):
            self._do(number, partial(Process.tell, message=message))
        meanwhile()
        with self._listening() as selector:
            while any(self._given):
                for ready, _ in selector.select():
                    yield self._answer_of(ready.data)

    def _listening(self) -> selectors.BaseSelector:
        selector = selectors.DefaultSelector()
        for number, process in enumerate(self.processes):
            selector.register(process.line.framed, selectors.EVENT_READ, number)
        return selector

    def _deal_out(
        self, portions: Sequence[range], following: int, free: int, message: Callable[[int, int], bytes]
    ) -> int:
        """Give portions to those who have least to do; return the number of the first that is left."""
        while following < len(portions) and portions[following].stop <= free:
            # At the end, what waits behind a portion could be at work elsewhere.
            most = AHEAD if len(portions) - following > len(self.processes) else 1
            number = min(range(len(self._given)), key=lambda process: len(self._given[process]))
            if len(self._given[number]) >= most:
                break
            sent = message(following, number)
            self._given[number][following] = portions[following]
            self._do(number, partial(Process.tell, message=sent))
            following += 1
        return following

    def _answer_of(self, number: int) -> Answer:
        answer: Answer | Broken = self._do(number, Process.hear)
        if isinstance(answer, Broken):
            raise RuntimeError(f"process {self.processes[number].pid}:\n{answer.text}")
        del self._given[number][answer.number]
        return answer

    def _do(self, number: int, act: Callable[[Process], Any]) -> Any:
        try:
            return act(self.processes[number])
        except ProcessEnded as ended:
            pieces = (portion.start for portion in self._given[number].values())
            raise PieceLost(number, min(pieces, default=0), str(ended)) from ended

    def dismiss(self) -> None:
        """Let them go, for another fit to hire; those that are still at work end."""
        for process, given in zip(self.processes, self._given, strict=True):
            if given:
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


class PieceLost(ProcessEnded):
    """A process has ended before it had done a piece.

    Args:
        process: Number of the process.
        piece: Number of the piece.
        reason: What is known of it.
    """

    def __init__(self, process: int, piece: int, reason: str) -> None:
        super().__init__(reason)
        self.process = process
        self.piece = piece
