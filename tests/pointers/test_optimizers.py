"""Every optimizer of torch that takes no closure steps at a worker as it would here, or says why not."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlightning.pointers import (
    HiddenValueError,
    PointerError,
    UnsupportedOperationError,
    get_module,
    move_module,
    send_module,
)
from fedlightning.workers import VirtualWorker

WITHOUT_CLOSURE = [
    kind
    for _, kind in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(kind, Optimizer) and kind not in (Optimizer, torch.optim.LBFGS)
]
REFUSED: dict[str, type[PointerError]] = {
    "Adafactor": HiddenValueError,  # reads a parameter's norm
    "SparseAdam": UnsupportedOperationError,  # constructs sparse tensors
}


def _variants() -> list[Any]:
    variants = []
    for kind in WITHOUT_CLOSURE:
        known = inspect.signature(kind).parameters
        settings = [{"foreach": False}, {"foreach": True}] if "foreach" in known else [{}]
        settings += [{"fused": True}] if "fused" in known else []
        variants += [pytest.param(kind, setting, id=f"{kind.__name__}-{setting}") for setting in settings]
    return variants


@pytest.mark.parametrize(("kind", "settings"), _variants())
def test_steps_equal_local_ones_bit_for_bit(
    kind: Callable[..., Optimizer], settings: dict[str, bool], bob: VirtualWorker
) -> None:
    expected = _trained(kind, settings, worker=None)
    if kind.__name__ in REFUSED:
        with pytest.raises(REFUSED[kind.__name__]):
            _trained(kind, settings, worker=bob)
        return
    for got, want in zip(_trained(kind, settings, worker=bob), expected, strict=True):
        assert torch.equal(got, want)


def _trained(
    kind: Callable[..., Optimizer], settings: dict[str, bool], worker: VirtualWorker | None
) -> list[Tensor]:
    torch.manual_seed(0)
    sparse = kind is torch.optim.SparseAdam
    module = nn.Embedding(7, 3, sparse=True) if sparse else nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    batch = torch.tensor([1, 2, 2]) if sparse else torch.randn(5, 3)
    if worker is not None:
        send_module(module, worker)
        batch = worker.send(batch)
    # Muon is for matrices alone.
    matrices_only = kind.__name__ == "Muon"
    optimizer = kind([p for p in module.parameters() if p.dim() == 2 or not matrices_only], **settings)
    for _ in range(3):
        optimizer.zero_grad()
        module(batch).square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone().get() if worker else parameter for parameter in module.parameters()]


@pytest.mark.parametrize("foreach", [True, False])
def test_bits_stay_equal_from_worker_to_worker(
    foreach: bool, bob: VirtualWorker, alice: VirtualWorker
) -> None:
    torch.manual_seed(0)
    module, batch = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(5, 3)
    local = copy.deepcopy(module)
    optimizers = [torch.optim.NAdam(m.parameters(), lr=0.1, foreach=foreach) for m in (module, local)]
    send_module(module, bob)
    for worker in (bob, alice, bob):
        move_module(module, worker)
        for optimizer, trained, inputs in zip(
            optimizers, (module, local), (worker.send(batch), batch), strict=True
        ):
            optimizer.zero_grad()
            trained(inputs).square().sum().backward()
            optimizer.step()
    for got, want in zip(get_module(module).parameters(), local.parameters(), strict=True):
        assert torch.equal(got, want)


def test_an_optimizer_that_reads_its_loss_is_refused(bob: VirtualWorker) -> None:
    module = send_module(nn.Linear(3, 2), bob)
    optimizer = torch.optim.LBFGS(module.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = module(bob.send(torch.ones(1, 3))).square().sum()
        loss.backward()
        return loss

    with pytest.raises(HiddenValueError, match="__float__"):
        optimizer.step(closure)


def test_one_message_steps_all_parameters_of_a_fused_optimizer(bob: VirtualWorker) -> None:
    module = send_module(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), bob)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    module(bob.send(torch.ones(1, 3))).sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    sent: list[str] = []
    submit = bob.submit
    bob.submit = lambda message: (sent.append(message.operation), submit(message))[1]
    optimizer.step()
    assert sent == ["torch._fused_sgd_"]
    assert all(gradient is not None for gradient in gradients)


def test_state_of_a_0_dimensional_parameter_follows_it(bob: VirtualWorker) -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    (module.scale * 3).backward()
    optimizer.step()
    send_module(module, bob)
    (module.scale * 3).backward()
    optimizer.step()
    assert optimizer.state[module.scale]["exp_avg"].location is bob
    assert not hasattr(optimizer.state[module.scale]["step"], "location")


def test_an_optimizer_for_each_worker(bob: VirtualWorker, alice: VirtualWorker) -> None:
    modules = [send_module(nn.Linear(2, 1), worker) for worker in (bob, alice)]
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.1) for module in modules]
    for module, optimizer, worker in zip(modules, optimizers, (bob, alice), strict=True):
        module(worker.send(torch.ones(3, 2))).sum().backward()
        optimizer.step()
        assert {state["exp_avg"].location for state in optimizer.state.values()} == {worker}
