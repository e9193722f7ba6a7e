"""No message reads or writes beyond the memory of the tensors that it names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedlightning.pointers.messages import Execute
from fedlightning.workers import RemoteError, VirtualWorker
from fedlightning.workers.blank_memory import WORKER_OPERATIONS

WILD = torch.tensor([[[[10**7, 2], [-(10**7), 4]]]])


def run(operation: str, *args: Any) -> Any:
    bob = VirtualWorker(id="bob")
    pointers = [bob.send(value) if isinstance(value, torch.Tensor) else value for value in args]
    sent = [value._handle.ref if isinstance(value, torch.Tensor) else value for value in pointers]
    return bob.submit(Execute(operation, tuple(sent), {}, (1,))).wait()


def test_a_view_has_the_memory_that_it_shows() -> None:
    with pytest.raises(RemoteError, match="out of bounds for storage"):
        run("torch.ops.aten._reshape_alias", torch.ones(2, 3), [1000], [1])
    assert run("torch.ops.aten._reshape_alias", torch.ones(2, 3), [3, 2], [2, 1]).shape == (3, 2)


def test_positions_beyond_the_end_do_not_crash_it() -> None:
    pooled, whole = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4)
    geometry = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    run("torch.ops.aten.max_pool2d_with_indices_backward", pooled, whole, *geometry, WILD)
    one, far = torch.tensor([0]), torch.tensor([10**8])
    settings = (4, False, 0, False, None, -1)
    run("torch.ops.aten._embedding_bag_backward", torch.ones(1, 3), far, one, far, one + 1, one, *settings)
    lengths = torch.tensor([5]), torch.tensor([2])
    run("torch.nn.functional.ctc_loss", torch.randn(5, 1, 4), torch.tensor([[900_000, 2]]), *lengths)


def test_positions_within_bounds_mean_what_they_did() -> None:
    inputs = torch.randn(1, 1, 4, 4, requires_grad=True)
    pooled, indices = torch.nn.functional.max_pool2d(inputs, 2, return_indices=True)
    pooled.sum().backward()
    guarded = WORKER_OPERATIONS["torch.ops.aten.max_pool2d_with_indices_backward"]
    geometry = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    assert torch.equal(guarded(torch.ones_like(pooled), inputs.detach(), *geometry, indices), inputs.grad)
