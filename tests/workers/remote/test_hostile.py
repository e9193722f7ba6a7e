"""Whatever arrives at a worker, it answers, runs nothing that it does not offer, and keeps its objects.

More examples, and others each time: ``FUZZ_EXAMPLES=5000 pytest --hypothesis-profile=exploring
tests/workers/remote/test_hostile.py``.
"""

from __future__ import annotations

import ast
import os
import pickle
import socket
import struct
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fedlightning.workers.remote
from fedlightning.pointers.messages import Backward, Delete, Describe, Execute, Get, Put, Ref, Run, Search
from fedlightning.workers import AllowAll, Ledger, RemoteError, WorkerError, WorkerLost
from fedlightning.workers.host import Host
from fedlightning.workers.remote.channel import Channel
from fedlightning.workers.remote.codecs.names import AllowedNames
from fedlightning.workers.remote.codecs.packing import Packer, Surroundings
from fedlightning.workers.remote.codecs.travellers import Guests, OwnObjects
from fedlightning.workers.remote.frames import HEADER_BYTES, encode
from fedlightning.workers.remote.protocol import Answered, CountObjects, Failed, Request, ShowLedger
from fedlightning.workers.remote.session import Session
from fedlightning.workers.remote.worker import ProcessWorker
from tests.workers.conftest import IN_ONE_PROCESS, MakeWorker
from tests.workers.programs import count

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
LIMIT = 2**20
BYSTANDER = 99_887_766_554
TREASURE = torch.arange(5.0)
OWN_CODE = Path(fedlightning.workers.remote.__file__).parent

_OF_IMPORTS = ("os.listdir", "os.scandir")
_dangerous: list[str] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    # Importing what is offered lists folders, and that is all that may be done to the system.
    if event.startswith(("os.", "subprocess.", "shutil.", "pickle.")) and event not in _OF_IMPORTS:
        _dangerous.append(event)


sys.addaudithook(_watch)


@pytest.fixture(scope="module", autouse=True)
def without_bytecode() -> Iterator[None]:
    """Import what is offered without writing its bytecode: renaming files is something done to the system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        yield


class Victim:
    """A worker without a process, driven by raw bytes."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.host = Host("victim", AllowAll(), Ledger())
        self.host.store.put(BYSTANDER, TREASURE.clone())
        self.host.store.put(1, torch.ones(2, 2))
        surroundings = Surroundings(AllowedNames(), Guests(), find=self.host.store.get)
        self.session = Session(Channel(theirs, LIMIT, stall_seconds=1), self.host, surroundings)
        self.channel = Channel(ours, LIMIT)

    def meets(self, data: bytes, *, closing: bool = False) -> Answered | Failed | None:
        """Send bytes and return what it answers; None if it gives the connection up."""
        self.channel.connection.sendall(data)
        if closing:
            self.channel.connection.shutdown(socket.SHUT_WR)
        _dangerous.clear()
        goes_on = self.session.serve_one()
        assert not _dangerous
        assert torch.equal(self.host.store.get(BYSTANDER), TREASURE)
        if not goes_on:
            return None
        outcome = self.channel.receive().decode(Surroundings(AllowedNames(), OwnObjects()))
        assert isinstance(outcome, (Answered, Failed))
        if isinstance(outcome, Failed):
            assert isinstance(outcome.error, WorkerError)
        return outcome


@pytest.fixture
def victim() -> Victim:
    return Victim()


def frame(tree: Any, memory: bytes = b"") -> bytes:
    structure = msgpack.packb(tree, unicode_errors="surrogatepass")
    return struct.pack("<4sIQQ", b"FLtn", 1, len(structure), len(memory)) + structure + memory


def packed(value: Any) -> bytes:
    return b"".join(bytes(part) for part in encode(value, Surroundings(travellers=OwnObjects())))


