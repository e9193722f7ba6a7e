"""Every piece goes to one process, and to nobody once the round has failed."""

from __future__ import annotations

import os

from fedlightning.strategy.processes.claims import Claims
from fedlightning.strategy.processes.shared_memory import SharedMemory

PIECES = 2000


def claims() -> Claims:
    memory = SharedMemory(Claims.nbytes_for(2))
    return Claims(memory.file, memory.bytes)


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
