"""Modules and data that use one feature of Lightning each, for the rows of the matrix."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tests.strategy.test_optimization import Manual
from tests.strategy.toys import Classifier, loader, samples


def held_out() -> DataLoader[Any]:
    return loader(12, shuffle=False)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(list(samples(26)))


class OwnClipping(Classifier):
    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="value")


class OwnStep(Classifier):
    """Warms up by hand, and steps along every second batch only."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        if batch_idx % 2:
            optimizer_closure()
            return
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] *= 1.1


class OwnLog(Classifier):
    def log(self, *args: Any, **kwargs: Any) -> None:
        super().log(*args, **kwargs)


class Sometimes(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx % 3 == 1 else loss


class AsDict(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx)}


class TwoSources(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        parts = (part for part in batch.values() if part is not None)
        return torch.stack([nn.functional.cross_entropy(self.net(x), y) for x, y in parts]).sum()


class Iterates(Classifier):
    def training_step(self, dataloader_iter: Any) -> None:
        return None


class Toggles(Manual):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        x, y = batch
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(self.net(x), y))
            optimizer.step()
            self.untoggle_optimizer(optimizer)


class WarmsUp(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer, schedules = torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.lr_scheduler
        warm_up, decay = schedules.LinearLR(optimizer, 0.1, 1.0, 1), schedules.ExponentialLR(optimizer, 0.9)
        return [optimizer], [schedules.SequentialLR(optimizer, [warm_up, decay], [1])]


class Findable(Classifier):
    """Has a learning rate and a batch size that can be found."""

    def __init__(self) -> None:
        super().__init__(schedule=False)
        self.lr, self.batch_size = 0.01, 4

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> Any:
        return loader(batch_size=self.batch_size)

    def val_dataloader(self) -> Any:
        return loader(12, batch_size=self.batch_size, shuffle=False)


class Evaluates(Classifier):
    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0])


class Quiet(Classifier):
    """Logs nothing: Lightning's own ``log`` cannot be traced by the compiler of torch 2.13."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        return None


class Data(L.LightningDataModule):
    """Has every hook of a DataModule that a batch passes on its way."""

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self, stage: str) -> None:
        assert self.prepared
        self.scale = 2.0

    def train_dataloader(self) -> Any:
        return loader()

    def val_dataloader(self) -> Any:
        return held_out()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * self.scale, batch[1]]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] + 1.0, batch[1]]

    def teardown(self, stage: str) -> None:
        del self.scale


class Writer(BasePredictionWriter):
    def __init__(self) -> None:
        super().__init__("batch_and_epoch")
        self.written: list[int] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Tensor, *where: Any) -> None:
        self.written.append(len(prediction))

    def write_on_epoch_end(self, trainer: Any, pl_module: Any, predictions: Any, *where: Any) -> None:
        assert self.written == [len(prediction) for prediction in predictions] == [4, 4, 4]


class ConfiguresLate(Classifier):
    def configure_model(self) -> None:
        self.net[4] = nn.Linear(8, 3)


class Backbone(Classifier):
    @property
    def backbone(self) -> nn.Module:
        return self.net[0]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net[2:].parameters(), lr=0.1)


class FromCommandLine(Classifier):
    def __init__(self) -> None:
        super().__init__(schedule=False)


def lbfgs() -> Classifier:
    return Classifier(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2), schedule=False)
