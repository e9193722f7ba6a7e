from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from fedlightning.callbacks import RunFingerprint
from fedlightning.callbacks.fingerprints import (
    Difference,
    first_difference,
    read_fingerprints,
    take_fingerprint,
)
from fedlightning.strategy import FederatedStrategy
from tests.callbacks.conftest import Fit, bob_and_alice
from tests.strategy.toys import Classifier, assert_same_module, fit, loader, trainer

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.bool,
    torch.complex64,
]


class Held(nn.Module):
    """A module of given tensors."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def hashed(**tensors: torch.Tensor) -> str:
    return take_fingerprint(Held(**tensors), 0).module


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_shape_are_hashed(dtype: torch.dtype) -> None:
    hashes = [hashed(a=torch.zeros(shape).to(dtype)) for shape in ((), (0,), (2, 3), (3, 2), (6,))]
    assert len(set(hashes)) == len(hashes)


def test_name_dtype_and_every_bit_count() -> None:
    zeros = torch.zeros(2)
    assert hashed(a=zeros) == hashed(a=zeros.clone())
    assert hashed(a=zeros) == hashed(a=torch.zeros(4)[::2]), "only the values, not how they lie in memory"
    others = [hashed(b=zeros), hashed(a=zeros.int()), hashed(a=-zeros), hashed(a=zeros, b=zeros)]
    assert hashed(a=zeros) not in others


@given(
    st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=8),
    st.integers(0, 7),
    st.integers(0, 31),
)
def test_one_flipped_bit_changes_the_hash(values: list[float], position: int, bit: int) -> None:
    tensor = torch.tensor(values)
    before = hashed(a=tensor)
    tensor.view(torch.int32)[position % len(values)] ^= -(2**31) if bit == 31 else 2**bit
    assert hashed(a=tensor) != before


def test_a_line_per_round_and_one_for_the_start(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "run" / "fingerprint.jsonl"
    run = fit(RunFingerprint(path))
    found = read_fingerprints(path)
    assert list(found) == [0, 1, 2, 3, 4]
    assert found[4] == take_fingerprint(run.lightning_module, 4)
    names = {name for name, _ in run.lightning_module.named_parameters()}
    assert names < found[4].tensors.keys()
    assert "net.1.running_mean" in found[4].tensors


@pytest.mark.parametrize("settings", [{"local_steps": 1}, {"local_steps": 2}])
def test_a_run_has_the_same_bits_with_and_without(fit: Fit, tmp_path: Path, settings: dict[str, Any]) -> None:
    plain = fit(strategy=bob_and_alice(**settings))
    written = fit(RunFingerprint(tmp_path / "f.jsonl"), strategy=bob_and_alice(**settings))
    assert_same_module(plain.lightning_module, written.lightning_module)


def test_one_worker_that_is_plain_lightning_has_its_fingerprint(tmp_path: Path) -> None:
    for name, strategy in (
        ("federated", FederatedStrategy(1, update="sequential", local_steps=1)),
        ("central", "auto"),
    ):
        fit(strategy, callbacks=[RunFingerprint(tmp_path / name)])
    assert (tmp_path / "federated").read_text() == (tmp_path / "central").read_text()


@pytest.mark.parametrize("in_place", [True, False], ids=["same folder", "new folder"])
@pytest.mark.parametrize("point", ["step=3", "step=4"], ids=["mid-epoch", "end of epoch"])
def test_a_resumed_run_goes_on(tmp_path: Path, in_place: bool, point: str) -> None:
    def strategy() -> FederatedStrategy:
        return bob_and_alice(rounds_per_epoch=4)

    path = tmp_path / "whole.jsonl"
    saver: Any = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    fit(strategy(), train=loader(10), callbacks=[saver, RunFingerprint(path)], enable_checkpointing=True)
    whole = path.read_text()
    again = path if in_place else tmp_path / "again.jsonl"
    resumed = trainer(strategy(), callbacks=[RunFingerprint(again)])
    resumed.fit(Classifier(), loader(10), loader(12), ckpt_path=str(tmp_path / f"{point}.ckpt"))
    assert whole.endswith(again.read_text())
    assert len(again.read_text().splitlines()) == (9 if in_place else 9 - int(point[-1]))


def test_the_line_that_a_killed_run_left_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    line = take_fingerprint(nn.Linear(1, 1), 0).as_line()
    path.write_text(line + line.replace('"rounds": 0', '"rounds": 1')[:40])
    assert list(read_fingerprints(path)) == [0]


@pytest.mark.parametrize("line", ["no json", "{}", "[]", json.dumps({"rounds": 1})])
def test_what_is_no_fingerprint_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(take_fingerprint(nn.Linear(1, 1), 0).as_line() + line + "\n")
    with pytest.raises(ValueError, match="line 2 is no fingerprint"):
        read_fingerprints(path)


def test_the_first_round_and_its_tensors_are_found() -> None:
    def run(last: float) -> dict[int, Any]:
        return {
            n: take_fingerprint(Held(a=torch.ones(1), b=torch.full((2,), x)), n)
            for n, x in enumerate([0.0, 1.0, last])
        }

    assert first_difference(run(2.0), run(2.0)) is None
    assert first_difference(run(2.0), run(3.0)) == Difference(2, ("b",))
    other = run(3.0)
    other[1] = take_fingerprint(Held(b=torch.ones(2)), 1)
    assert first_difference(run(2.0), other) == Difference(1, ("a",))
