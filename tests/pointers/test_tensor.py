"""Pointers compute what local tensors compute, and reveal nothing unasked."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedlightning.pointers import (
    HiddenValueError,
    MixedLocationsError,
    PointerError,
    PointerTensor,
    StalePointerError,
    UnsupportedOperationError,
)
from fedlightning.workers import RemoteError, TorchHook, VirtualWorker

SAME_AS_LOCAL: dict[str, Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]] = {
    "add": lambda x, y: x + y,
    "reflected": lambda x, y: 2 - x / (1 + y.abs()),
    "matmul": lambda x, y: x @ y.T,
    "power": lambda x, y: 2**x + x**2,
    "compare": lambda x, y: x > y,
    "reduce": lambda x, y: x.mean(dim=1, keepdim=True),
    "named tuple": lambda x, y: tuple(torch.max(x, dim=1)),
    "list": lambda x, y: torch.cat([x, y], dim=1),
    "split": lambda x, y: x.split(2),
    "unpack": lambda x, y: tuple(x),
    "index": lambda x, y: x[1:, [0, 2]],
    "index by local": lambda x, y: x[torch.tensor([0, 2])],
    "mask": lambda x, y: x[y > 0],
    "0-dim local": lambda x, y: x * torch.tensor(2.0),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "view": lambda x, y: x.view(-1).unsqueeze(0).transpose(0, 1),
    "functional": lambda x, y: F.softmax(F.gelu(x), dim=-1),
    "loss": lambda x, y: F.mse_loss(x, y),
    "einsum": lambda x, y: torch.einsum("ij,kj->ik", x, y),
    "linalg": lambda x, y: torch.linalg.svdvals(x),
    "dtype": lambda x, y: x.double().to(torch.int64),
    "in place": lambda x, y: x.clone().add_(y).mul_(2),
    "out": lambda x, y: torch.add(x, y, out=torch.empty_like(x)),
    "no grad": lambda x, y: torch.no_grad()(lambda: x + y)(),
}


@pytest.mark.parametrize("name", SAME_AS_LOCAL)
def test_operations_equal_local_ones_bit_for_bit(name: str, bob: VirtualWorker) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    expected = SAME_AS_LOCAL[name](x, y)
    result = SAME_AS_LOCAL[name](bob.send(x), bob.send(y))
    for got, want in zip(_several(result), _several(expected), strict=True):
        assert isinstance(got, PointerTensor)
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.stride())
        assert torch.equal(got.get(), want)


def _several(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_what_is_sent_is_a_copy(bob: VirtualWorker) -> None:
    x = torch.ones(2)
    pointer = bob.send(x)
    pointer.zero_()
    assert torch.equal(x, torch.ones(2))
    alias = pointer.view(2)
    fetched = pointer.get()
    alias.add_(5)
    assert torch.equal(fetched, torch.zeros(2))


def test_an_in_place_operation_returns_the_same_pointer(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2, 3))
    assert pointer.add_(1) is pointer
    assert pointer.t_() is pointer
    assert pointer.shape == (3, 2)
    assert len(bob) == 1


def test_assignments_refresh_what_is_known(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2, 3))
    pointer.data = bob.send(torch.zeros(5, dtype=torch.float64))
    assert (pointer.shape, pointer.dtype) == ((5,), torch.float64)
    pointer.requires_grad = True
    assert pointer.requires_grad
    plain = bob.send(torch.zeros(2))
    plain[0] = pointer[1]
    assert plain.requires_grad
    assert not plain.is_leaf


def test_the_graph_is_cut_by_get_and_the_need_of_a_gradient_stays(bob: VirtualWorker) -> None:
    leaf = bob.send(torch.ones(3, requires_grad=True))
    fetched = (leaf * 2).get()
    assert fetched.requires_grad
    assert fetched.is_leaf
    assert torch.equal(fetched.detach(), torch.full((3,), 2.0))


@pytest.mark.parametrize(
    "reveal",
    [
        lambda p: p.item(),
        lambda p: bool(p),
        lambda p: float(p),
        lambda p: int(p),
        lambda p: p.tolist(),
        lambda p: p.numpy(),
        lambda p: 1.0 in p,
        lambda p: torch.is_nonzero(p),
        lambda p: f"{p:.3f}",
        lambda p: range(3)[p],
        lambda p: __import__("numpy").asarray(p),
    ],
)
def test_values_are_not_revealed(reveal: Callable[[Tensor], object], bob: VirtualWorker) -> None:
    with pytest.raises(HiddenValueError, match=r"call \.get\(\) first"):
        reveal(bob.send(torch.tensor(1)))


@pytest.mark.parametrize(
    "attempt",
    [
        lambda p: p.data_ptr(),
        lambda p: p.untyped_storage(),
        lambda p: p.apply_(abs),
        lambda p: p.share_memory_(),
        lambda p: p.register_hook(print),
        lambda p: torch.from_dlpack(p),
        lambda p: pickle.dumps(p),
        lambda p: p.send(p.location),
    ],
)
def test_unsafe_operations_are_refused(attempt: Callable[[Tensor], object], bob: VirtualWorker) -> None:
    with pytest.raises(UnsupportedOperationError):
        attempt(bob.send(torch.ones(2)))


def test_a_copy_can_be_fetched_while_the_tensor_stays(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2, requires_grad=True))
    fetched = pointer.copy().get()
    assert fetched.requires_grad
    assert torch.equal(fetched, pointer.get())


def test_a_notebook_shows_what_is_known_and_no_value(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.tensor([0.123456], requires_grad=True))
    shown = pointer._repr_html_()
    assert "0.12" not in shown
    for known in ("bob", str(pointer.id_at_location), "(1,)", "torch.float32", "True"):
        assert f"<td>{known}</td>" in shown
    pointer.get()
    assert "was fetched" in pointer._repr_html_()


def test_a_pointer_is_on_the_device_where_its_tensor_is(bob: VirtualWorker) -> None:
    x = torch.ones(2)
    pointer = bob.send(x)
    assert pointer.device == x.device
    assert (pointer.is_cpu, pointer.is_meta, pointer.is_cuda) == (True, False, False)
    assert (pointer.get_device(), torch.get_device(pointer)) == (-1, -1)
    with torch._C.DisableTorchFunctionSubclass():
        assert pointer.device == x.device


@pytest.mark.parametrize(
    "attempt",
    [
        lambda p: setattr(torch.ones(2), "data", p),
        lambda p: torch.ones(2).set_(p),
        lambda p: torch.Tensor(p),
        lambda p: p.as_subclass(Tensor),
        lambda p: torch.from_numpy(p),
        lambda p: torch.frombuffer(p, dtype=torch.float32),
    ],
)
def test_a_pointer_never_becomes_a_local_tensors_memory(
    attempt: Callable[[Tensor], object], bob: VirtualWorker
) -> None:
    # Assigning to `.data` without the meta device would end the process.
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        attempt(bob.send(torch.ones(2)))


def test_making_a_tensor_of_a_pointer_gives_a_pointer(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2))
    for make in (torch.tensor, torch.as_tensor, torch.asarray):
        assert isinstance(make(pointer), PointerTensor)
    with pytest.raises(UnsupportedOperationError, match="at 'bob'"):
        (pointer.requires_grad_() * 2).grad_fn.register_hook(print)


def test_text_of_a_pointer_holds_no_values(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.tensor([0.123456]))
    expected = f"(Wrapper)>[PointerTensor | me:{pointer.id} -> bob:{pointer.id_at_location}]"
    assert repr(pointer) == str(pointer) == f"{pointer}" == expected


def test_a_local_tensor_does_not_mix_with_a_pointer(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(3))
    with pytest.raises(MixedLocationsError, match=r"'me'.*'bob'.*\.send\(bob\).*\.get\(\)"):
        pointer + torch.ones(3)
    with pytest.raises(MixedLocationsError):
        torch.cat([torch.ones(3), pointer])
    local = torch.zeros(())
    with pytest.raises(MixedLocationsError):
        local.add_(pointer.sum())
    assert local == 0


def test_two_workers_do_not_mix(bob: VirtualWorker, alice: VirtualWorker) -> None:
    x, y = bob.send(torch.ones(3)), alice.send(torch.ones(3))
    with pytest.raises(MixedLocationsError, match="'bob' and 'alice'"):
        x + y
    assert torch.equal((x.move(alice) + y).get(), torch.full((3,), 2.0))


def test_pointers_to_an_earlier_worker_of_the_same_name_say_so(hook: TorchHook) -> None:
    old = VirtualWorker(hook, id="carol")
    new = VirtualWorker(hook, id="carol")
    assert hook.workers["carol"] is new
    with pytest.raises(MixedLocationsError, match="made again"):
        old.send(torch.ones(1)) + new.send(torch.ones(1))


def test_get_twice_is_an_error_that_says_so(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(1))
    pointer.get()
    with pytest.raises(StalePointerError, match=r"was fetched by \.get\(\)"):
        pointer.get()
    with pytest.raises(StalePointerError):
        pointer + pointer
    with pytest.raises(PointerError, match="here already"):
        torch.ones(1).get()


def test_an_error_at_the_worker_keeps_its_traceback(bob: VirtualWorker) -> None:
    with pytest.raises(
        RemoteError, match=r"torch\.Tensor\.matmul raised RuntimeError at worker 'bob'"
    ) as info:
        bob.send(torch.ones(2, 3)) @ bob.send(torch.ones(2, 3))
    assert isinstance(info.value.__cause__, RuntimeError)
    assert info.value.worker == "bob"


def test_a_deep_copy_is_another_tensor_at_the_worker(bob: VirtualWorker) -> None:
    pointer = bob.send(torch.ones(2, requires_grad=True))
    twin = copy.deepcopy(pointer)
    twin.data.zero_()
    assert twin.requires_grad
    assert torch.equal(pointer.get().detach(), torch.ones(2))


def test_custom_functions_are_refused_on_pointers_only(bob: VirtualWorker) -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 2

    x = torch.ones(2, requires_grad=True)
    Double.apply(x).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0))
    with pytest.raises(UnsupportedOperationError, match="Double"):
        Double.apply(bob.send(x))


def test_stray_dispatcher_calls_never_lose_a_gradient(bob: VirtualWorker) -> None:
    x = torch.ones(2, requires_grad=True)
    pointer = bob.send(x)
    torch.ops.aten.mul(pointer, 2).sum().backward()
    assert torch.equal(pointer.grad.get(), torch.full((2,), 2.0))
    with torch._C.DisableTorchFunctionSubclass():
        with pytest.raises(UnsupportedOperationError, match="gradient"):
            torch.mul(pointer, 2)
        with torch.no_grad():
            product = torch.mul(pointer, 2)
    assert torch.equal(product.get(), torch.full((2,), 2.0))
