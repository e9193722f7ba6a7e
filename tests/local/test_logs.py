"""What ``self.log`` records at a worker, and how it is combined."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.data import extract_batch_size
from torchmetrics import MeanMetric

from fedlightning.local.logs import combine_logs, recorded_logs


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.metric = MeanMetric()


def record(*steps: list[tuple[str, Any, dict[str, Any]]], batch: Any = None) -> Any:
    module = Module()
    with recorded_logs(module) as recorder:
        for calls in steps:
            recorder.start_step(torch.zeros(4, 2) if batch is None else batch)
            for name, value, settings in calls:
                module.log(name, value, **settings)
    assert "log" not in vars(module)
    return recorder.values


class Prefixes(Module):
    def log(self, name: str, value: Any, **settings: Any) -> None:
        super().log(f"own/{name}", value, **settings)


def test_a_module_that_overrides_log_has_its_own_called_first() -> None:
    base, module, other = L.LightningModule.log, Prefixes(), Module()
    with recorded_logs(module) as recorder:
        recorder.start_step(torch.zeros(4, 2))
        module.log("x", 1.0)
        module.log_dict({"y": 2.0})
        other.log("z", 3.0)  # without a Trainer, Lightning leaves it at that
    assert [logged.name for logged in recorder.values] == ["own/x", "own/y"]
    assert L.LightningModule.log is base


def test_a_log_on_the_instance_is_called_and_stays() -> None:
    module = Module()
    own = module.__dict__["log"] = lambda name, value: L.LightningModule.log(module, name.upper(), value)
    with recorded_logs(module) as recorder:
        module.log("x", 1.0)
    assert [logged.name for logged in recorder.values] == ["X"]
    assert module.__dict__["log"] is own


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("mean", 2.5), ("avg", 2.5), ("sum", 4.0), ("max", 3.0), ("min", 1.0), (torch.sum, 4.0), (max, 3.0)],
)
def test_steps_are_combined_by_their_reduction(reduction: Any, expected: float) -> None:
    first = [("x", 1.0, {"reduce_fx": reduction, "batch_size": 1})]
    second = [("x", torch.tensor(3.0), {"reduce_fx": reduction, "batch_size": 3})]
    (logged,) = record(first, second)
    assert logged.value.item() == expected
    assert logged.weight == 4


def test_flags_and_counts_are_combined_as_numbers() -> None:
    first = [("flag", torch.tensor(True), {}), ("count", torch.tensor(3), {"reduce_fx": "sum"})]
    second = [("flag", torch.tensor(False), {}), ("count", torch.tensor(4), {"reduce_fx": "sum"})]
    flag, count = record(first, second)
    assert flag.value.item() == 0.5
    assert count.value.item() == 7.0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_half_precision_is_combined_exactly_over_many_steps(reduction: str) -> None:
    settings = {"reduce_fx": reduction, "batch_size": 1}
    value = torch.tensor(1.0078125, dtype=torch.bfloat16)  # the number next to 1
    (logged,) = record(*[[("x", value, settings)]] * 256, [("x", value + 1, settings)])
    total = 256 * 1.0078125 + 2.0
    assert logged.value.item() == pytest.approx(total if reduction == "sum" else total / 257, rel=1e-6)


def test_a_value_that_was_logged_once_keeps_its_bits() -> None:
    value = torch.tensor(0.1, dtype=torch.float64)
    (logged,) = record([("x", value, {})])
    assert logged.value.dtype == torch.float64
    assert torch.equal(logged.value, value)
    assert logged.weight == 4
    assert logged.settings == {"prog_bar": False, "logger": None, "on_step": None, "on_epoch": None}


def test_workers_are_combined_by_samples() -> None:
    reports = [
        record([("x", 1.0, {"batch_size": 1}), ("y", 7.0, {})]),
        record([("x", 4.0, {"batch_size": 2})]),
    ]
    combined = {logged.name: logged.value.item() for logged in combine_logs(reports)}
    assert combined == {"x": 3.0, "y": 7.0}


def test_a_value_that_changes_later_is_logged_as_it_was() -> None:
    module, value = Module(), torch.tensor(1.0)
    with recorded_logs(module) as recorder:
        module.log("x", value, batch_size=1)
        value.add_(1)
    assert recorder.values[0].value.item() == 1.0


def test_a_metric_is_logged_by_its_path() -> None:
    module = Module()
    with recorded_logs(module) as recorder:
        module.log("mean", module.metric, on_epoch=True)
        with pytest.raises(ValueError, match="no attribute of the module"):
            module.log("other", MeanMetric())
    assert recorder.values[0].metric == "metric"


def test_log_dict_is_recorded_too() -> None:
    module = Module()
    with recorded_logs(module) as recorder:
        recorder.start_step(torch.zeros(4))
        module.log_dict({"a": 1.0, "b": 2.0})
    assert [logged.name for logged in recorder.values] == ["a", "b"]


def test_log_is_restored_when_the_step_raises() -> None:
    module = Module()
    with pytest.raises(RuntimeError, match="broken"), recorded_logs(module):
        raise RuntimeError("broken")
    assert "log" not in vars(module)


def test_what_cannot_be_logged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tensor of shape \(2,\)"):
        record([("x", torch.zeros(2), {})])
    with pytest.raises(ValueError, match="cannot be combined over workers"):
        record([("x", 1.0, {"reduce_fx": torch.prod})])


def test_a_batch_size_is_asked_for_only_where_it_matters() -> None:
    (logged,) = record([("x", 1.0, {})], batch=object())
    assert logged.weight == 1
    with pytest.raises(MisconfigurationException, match="batch_size"):
        record([("x", 1.0, {"on_epoch": True})], batch=object())


def test_a_batch_size_is_the_one_that_lightning_finds() -> None:
    x, y = torch.zeros(3, 2), torch.zeros(3)
    batches: list[Any] = [[x, y], (x, y), {"x": x}, [x, {"y": y}], [x, torch.tensor(1.0)], x]
    for batch in batches:
        (logged,) = record([("x", 1.0, {})], batch=batch)
        assert logged.weight == extract_batch_size(batch)


def test_the_last_settings_of_a_name_count() -> None:
    (logged,) = record(
        [("x", 1.0, {})], [("x", 3.0, {"prog_bar": True, "reduce_fx": "max", "rank_zero_only": True})]
    )
    assert logged.value.item() == 3.0
    assert logged.settings["prog_bar"] is True
    assert logged.settings["rank_zero_only"] is True
