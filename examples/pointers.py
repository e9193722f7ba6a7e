"""Work with tensors that lie at someone else's: the idea under the strategy, in thirty lines.

    python examples/pointers.py

Each operation on a pointer is one message to the worker that has the tensor; values come back only
by ``.get()``.
"""

from __future__ import annotations

import torch

import fedlightning as fl


def main() -> None:
    """Fit a line to two points at bob's, without seeing them until he hands the line over."""
    hook = fl.TorchHook(torch)
    bob = fl.VirtualWorker(hook, id="bob")

    inputs = torch.tensor([[0.0], [1.0]]).send(bob)
    targets = torch.tensor([[1.0], [3.0]]).send(bob)
    line = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(line.parameters(), lr=0.5)

    line.send(bob)
    for _ in range(100):
        optimizer.zero_grad()
        loss = ((line(inputs) - targets) ** 2).mean()
        loss.backward()
        optimizer.step()
    print("bob has", bob)
    print("the loss lies there, too:", loss)
    line.get()

    print(f"y = {line.weight.item():.2f} x + {line.bias.item():.2f}")


if __name__ == "__main__":
    main()
