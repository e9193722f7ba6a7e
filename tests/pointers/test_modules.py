"""Modules that are sent train as they would here, and come back as the same objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlightning.pointers import PointerError, PointerTensor, get_module, move_module, send_module
from fedlightning.pointers.swap import exchange
from fedlightning.workers import Decision, Egress, KeepData, Policy, RefusedByPolicy, VirtualWorker


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[0], device=x.device, dtype=x.dtype)
        return self.head(self.lstm(x)[0]) * positions[:, None, None]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class First(nn.Module):
    """Keep the first of what a module returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.attention(x, x, x, attn_mask=causal, is_causal=True)[0]


def _convolutional() -> nn.Module:
    parts = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*parts, nn.Linear(36, 2))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), (4, 3)),
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)), (4, 3)),
    "cnn": (_convolutional, (5, 1, 8, 8)),
    "lstm": (Recurrent, (4, 2, 3)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "attention": (SelfAttention, (2, 5, 8)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (4, 3)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)), (4, 3)),
    "gru": (lambda: First(nn.GRU(3, 4, bidirectional=True)), (4, 2, 3)),
    "upsampling": (
        lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.GroupNorm(2, 2), nn.GELU()),
        (2, 1, 3, 3),
    ),
    "tied": (Tied, (4, 3)),
    "embedding": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.LayerNorm(4)), (2, 3, 2)),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def _step(module: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    loss = module(batch).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def _same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", MODULES)
def test_training_at_bob_then_alice_equals_local_training(
    name: str, bob: VirtualWorker, alice: VirtualWorker
) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module, batch = make(), torch.randn(shape)
    local = copy.deepcopy(module)
    identities = [id(tensor) for tensor in (*module.parameters(), *module.buffers())]
    optimizer, local_optimizer = (OPTIMIZERS["momentum"](m.parameters()) for m in (module, local))
    for seed, worker in enumerate((bob, alice, bob)):
        send_module(module, worker)
        loss = _step(module, optimizer, worker.send(batch), seed)
        get_module(module)
        assert torch.equal(loss.get(), _step(local, local_optimizer, batch, seed))
    assert _same(module, local)
    assert [id(tensor) for tensor in (*module.parameters(), *module.buffers())] == identities
    assert all(type(parameter) is nn.Parameter for parameter in module.parameters())
    for parameter, expected in zip(module.parameters(), local.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_follows_its_parameters(name: str, bob: VirtualWorker, alice: VirtualWorker) -> None:
    torch.manual_seed(0)
    module, batch = nn.Linear(3, 1), torch.randn(4, 3)
    local = copy.deepcopy(module)
    optimizer, local_optimizer = (OPTIMIZERS[name](m.parameters()) for m in (module, local))
    for seed, worker in enumerate((bob, alice, None, bob)):
        if worker is None:
            _step(module, optimizer, batch, seed)
        else:
            module.send(worker)
            _step(module, optimizer, worker.send(batch), seed)
            module.get()
        _step(local, local_optimizer, batch, seed)
    assert _same(module, local)


def test_nothing_is_left_behind(bob: VirtualWorker) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    batch = bob.send(torch.randn(4, 3))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for seed in range(3):
        send_module(module, bob)
        _step(module, optimizer, batch, seed)
        get_module(module)
        assert len(bob) == 1


def test_local_forward_is_as_before_after_get(bob: VirtualWorker) -> None:
    module = Recurrent()
    x = torch.randn(4, 2, 3)
    expected = module(x)
    send_module(module, bob)
    assert torch.equal(module(bob.send(x)).get(), expected)
    get_module(module)
    assert torch.equal(module(x), expected)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


def test_a_forward_that_raises_leaves_factories_local(bob: VirtualWorker) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("broken")

    module = send_module(nn.Sequential(nn.Linear(1, 1), Broken()), bob)
    with pytest.raises(ValueError, match="broken"):
        module(bob.send(torch.ones(1, 1)))
    assert not isinstance(torch.zeros(2), PointerTensor)


def test_a_sent_module_can_be_copied_and_loaded(bob: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    values = copy.deepcopy(module.state_dict())
    send_module(module, bob)
    assert all(isinstance(value, PointerTensor) for value in module.state_dict().values())
    twin = copy.deepcopy(module)
    assert len(list(twin.parameters())) == 2
    nn.init.zeros_(module.weight)
    module.load_state_dict(values)
    get_module(module)
    get_module(twin)
    assert _same(module, twin)


def test_sending_twice_and_getting_twice_are_errors(bob: VirtualWorker, alice: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    send_module(module, bob)
    with pytest.raises(PointerError, match="at 'bob' already"):
        send_module(module, alice)
    get_module(module)
    with pytest.raises(PointerError, match="here already"):
        get_module(module)


class Refusing(Policy):
    """Let the first few objects leave, and nothing after them."""

    def __init__(self, first: int) -> None:
        self.left = first

    def decide(self, egress: Egress) -> Decision:
        self.left -= 1
        return Decision(self.left >= 0, "enough has left")


def test_a_module_comes_back_whole_or_not_at_all() -> None:
    worker = VirtualWorker(id="bob", policy=Refusing(first=1))
    module = nn.Linear(2, 1)
    local = copy.deepcopy(module)
    send_module(module, worker)
    module(worker.send(torch.ones(1, 2))).sum().backward()
    with pytest.raises(RefusedByPolicy):
        get_module(module)
    assert all(isinstance(parameter, PointerTensor) for parameter in module.parameters())
    assert module.weight.grad is not None
    worker.policy.left = 6
    assert torch.equal(module(worker.send(torch.ones(1, 2))).get(), local(torch.ones(1, 2)))
    assert _same(get_module(module), local)
    assert torch.equal(module.weight.grad, torch.ones(1, 2))
    assert len(worker) == 0


def test_a_module_that_cannot_be_sent_whole_stays_here(bob: VirtualWorker) -> None:
    class Odd(Tensor):
        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise NotImplementedError

    module = nn.Linear(2, 1)
    module.odd = torch.ones(1).as_subclass(Odd)
    module.register_buffer("buffer", module.odd)
    with pytest.raises(PointerError, match="Odd cannot be sent"):
        send_module(module, bob)
    assert type(module.weight) is nn.Parameter
    assert len(bob) == 0


def test_a_module_moves_with_its_gradients(bob: VirtualWorker, alice: VirtualWorker) -> None:
    module = send_module(nn.Linear(2, 1), bob)
    module(bob.send(torch.ones(1, 2))).sum().backward()
    assert move_module(module, alice).weight.location is alice
    assert len(bob) == 0
    assert torch.equal(get_module(module).weight.grad, torch.ones(1, 2))


def test_a_lazy_module_is_refused(bob: VirtualWorker) -> None:
    with pytest.raises(PointerError, match="lazy"):
        send_module(nn.LazyLinear(1), bob)


def test_a_sent_module_changes_its_dtype(bob: VirtualWorker) -> None:
    module = nn.Linear(2, 1)
    expected = copy.deepcopy(module).double().weight
    send_module(module, bob).double()
    assert module.weight.dtype == torch.float64
    assert torch.equal(get_module(module).weight, expected)


@pytest.mark.parametrize("foreach", [None, True, False])
def test_gradient_clipping(foreach: bool | None, bob: VirtualWorker) -> None:
    torch.manual_seed(0)
    module, batch = nn.Linear(3, 1), torch.randn(4, 3) * 100
    local = copy.deepcopy(module)
    local(batch).square().sum().backward()
    nn.utils.clip_grad_norm_(local.parameters(), 1.0, foreach=bool(foreach))
    send_module(module, bob)
    module(bob.send(batch)).square().sum().backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=foreach)
    get_module(module)
    for parameter, expected in zip(module.parameters(), local.parameters(), strict=True):
        assert torch.equal(parameter.grad, expected.grad)


def test_private_swap_of_torch_still_exchanges_implementations() -> None:
    # If this fails, torch has changed the private function that `swap` stands on.
    first, second = nn.Parameter(torch.ones(2)), torch.zeros(3)
    first_id = id(first)
    exchange(first, second)
    assert id(first) == first_id
    assert type(first) is Tensor
    assert type(second) is nn.Parameter
    assert torch.equal(first, torch.zeros(3))
    assert torch.equal(second.data, torch.ones(2))


class OfDifferentLengths(nn.Module):
    """Read sequences of different lengths, which an LSTM takes packed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, sequences: list[Tensor]) -> Tensor:
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        padded = nn.utils.rnn.pad_sequence(sequences)
        packed = nn.utils.rnn.pack_padded_sequence(padded, lengths)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0])[0]


def test_packed_sequences(bob: VirtualWorker) -> None:
    torch.manual_seed(0)
    module, sequences = OfDifferentLengths(), [torch.randn(length, 3) for length in (4, 2, 1)]
    local = copy.deepcopy(module)
    expected = local(sequences)
    expected.sum().backward()
    send_module(module, bob)
    result = module([bob.send(sequence) for sequence in sequences])
    result.sum().backward()
    assert torch.equal(result.get(), expected)
    for got, want in zip(get_module(module).parameters(), local.parameters(), strict=True):
        assert torch.equal(got.grad, want.grad)


def test_private_lengths_do_not_decide_on_shapes() -> None:
    worker = VirtualWorker(id="owner", policy=KeepData())
    lengths = worker.register(torch.tensor([3, 1]))
    with pytest.raises(RefusedByPolicy):
        nn.utils.rnn.pack_padded_sequence(worker.send(torch.ones(3, 2, 1)), lengths)
