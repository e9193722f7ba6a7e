"""The private calls of torch's vmap still are what they are taken for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from fedlightning.local.vectorised.functorch_calls import is_shown_by_vmap, of_workers, one_of


def test_vmap_shows_one_part_of_a_memory_that_can_be_reached() -> None:
    memory, seen = torch.randn(3, 4), []

    def of_one(part: Tensor) -> Tensor:
        assert is_shown_by_vmap(part)
        seen.append(of_workers(part))
        whole = of_workers(part.unsqueeze(0).transpose(0, 1))
        assert whole is not None
        assert whole.shape == (3, 4, 1)
        assert of_workers(torch.ones(2)) is None
        assert of_workers("no tensor") is None
        return one_of(2 * memory, like=part)

    assert torch.equal(vmap(of_one)(memory), 2 * memory)
    assert torch.equal(vmap(of_one, in_dims=1)(memory.t().contiguous()), 2 * memory)
    # Identity matters: parameters are recognised by it.
    assert seen[0] is memory
    assert not is_shown_by_vmap(memory)
