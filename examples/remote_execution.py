"""Let workers work with each other directly: chains of pointers, moving, searching, programs.

    python examples/remote_execution.py

Who holds how much is printed along the way: an object lives as long as somebody points to it, and what is
handed over leaves nothing behind.
"""

from __future__ import annotations

import torch
from torch import Tensor

import fedlightning as fl
from fedlightning.workers import program


@program(returns="data")
def standardize(column: Tensor) -> Tensor:
    """Shift and scale numbers to mean 0 and standard deviation 1."""
    return (column - column.mean()) / column.std()


def main() -> None:
    """Let alice work with what lies at bob's, by way of pointers."""
    hook = fl.TorchHook(torch)
    bob, alice = fl.VirtualWorker(hook, id="bob"), fl.VirtualWorker(hook, id="alice")

    print("A pointer is an object as any other, and can be sent:")
    chain = torch.tensor([1.0, 2.0, 3.0, 4.0]).send(bob).send(alice)
    print("  we point to alice, who points to bob:", bob, alice)

    print("An operation goes down the chain to where the numbers are; alice gets a pointer to the result:")
    doubled = chain * 2
    print("  after doubling:", bob, alice)

    print("Each .get() takes one step back up the chain:")
    pointer = doubled.get()
    print("  first it brings what alice had:", pointer.location)
    print("  then what bob had:", pointer.get())

    print("Or the worker in the middle fetches for itself, and we see nothing of it:")
    chain.remote_get()
    print("  the numbers are at", chain.location, "and bob has nothing left:", bob)

    print("What need not stay in the middle is moved, from worker to worker directly:")
    moved = chain.move(bob)
    print("  back at", moved.location, "and nothing at", alice)

    print("A worker can be asked by tags for what we have no pointer to:")
    bob.register(torch.tensor([20.0, 30.0, 40.0, 50.0]), tags=("#ages",), description="ages of four people")
    (ages,) = bob.search("#ages")
    print("  found, with shape", tuple(ages.shape))

    print("Many operations in one message are a program, whose result may stay there, too:")
    scores = bob.start(standardize, ages)
    print("  their sum with what was there:", (scores + moved).get())

    del chain, doubled, pointer, moved, scores
    print("We have let go of everything, and the owner's own data remains:", bob, alice)


if __name__ == "__main__":
    main()
