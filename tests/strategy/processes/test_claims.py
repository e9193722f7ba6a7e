"""Every piece goes to one process, and to nobody once the round has failed."""

from __future__ import annotations

import os

from fedlightning.strategy.processes.claims import Claims
from fedlightning.strategy.processes.messages import Mean
from fedlightning.strategy.processes.shared_memory import SharedMemory

PIECES = 2000


def claims() -> Claims:
    memory = SharedMemory(Claims.nbytes_for(2, PIECES))
    return Claims(memory.file, memory.bytes, 2)


def test_two_processes_share_the_pieces() -> None:
    shared = claims()
    shared.offer()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        taken = list(shared.taken_by(1, PIECES))
        with open(theirs, "w") as out:
            out.write(" ".join(map(str, taken)))
        os._exit(0)
    os.close(theirs)
    here = list(shared.taken_by(0, PIECES))
    with open(ours) as text:
        there = [int(number) for number in text.read().split()]
    os.waitpid(child, 0)
    assert here == sorted(here)
    assert sorted(here + there) == list(range(PIECES))
    assert [shared.last_of(0), shared.last_of(1)] == [max(here, default=0), max(there, default=0)]


def test_nobody_takes_what_is_withdrawn() -> None:
    shared = claims()
    shared.offer()
    pieces = shared.taken_by(0, PIECES)
    assert [next(pieces), next(pieces)] == [0, 1]
    shared.withdraw()
    assert list(pieces) == list(shared.taken_by(1, PIECES)) == []
    shared.offer()
    assert next(shared.taken_by(1, PIECES)) == 0


def test_finished_pieces_are_told_of_in_order_up_to_the_first_that_is_not() -> None:
    shared = claims()
    shared.offer()
    assert shared.finished_from(0) == []
    for piece in (0, 1, 3):
        shared.finish(piece, count=piece, weight=10.0 * piece)
    assert shared.finished_from(0) == [Mean(0, 0.0), Mean(1, 10.0)]
    assert shared.finished_from(2) == []
    shared.finish(2, count=2, weight=20.0)
    assert shared.finished_from(2) == [Mean(2, 20.0), Mean(3, 30.0)]
    shared.offer()
    assert shared.finished_from(0) == []
