"""Steps of one worker at a time by tapes have the bits of the ordinary ones, or are not taken so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, RMSprop
from typing_extensions import override

from fedlightning import FederatedStrategy
from fedlightning.local.one_by_one.taped import StepTapes
from fedlightning.local.tapes.tape import Tape
from tests.strategy.test_together import Plain
from tests.strategy.toys import Memo, assert_same_module, fit, loader


@contextmanager
def counted_plays() -> Iterator[list[int]]:
    """Count the steps that tapes take, those included by which they are proven."""
    plays: list[int] = []
    play = Tape.play

    def counted(self: Tape) -> None:
        plays.append(len(self))
        play(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Tape, "play", counted)
        yield plays


def both(make_module: Any, **settings: Any) -> tuple[list[Any], int]:
    """Fit without tapes and with them, and count the steps that these take."""
    fits = []
    for taped in (False, True):
        with counted_plays() as plays, pytest.MonkeyPatch.context() as patched:
            if not taped:
                patched.setattr(StepTapes, "of_round", lambda *args: None)
            memo = Memo()
            strategy = FederatedStrategy(workers=6, seed=0, **settings)
            module, _ = fit(strategy, module=make_module, train=loader(70), logger=memo, max_epochs=2)
        fits.append((module, memo.entries))
    return fits, len(plays)


def assert_same(fits: list[Any]) -> None:
    (module, entries), (other, other_entries) = fits
    assert_same_module(module, other)
    assert entries == other_entries


class Deep(Plain):
    """Has what tapes treat in ways of their own: masks that are drawn, convolutions, and embeddings."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        torch.manual_seed(2)
        self.extra = nn.Sequential(
            nn.Unflatten(1, (1, 4)),
            nn.Conv1d(1, 40, 3, padding=1),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(160, 3),
        )
        self.table = nn.Embedding(3, 3)

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.extra(x) + self.table(y), y)
        self.log("train/before", loss, on_epoch=True)
        return loss + super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "make",
    [
        partial(SGD, lr=0.1),
        partial(SGD, lr=0.1, momentum=0.9),
        partial(Adam, lr=0.01),
        partial(RMSprop, lr=0.01),
    ],
    ids=["sgd", "momentum", "adam", "rmsprop"],
)
@pytest.mark.parametrize("kind", [Plain, Deep])
def test_bits_are_those_of_the_ordinary_steps(kind: Any, make: Any) -> None:
    fits, plays = both(lambda: kind(make))
    assert plays > 20
    assert_same(fits)