MESSAGES: list[Any] = [
    Put(11, torch.ones(2, 3), ("#a",), "text"),
    Put(12, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))),
    Put(13, {"a": [1, 2.5, None, (slice(1, 2), torch.float32)], "b": {3}}),
    Put(14, torch.ones(2, requires_grad=True), private=True, owner="me"),
    Execute("torch.Tensor.add", (Ref(1), 2), {"alpha": 3}, (15,)),
    Execute("torch.cat", ([Ref(1), Ref(1)],), {"dim": 0}, (16,)),
    Backward((Ref(1),), (None,)),
    Run("fedlightning.data.placement:dataset_length", (Ref(1),), {}, False, 0),
    Get(1),
    Delete((1, 2)),
    Search(("#a",)),
    Describe(1),
    CountObjects(),
    ShowLedger(),
]


def tree_of(message: Any) -> tuple[list[Any], bytes]:
    """Return the plain items of a request, and the memory of its tensors."""
    packer = Packer(Surroundings(travellers=OwnObjects()))
    root = packer.pack(Request(message, (3,)))
    # By way of its bytes, so that no two items are the same object.
    tree = msgpack.unpackb(msgpack.packb([packer.tensors.entries, root]))
    return tree, b"".join(bytes(memory) for memory in packer.tensors.memories)


TREES = [tree_of(message) for message in MESSAGES]
TAGS = ["tuple", "dict", "tensor", "name", "partial", "exception", "module", "optimizer", "Put", "Ref", "int"]
PATHS = [
    "os:system",
    "builtins:eval",
    "torch:load",
    "posix:system",
    "torch.hub:load",
    "torch.optim.optimizer:register_optimizer_step_pre_hook",
    "torch.nn.modules.module:register_module_forward_hook",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from([*TAGS, *PATHS, BYSTANDER - 1])
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(st.sampled_from(TAGS), inner).map(list),
    max_leaves=12,
)


def places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    for index, item in enumerate(tree):
        yield tree, index
        if isinstance(item, list):
            yield from places(item)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    assert Victim().meets(data, closing=True) is None


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=40))
def test_random_structures(structure: bytes, memory: bytes) -> None:
    header = struct.pack("<4sIQQ", b"FLtn", 1, len(structure), len(memory))
    assert isinstance(Victim().meets(header + structure + memory), Failed)


