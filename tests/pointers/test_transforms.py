"""Transforms of functions do on pointers what they do here: `torch.func`, autocast, checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jacfwd, jacrev, vjp, vmap
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from fedlightning.pointers import PointerTensor, UnsupportedOperationError, send_module
from fedlightning.workers import VirtualWorker

TRANSFORMED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "grad": lambda x, y: grad(lambda t: (t.sin() * t).sum())(x),
    "grad, pointer in the closure": lambda x, y: grad(lambda t: (y * t).exp().sum())(x),
    "grad, pointer in a list": lambda x, y: grad(lambda t: torch.cat([y, t]).square().sum())(x),
    "grad of grad": lambda x, y: grad(lambda s: grad(lambda t: (t**3).sum())(s).sum())(x),
    "grad and value": lambda x, y: grad_and_value(lambda t: t.sin().sum())(x),
    "vmap": lambda x, y: vmap(lambda t: torch.softmax(t, 0))(x),
    "vmap over two": lambda x, y: vmap(torch.dot)(x, y),
    "vmap, pointer in the closure": lambda x, y: vmap(lambda t: t @ y.T)(x),
    "vmap, in place": lambda x, y: vmap(lambda t: t.clone().mul_(2).unsqueeze_(0))(x),
    "vmap, indexed": lambda x, y: vmap(lambda t: t[[0, 2]])(x),
    "jacrev": lambda x, y: jacrev(torch.sin)(x),
    "hessian": lambda x, y: jacrev(jacrev(lambda t: t.pow(3).sum()))(x),
    "vjp": lambda x, y: vjp(torch.exp, x)[1](y)[0],
    "functional jacobian": lambda x, y: torch.autograd.functional.jacobian(torch.sin, x),
}
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4)), (5, 3)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), (5, 1, 8, 8)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (3, 5, 4)),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_functions_equal_local_ones_bit_for_bit(name: str, bob: VirtualWorker) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    _assert_same(TRANSFORMED[name](bob.send(x), bob.send(y)), TRANSFORMED[name](x, y))


@pytest.mark.parametrize("name", MODULES)
def test_gradients_per_sample_equal_local_ones_bit_for_bit(name: str, bob: VirtualWorker) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module, batch = make(), torch.randn(shape)
    expected = _gradients_per_sample(module, batch)
    send_module(module, bob)
    _assert_same(_gradients_per_sample(module, bob.send(batch)), expected)


def _gradients_per_sample(module: nn.Module, batch: Tensor) -> Any:
    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(module, parameters, (sample.unsqueeze(0),)).square().sum()

    parameters = {name: value.detach() for name, value in module.named_parameters()}
    return vmap(grad(loss), (None, 0))(parameters, batch)


def _assert_same(result: Any, expected: Any) -> None:
    for got, want in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        assert isinstance(got, PointerTensor)
        assert got.shape == want.shape
        assert torch.equal(got.get(), want)


def test_what_a_transform_cannot_do_is_refused(bob: VirtualWorker) -> None:
    x = torch.ones(3)
    with pytest.raises(UnsupportedOperationError, match="jacrev"):
        jacfwd(torch.sin)(bob.send(x))
    with pytest.raises(UnsupportedOperationError, match="detach"):
        grad(lambda t: t.sin().sum())(bob.send(x.requires_grad_()))


@pytest.mark.parametrize("name", MODULES)
def test_autocast_reaches_the_worker(name: str, bob: VirtualWorker) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module, batch = make(), torch.randn(shape)
    local = copy.deepcopy(module)
    send_module(module, bob)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, result = local(batch), module(bob.send(batch))
    assert result.dtype == expected.dtype
    result.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert torch.equal(result.get(), expected)
    for got, want in zip(module.parameters(), local.parameters(), strict=True):
        assert torch.equal(got.grad.copy().get(), want.grad)


def test_checkpointing_gives_the_same_gradients(bob: VirtualWorker) -> None:
    def block(x: Tensor) -> Tensor:
        return (x.sin() * x).exp()

    local = torch.linspace(0, 1, 5, requires_grad=True)
    pointer = bob.send(local)
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return block(x)

    block(local).sum().backward()
    checkpoint(counted, pointer, use_reentrant=False).sum().backward()
    assert len(calls) == 2  # once forward, once again for backward
    assert torch.equal(pointer.grad.get(), local.grad)


def test_hooks_that_would_carry_code_to_the_worker_are_refused(bob: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    module.register_full_backward_hook(lambda module, grad_input, grad_output: None)
    send_module(module, bob)
    with pytest.raises(UnsupportedOperationError, match="Remove the module's backward hooks"):
        module(bob.send(torch.ones(1, 2, requires_grad=True)))


def test_forward_hooks_compute_at_the_worker(bob: VirtualWorker) -> None:
    module, x = nn.Linear(2, 1), torch.ones(1, 2)
    module.register_forward_hook(lambda module, args, output: output * 2)
    expected = module(x)
    assert torch.equal(send_module(module, bob)(bob.send(x)).get(), expected)


def test_double_backward_of_a_module(bob: VirtualWorker) -> None:
    def penalty(module: nn.Module, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(module(x).sum(), [x], create_graph=True)
        slope.norm().backward()
        weight = next(module.parameters())
        assert weight.grad is not None
        return weight.grad

    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.ones(4, 2)
    expected = penalty(copy.deepcopy(module), x.clone().requires_grad_())
    got = penalty(send_module(module, bob), bob.send(x.clone().requires_grad_()))
    assert torch.equal(got.get(), expected)


def test_reentrant_checkpointing_names_the_other_one(bob: VirtualWorker) -> None:
    with pytest.raises(UnsupportedOperationError, match="use_reentrant=False"):
        checkpoint(torch.sin, bob.send(torch.ones(2, requires_grad=True)), use_reentrant=True)
