"""The hook adds methods when it is made, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fedlightning.workers import TorchHook, VirtualWorker, local_worker


def test_importing_workers_patches_nothing() -> None:
    code = (
        "import torch; before = (set(dir(torch.Tensor)), set(dir(torch.nn.Module)));"
        "import fedlightning.workers;"
        "assert before == (set(dir(torch.Tensor)), set(dir(torch.nn.Module)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_hook_changes_nothing() -> None:
    TorchHook(torch)
    methods = (torch.Tensor.send, torch.nn.Module.send, torch.autograd.Function.apply)
    hook = TorchHook(torch)
    assert methods == (torch.Tensor.send, torch.nn.Module.send, torch.autograd.Function.apply)
    assert hook.local_worker is local_worker
    assert repr(local_worker) == "<VirtualWorker id:me #objects:0>"


def test_the_hook_knows_living_workers_by_name() -> None:
    hook = TorchHook(torch)
    bob = VirtualWorker(hook, id="bob")
    assert hook.workers["bob"] is bob
    del bob
    assert "bob" not in hook.workers


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="torch module"):
        TorchHook(subprocess)
    for mine in (torch.ones(1), torch.nn.Linear(1, 1)):
        with pytest.raises(TypeError, match="'bob' is no worker: give the worker itself"):
            mine.send("bob")
    with pytest.raises(ValueError, match="'me' is the local worker"):
        VirtualWorker(TorchHook(torch), id="me")