@settings(max_examples=EXAMPLES, deadline=None)
@given(trees, st.binary(max_size=16))
def test_random_trees(tree: Any, memory: bytes) -> None:
    assert isinstance(Victim().meets(frame(tree, memory)), Failed)


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(st.data())
def test_messages_with_a_part_exchanged(data: st.DataObject) -> None:
    tree, memory = deepcopy(data.draw(st.sampled_from(TREES)))
    for _ in range(data.draw(st.integers(1, 2))):
        holder, index = data.draw(st.sampled_from(list(places(tree))))
        holder[index] = data.draw(trees)
    Victim().meets(frame(tree, memory))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_messages_with_a_byte_exchanged(data: st.DataObject) -> None:
    tree, memory = data.draw(st.sampled_from(TREES))
    damaged = bytearray(frame(tree, memory))
    damaged[data.draw(st.integers(HEADER_BYTES, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    Victim().meets(bytes(damaged))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_messages_that_break_off(victim: Victim, part: float) -> None:
    whole = packed(Request(Put(11, torch.ones(100))))
    assert victim.meets(whole[: int(len(whole) * part)], closing=True) is None
    assert 11 not in victim.host.store.objects


def test_a_message_that_does_not_go_on_is_given_up(victim: Victim) -> None:
    assert victim.meets(packed(Request(CountObjects()))[:-1]) is None


@pytest.mark.parametrize("announced", [(2**63, 0), (0, 2**64 - 1), (10, LIMIT), (2**40, 2**40)])
def test_a_message_that_announces_too_much(victim: Victim, announced: tuple[int, int]) -> None:
    assert victim.meets(struct.pack("<4sIQQ", b"FLtn", 1, *announced)) is None


@pytest.mark.parametrize(
    "entry",
    [
        ["float32", [2**61, 2**61], None, False, None, None],
        ["float32", [-1], None, False, None, None],
        ["float32", [2.0], None, False, None, None],
        ["float32", [1] * 100, None, False, None, None],
        ["float32", [0, 2**61, 2**61], None, False, None, None],
        ["float32", [1, 1], [0, 0], False, None, None],
        ["float32", [1], None, False, 0, None],
        ["float32", [1], None, False, -1, None],
        ["float32", [1], None, False, None, "cuda:99"],
        ["int64", [1], None, True, None, None],
        ["qint8", [4], None, False, None, None],
        ["object", [1], None, False, None, None],
        ["float32", [1]],
        "float32",
    ],
    ids=str,
)
def test_tensors_that_cannot_be(victim: Victim, entry: Any) -> None:
    tree, _ = tree_of(Put(11, torch.ones(1)))
    tree[0] = [entry]
    for memory in (b"1234", b"12345678"):
        assert isinstance(victim.meets(frame(tree, memory)), Failed)
    assert 11 not in victim.host.store.objects


def test_nesting_without_end(victim: Victim) -> None:
    for depth in (300, 900, 100_000):
        item: bytes = b"\x92\xa5tuple" * depth + b"\xc0"
        structure = b"\x92\x90" + item
        header = struct.pack("<4sIQQ", b"FLtn", 1, len(structure), 0)
        outcome = victim.meets(header + structure)
        assert isinstance(outcome, Failed)


def test_a_bool_is_0_or_1_whatever_its_byte(victim: Victim) -> None:
    tree, _ = tree_of(Put(11, torch.ones(3, dtype=torch.bool)))
    assert isinstance(victim.meets(frame(tree, b"\x00\x07\xff")), Answered)
    assert victim.host.store.get(11).view(torch.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "path",
    [
        *PATHS,
        "tests.workers.programs:StrangeError",
        "os.path:join",
        "torch.nn.modules.linear:torch",
        "torch.nn.modules.linear:Linear.__init__",
        ["x"],
        None,
    ],
)
@pytest.mark.parametrize("tag", ["name", "module", "optimizer", "partial"])
def test_what_is_not_listed_is_not_found(victim: Victim, path: Any, tag: str) -> None:
    items = {
        "name": [path],
        "partial": [["name", path], ["tuple", "true"], ["dict"]],
        "module": [0, ["constructed", path, ["dict"]], [], [], []],
        "optimizer": [0, path, ["dict"], [], [], []],
    }
    tree, _ = tree_of(Put(11, "x"))
    tree[1][1][2] = [tag, *items[tag]]
    outcome = victim.meets(frame(tree))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RemoteError)
    assert 11 not in victim.host.store.objects


def test_an_exception_that_arrives_is_made_without_its_constructor(victim: Victim) -> None:
    chain = ["subprocess", "CalledProcessError", "Exception", ["touch"], "said", [], None, ""]
    tree, _ = tree_of(Put(11, "x"))
    tree[1][1][2] = ["exception", *chain]
    victim.meets(frame(tree))


@IN_ONE_PROCESS
def test_other_workers_of_the_process_do_not_notice(make_process_worker: MakeWorker) -> None:
    bob, alice = make_process_worker("bob"), make_process_worker("alice")
    assert isinstance(bob, ProcessWorker)
    data, channel = alice.send([1, 2]), bob._connection._channel
    assert bob.run(count, [1]) == 1
    channel.connection.sendall(frame([[], ["tuple", ["os:system"]]]))
    outcome = channel.receive().decode(Surroundings())
    assert "reading a message" in str(outcome.error)
    assert bob.run(count, [1]) == 1
    channel.connection.sendall(b"garbage that is no header of a message")
    with pytest.raises(WorkerLost):
        bob.run(count, [1])
    assert alice.run(count, data) == 2


def test_nothing_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def banned(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing is pickled")

    for module, name in [
        (pickle, "dumps"),
        (pickle, "loads"),
        (pickle, "Pickler"),
        (pickle, "Unpickler"),
        (torch, "save"),
        (torch, "load"),
    ]:
        monkeypatch.setattr(module, name, banned)
    for message in MESSAGES:
        if not isinstance(message, (Backward, Run)):
            assert isinstance(Victim().meets(packed(Request(message))), Answered), message


def test_no_part_of_it_imports_a_serializer_of_code_or_evaluates_text() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg", "multiprocessing"}
    for path in OWN_CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not banned & {alias.name.partition(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in banned, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "torch.load", "torch.save", "__import__"), (
                    path
                )
