"""The module and data for data sets of tensors are what plain Lightning expects."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import TensorDataset

from fedlightning.data.datasets import load_fcube
from fedlightning.examples import TensorClassifier, TensorsDataModule


def test_the_held_out_set_is_halved_once() -> None:
    calls = []

    def load() -> tuple[TensorDataset, TensorDataset]:
        calls.append(1)
        return TensorDataset(torch.arange(4)), TensorDataset(torch.arange(10))

    data = TensorsDataModule(load)
    data.setup("fit")
    data.setup("test")
    halves = [sorted(int(x) for (x,) in part) for part in (data.val_set, data.test_set)]
    assert (len(calls), [len(half) for half in halves]) == (1, [5, 5])
    assert sorted(halves[0] + halves[1]) == list(range(10))


def test_plain_lightning_learns_the_side_of_a_cube() -> None:
    L.seed_everything(0, verbose=False)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    trainer.fit(TensorClassifier("linear", 3, 2), datamodule=TensorsDataModule(lambda: load_fcube(1000)))
    assert trainer.callback_metrics["val/acc"] > 0.9


def test_what_pads_a_text_does_not_count() -> None:
    module = TensorClassifier("lstm", inputs=5, classes=5, width=4)
    text, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, -100]])
    expected = torch.nn.functional.cross_entropy(module(text)[:, :, :2], targets[:, :2])
    logits = module(text)
    assert torch.equal(module.loss(logits, targets), expected)
    module.val_acc(logits, targets)
    assert module.val_acc.compute() == (logits.argmax(1)[:, :2] == targets[:, :2]).float().mean()


def test_images_have_a_score_per_class() -> None:
    assert TensorClassifier("cnn", inputs=28, classes=10, width=2)(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of linear, cnn, lstm; got 'rnn'"):
        TensorClassifier("rnn", 3, 2)  # type: ignore[arg-type]  # the mistake that is tested
