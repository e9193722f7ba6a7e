"""The digits module and data are what plain Lightning expects."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from fedlightning.examples import DigitsClassifier, DigitsDataModule


@pytest.fixture(scope="module")
def digits() -> DigitsDataModule:
    data = DigitsDataModule()
    data.setup("fit")
    return data


def test_every_digit_is_in_one_part(digits: DigitsDataModule) -> None:
    parts = (digits.train_set, digits.val_set, digits.test_set)
    assert [len(part) for part in parts] == [1200, 297, 300]
    images = torch.cat([part.tensors[0] for part in parts]).flatten(1)
    from sklearn.datasets import load_digits

    original = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16
    assert sorted(images.tolist()) == sorted(original.tolist())


def test_a_batch_has_the_documented_shape(digits: DigitsDataModule) -> None:
    images, labels = next(iter(digits.train_dataloader()))
    assert (images.shape, images.dtype) == ((32, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((32,), torch.int64)
    assert 0 <= images.min() <= images.max() <= 1


def test_the_parts_have_the_same_share_of_every_label(digits: DigitsDataModule) -> None:
    shares = [
        part.tensors[1].bincount(minlength=10) / len(part) for part in (digits.train_set, digits.val_set)
    ]
    torch.testing.assert_close(shares[0], shares[1], atol=0.005, rtol=0)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_plain_lightning_learns_digits(network: str, digits: DigitsDataModule) -> None:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(DigitsClassifier(network), datamodule=digits)
    assert trainer.callback_metrics["val/acc"] > 0.8


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of mlp, cnn; got 'rnn'"):
        DigitsClassifier("rnn")  # type: ignore[arg-type]  # the mistake that is tested
