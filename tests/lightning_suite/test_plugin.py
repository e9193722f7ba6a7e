"""The harness around Lightning's own tests: ours takes the default's place, and differences are told."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from tests.lightning_suite import compare, plugin

TESTS_OF_LIGHTNING = """
import lightning as L
from lightning.pytorch.demos.boring_classes import BoringModel

def test_trains(tmp_path):
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", fast_dev_run=1)
    trainer.fit(BoringModel())

def test_names_the_strategy():
    assert type(L.Trainer(accelerator="cpu", logger=False).strategy).__name__ == "SingleDeviceStrategy"

def test_needs_no_trainer():
    pass
"""


def test_ours_replaces_the_default_and_the_difference_is_told(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS_OF_LIGHTNING)
    for update in (None, "sequential"):
        results = tmp_path / "results" / (update or "default")
        compare.run(tmp_path, ["test_it.py"], results, "it", update, processes=0)
    default, ours = (compare.read(tmp_path / "results" / name) for name in ("default", "sequential"))
    assert [row["outcome"] for row in default.values()] == ["passed"] * 3
    assert [row["federated"] for row in ours.values()] == [True, True, False]
    assert list(compare.only_with_ours(default, ours)) == ["test_it.py::test_names_the_strategy"]
    text = compare.report(default, ours, "sequential")
    assert "2 tests built a Trainer with FederatedStrategy" in text
    assert "assert 'FederatedStrategy' == 'SingleDeviceStrategy'" in text


def test_says_where_to_look_when_lightning_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_AcceleratorConnector, plugin.CHOOSES)
    with pytest.raises(
        pytest.UsageError, match=r"_choose_strategy is gone.*SingleDeviceStrategy is built now"
    ):
        plugin.Federated("averaged")


def test_a_default_that_is_chosen_elsewhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(connector: Any) -> str:
        return "ddp"

    monkeypatch.setattr(_AcceleratorConnector, plugin.CHOOSES, choose)
    with pytest.raises(pytest.UsageError, match="let DDPStrategy through"):
        plugin.Federated("averaged")


def test_a_path_that_is_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(compare.__file__, run_name="__main__")
    assert ended.value.code == 2
    assert "give a checkout of Lightning's repository" in capsys.readouterr().err
