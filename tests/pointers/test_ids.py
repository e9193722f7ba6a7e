"""Identifiers have 11 digits and come from the system, whatever the seeds."""

from __future__ import annotations

import os
import random

import torch

from fedlightning.pointers import new_id


def test_eleven_digits_and_no_repetition() -> None:
    drawn = [new_id() for _ in range(2000)]
    assert {len(str(number)) for number in drawn} == {11}
    assert len(set(drawn)) == 2000


def test_seeds_make_no_difference() -> None:
    def seeded() -> int:
        torch.manual_seed(0)
        random.seed(0)
        return new_id()

    assert seeded() != seeded()


def test_a_forked_process_draws_others() -> None:
    new_id()  # leaves a pool that a fork would share
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(new_id()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 20)) != new_id()
