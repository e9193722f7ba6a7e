"""What crosses the wire arrives as it was; what cannot cross it is refused with a remedy, and not sent."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

from fedlightning.workers import Allow, AllowAll, AtLeast, KeepData, Rules
from fedlightning.workers.remote import UnsendableError, record
from fedlightning.workers.remote.codecs.names import AllowedNames, AnyNames
from fedlightning.workers.remote.codecs.packing import Surroundings
from fedlightning.workers.remote.codecs.policies import PolicySettings
from fedlightning.workers.remote.codecs.tensors import bytes_of
from fedlightning.workers.remote.codecs.travellers import Guests, OwnObjects
from fedlightning.workers.remote.errors import MalformedMessageError
from fedlightning.workers.remote.frames import HEADER_BYTES, Incoming, encode, read_header
from fedlightning.workers.remote.protocol import Request
from tests.workers.programs import StrangeError, fail_strangely


class Sides:
    """A controller and a worker without a process, and what is sent between them."""

    def __init__(self, *modules: str) -> None:
        names = AllowedNames(modules)
        self.controller = Surroundings(names, OwnObjects())
        self.worker = Surroundings(names, Guests())

    def send(self, value: Any) -> Any:
        return carry(value, self.controller, self.worker)

    def back(self, value: Any) -> Any:
        return carry(value, self.worker, self.controller)


def carry(value: Any, sender: Surroundings, receiver: Surroundings) -> Any:
    first, *memories = encode(value, sender)
    header = read_header(first[:HEADER_BYTES], 2**30)
    incoming = Incoming(first[HEADER_BYTES:], header)
    arrived = b"".join(bytes(memory) for memory in memories)
    for tensor in incoming.tensors:
        room = bytes_of(tensor)
        room[:], arrived = arrived[: room.nbytes], arrived[room.nbytes :]
    assert not arrived
    return incoming.decode(receiver)


@pytest.fixture
def sides() -> Sides:
    return Sides()


@pytest.mark.parametrize(
    "value",
    [
        (1, [2.5, {"a": None, (1, 2): b"x"}], {3, "b"}, frozenset({True})),
        2**70,
        -(2**63),
        "text \udcff with half a pair",
        float("inf"),
        3 - 4j,
        slice(None, 3, -1),
        range(2, 9, 3),
        ...,
        torch.Size([2, 3]),
        torch.float16,
        torch.device("cpu"),
        torch.channels_last,
        torch.sparse_coo,
        OrderedDict(b=1, a=2),
        Counter("hello"),
        np.float32(1.5),
        nn.Linear,
        torch.optim.lr_scheduler.StepLR,
        torch.relu,
        torch.utils.data.default_collate,
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_arrive_as_they_were(sides: Sides, value: Any) -> None:
    arrived = sides.send(value)
    assert arrived == value
    assert type(arrived) is type(value)


def test_arrays_partial_calls_and_named_results_arrive_as_they_were(sides: Sides) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1]
    assert (sides.send(array) == array).all()
    call = sides.send(partial(torch.optim.SGD, lr=0.1))
    assert (call.func, call.keywords) == (torch.optim.SGD, {"lr": 0.1})
    largest = torch.ones(2, 3).max(dim=1)
    assert type(sides.send(largest)) is type(largest)


def test_a_tensor_that_occurs_twice_is_sent_once(sides: Sides) -> None:
    tensor = torch.ones(3)
    one, other = sides.send([tensor, tensor])
    assert one is other


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (lambda: 0, "define it at the top level"),
        (object(), "make the object at the worker by a program"),
        (torch.Generator(), "Send a seed"),
        (torch.eye(2).to_sparse(), "to_dense"),
        (torch.quantize_per_tensor(torch.ones(1), 1.0, 0, torch.qint8), "dequantize"),
        (torch.empty(1, device="meta"), "no values"),
        (np.array(["a"]), "lists of strings"),
        (print, "let a program use it"),
        (StrangeError, r"modules=\['tests.workers.programs'\]"),
        ([[1, 2], Subset([1, 2], [0])], "TensorDataset"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_refused_with_a_remedy(sides: Sides, value: Any, remedy: str) -> None:
    with pytest.raises(UnsendableError, match=remedy):
        sides.send(value)


def test_what_contains_itself_is_refused(sides: Sides) -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(UnsendableError, match="contains itself"):
        sides.send(ring)


def tied() -> nn.Module:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    return module


MODULES: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)),
    lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(),
    lambda: nn.ModuleDict({"a": nn.ParameterList([nn.Parameter(torch.ones(2))]), "b": nn.Identity()}),
    tied,
]


@pytest.mark.parametrize("make", MODULES)
def test_modules_arrive_and_come_back_into_the_object_they_were(
    sides: Sides, make: Callable[[], nn.Module]
) -> None:
    module = make()
    next(module.parameters()).requires_grad_(False)
    there = sides.send(module)
    assert there is not module
    assert str(there) == str(module)
    assert [part.training for part in there.modules()] == [part.training for part in module.modules()]
    assert len(list(there.parameters())) == len(list(module.parameters()))
    for (name, here), arrived in zip(module.state_dict().items(), there.state_dict().values(), strict=True):
        assert torch.equal(here, arrived), name
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(1)
    there.train()
    identities = list(map(id, module.parameters()))
    assert sides.back(there) is module
    assert list(map(id, module.parameters())) == identities
    assert module.training
    assert torch.equal(list(module.parameters())[-1], list(there.parameters())[-1])
    assert not next(module.parameters()).requires_grad


def test_a_module_that_comes_again_takes_its_old_place(sides: Sides) -> None:
    module = nn.Linear(2, 2)
    there = sides.send(module)
    sides.back(there)
    with torch.no_grad():
        module.weight.fill_(7)
    assert sides.send(module) is there
    assert torch.equal(there.weight, torch.full((2, 2), 7.0))
    module.add_module("more", nn.ReLU())
    assert sides.send(module) is not there


class Hooked(nn.Linear):
    """A class that is on no list."""


class WithLambda(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda x: x


class NoRecord(L.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()


def with_hook() -> nn.Module:
    module = nn.Linear(1, 1)
    module.register_forward_hook(lambda *args: None)
    return module


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: Hooked(1, 1), r"modules=\['tests\.workers\.remote\.test_codecs'\]"),
        (with_hook, "hooks"),
        (lambda: nn.LazyLinear(2), "lazy"),
        (lambda: nn.Sequential(WithLambda()), "modules="),
    ],
)
def test_a_module_that_cannot_travel_says_how_it_could(
    sides: Sides, make: Callable[[], nn.Module], remedy: str
) -> None:
    with pytest.raises(UnsendableError, match=remedy):
        sides.send(make())


def test_classes_of_listed_modules_travel_and_their_limits_are_named() -> None:
    sides = Sides(__name__)
    assert type(sides.send(Hooked(1, 1))) is Hooked
    with pytest.raises(UnsendableError, match=r"WithLambda\.function cannot be sent.*save_hyperparameters"):
        sides.send(WithLambda())
    with pytest.raises(UnsendableError, match=r"\(width\).*save_hyperparameters"):
        sides.send(NoRecord(3))


def test_an_optimizer_needs_its_module_there(sides: Sides) -> None:
    with pytest.raises(UnsendableError, match=r"worker\.send\(module\)"):
        sides.send(torch.optim.SGD(nn.Linear(1, 1).parameters()))


def test_of_a_subset_only_its_own_rows_travel(sides: Sides) -> None:
    whole = TensorDataset(torch.arange(10), torch.arange(10) * 2)
    part = sides.send(Subset(Subset(whole, [9, 4, 2, 0]), [1, 3]))
    assert [tensor.tolist() for tensor in part.tensors] == [[4, 0], [8, 0]]
    assert sum(len(bytes(memory)) for memory in encode(Subset(whole, [1]), sides.controller)[1:]) == 16


def test_an_exception_arrives_with_its_cause_and_where_it_was_raised(sides: Sides) -> None:
    with pytest.raises(RuntimeError) as info:
        fail_strangely()
    arrived = sides.send(info.value)
    assert (type(arrived), str(arrived)) == (RuntimeError, "because of it")
    cause = arrived.__cause__
    assert isinstance(cause, StrangeError)
    assert (str(cause), cause.code) == ("code 7: look here", 7)
    assert "raise StrangeError(7" in str(cause.__cause__)


def test_an_exception_of_an_unknown_class_arrives_under_its_name(sides: Sides) -> None:
    class Local(KeyError):
        """Cannot be found by its name."""

    arrived = sides.send(Local("gone"))
    assert type(arrived).__name__ == "Local"
    assert isinstance(arrived, KeyError)
    assert str(arrived) == str(Local("gone"))


@pytest.mark.parametrize(
    "policy",
    [AllowAll(), KeepData(), Rules(Allow(kinds=("data",)), AtLeast(3), otherwise=AllowAll())],
    ids=repr,
)
def test_policies_arrive_as_they_were(policy: Any) -> None:
    everything = Surroundings(AnyNames())
    assert repr(carry(PolicySettings(policy), everything, everything)) == repr(policy)


@pytest.mark.parametrize(
    "request_", [Request(1, (True,)), Request(1, (1.0,)), Request(1, [1]), Request(1, (), "x")], ids=repr
)
def test_fields_of_the_wrong_type_are_noticed(sides: Sides, request_: Request) -> None:
    with pytest.raises(MalformedMessageError, match=r"Request\.(released|pipeline) is no"):
        sides.send(request_)


def test_a_record_is_a_dataclass_or_a_named_tuple() -> None:
    with pytest.raises(TypeError, match="neither a dataclass nor a named tuple"):
        record(int)


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(UnsendableError, match="too long"):
        encode(torch.ones(1000), Surroundings(), limit=100)
