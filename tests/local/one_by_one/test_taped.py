"""Steps of one worker at a time by tapes have the bits of the ordinary ones, or are not taken so."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, RMSprop
from typing_extensions import override

from fedlightning import FederatedStrategy
from fedlightning.callbacks import FederatedCallback
from fedlightning.local.one_by_one import step_tapes
from fedlightning.local.one_by_one.recording import StepRecorder
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.one_by_one.taped import StepsByTape
from fedlightning.local.tapes.readings import Readings
from fedlightning.local.tapes.recorder import Recorder
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


def both(make_module: Any, callbacks: Any = (), **settings: Any) -> tuple[list[Any], int]:
    """Fit without tapes and with them, and count the steps that these take."""
    fits = []
    for taped in (False, True):
        with counted_plays() as plays, pytest.MonkeyPatch.context() as patched:
            if not taped:
                patched.setattr(StepTapes, "begin_round", lambda *args: False)
            memo = Memo()
            strategy = FederatedStrategy(**{"workers": 6, "seed": 0, **settings})
            module, _ = fit(
                strategy,
                module=make_module,
                train=loader(70),
                logger=memo,
                max_epochs=2,
                callbacks=[*callbacks],
            )
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


class Toggling(Plain):
    """Changes the mode of a part in each step, by a method of torch's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.drop = nn.Dropout()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.drop.train(not self.drop.training)
        return super().training_step([self.drop(batch[0]), batch[1]], batch_idx)


class Counting(Plain):
    """Counts small batches, by which the loss of all others is scaled."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.factor = 1.0

    def count(self) -> None:
        self.factor += 0.5

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if len(batch[0]) < 4:
            self.count()
        return super().training_step(batch, batch_idx) * self.factor


class Failing(Plain):
    """Skips batches that raise, and counts them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failed = 0
        self.register_buffer("seen", torch.zeros(()))

    def count(self) -> None:
        self.failed += 1

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        try:
            self.seen.add_(1)
            rows = batch[0].gather(0, batch[0].mul(1.3).long().clamp_min(0))
        except RuntimeError:
            self.count()
            return None
        return super().training_step([rows, batch[1]], batch_idx)


class Weighing(Plain):
    """Logs with weights that depend on the batch."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("weighed", loss, batch_size=(batch[0][:, 0] > 0).sum() + 1)
        return loss


class Asking(Plain):
    """Takes gradients by its batches, which require them from then on."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        batch[0].requires_grad_()
        return super().training_step(batch, batch_idx)


class Replacing(Plain):
    """Puts something else into its batch, and takes something out of it."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        batch[0] = batch[0] * 1.5 + 0.1
        batch.append(batch.pop().clone())
        batch.append(batch[0] * 2)
        return super().training_step(batch[:2], batch_idx) * len(batch)


class ReplacingAndAsking(Replacing):
    """Then asks for a value, so that it cannot be recorded."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if batch[0].sum() > 0 else loss


class AskingOnce(Plain):
    """Takes gradients by its batches, and asks whether they require them already; then for a value."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if batch[0].requires_grad:
            batch = [batch[0] * 2, batch[1]]
        batch[0].requires_grad_()
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss > 1 else loss


class Teaching(Plain):
    """Sets a mode and freezes a part for a while, and asks for a value then, so that it is stopped there."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.drop = nn.Dropout()

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        own = super().training_step([self.drop(x), y], batch_idx)
        self.drop.eval()
        self.net[0].requires_grad_(False)
        target = super().training_step([self.drop(x), y], batch_idx)
        sign = -1 if target > 1 else 1
        self.net[0].requires_grad_(True)
        self.drop.train()
        return own + sign * target


class Placed(Plain):
    """Asks where its batches lie, which lie elsewhere when they are played."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + batch[0].storage_offset())


HOSTILE = [
    *((Toggling, False), (Counting, True), (Failing, False), (Weighing, False), (Asking, True)),
    *(
        (Replacing, True),
        (ReplacingAndAsking, False),
        (AskingOnce, False),
        (Teaching, False),
        (Placed, False),
    ),
]


@pytest.mark.parametrize(("kind", "is_played"), HOSTILE)
def test_whatever_a_step_does_in_python_comes_to_the_same(kind: Any, is_played: bool) -> None:
    fits, plays = both(lambda: kind(partial(SGD, lr=0.1)))
    assert_same(fits)
    assert bool(plays) == is_played
    (module, _), (other, _) = fits
    numbers = (int, float, bool)
    ours, theirs = (
        {name: value for name, value in vars(each).items() if type(value) in numbers}
        for each in (module, other)
    )
    assert ours == theirs


class Telling(Plain):
    """Tells others of some of its batches, which is not looked through where it is not done."""

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch[0].sum() > 2:
            self.tell(len(batch[0]))
        return loss

    def tell(self, size: int) -> None:
        TOLD.append(size)


TOLD: list[int] = []


def test_what_depends_on_values_is_done_once_in_a_step_that_is_stopped() -> None:
    TOLD.clear()
    with counted_steps() as steps:
        fits, _ = both(lambda: Telling(partial(SGD, lr=0.1)))
    assert_same(fits)
    assert steps.count("record") == 1
    half = len(TOLD) // 2
    assert TOLD[:half] == TOLD[half:]


class Between(FederatedCallback):
    """Does something to the module before each round."""

    def __init__(self, change: Callable[[Any, int], object]) -> None:
        self.change = change

    @override
    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.change(pl_module, trainer.global_step)


def set_rate(module: Any, round: int) -> None:
    module.trainer.optimizers[0].param_groups[0]["lr"] = 0.1 / (1 + round)


def add_to_mask(module: Any, round: int) -> None:
    module.mask.add_(round)


def exchange_mask(module: Any, round: int) -> None:
    module.mask = module.mask + round


def freeze(module: Any, round: int) -> None:
    module.net[0].weight.requires_grad_(round % 2 == 0)


def exchange_memory(module: Any, round: int) -> None:
    module.net[0].weight.data = module.net[0].weight.data.clone()


def add_hook(module: Any, round: int) -> None:
    if round == 1:
        module.net[0].weight.register_hook(torch.neg)


class Masked(Plain):
    """Has a buffer that its steps only read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]))

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        # Other than that of `Plain`, it does not look at the number of the batch.
        loss = F.cross_entropy(self.net(batch[0].mul(self.mask).double()), batch[1])
        self.log("train/loss", loss)
        return loss


@contextmanager
def noted_tapes() -> Iterator[list[tuple[Any, Any]]]:
    """Collect what is kept of recordings: first that there is none yet, then what has come of each."""
    kept: list[tuple[Any, Any]] = []
    keep = StepTapes.keep

    def noted(self: StepTapes, key: Any, taped: Any) -> None:
        kept.append((key, taped))
        keep(self, key, taped)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StepTapes, "keep", noted)
        yield kept


@pytest.mark.parametrize(
    ("change", "recordings"),
    [(set_rate, 3), (add_to_mask, 3), (exchange_mask, 6), (freeze, 6), (exchange_memory, 6), (add_hook, 3)],
)
def test_changes_between_rounds_are_seen_and_no_more_is_recorded_than_need_be(
    change: Any, recordings: int
) -> None:
    # Batches are of three sizes, each of which comes four times in a round, or more often.
    settings = {"workers": 4, "local_epochs": 2, "callbacks": [Between(change)]}
    with noted_tapes() as kept:
        fits, _ = both(lambda: Masked(partial(SGD, lr=0.1)), **settings)
    assert_same(fits)
    assert len([taped for _, taped in kept if taped is not None]) == recordings


@pytest.mark.parametrize("change", [set_rate, add_to_mask, exchange_mask, freeze, add_hook])
def test_sizes_that_come_seldom_are_recorded_once_a_round_has_brought_no_other(change: Any) -> None:
    with noted_tapes() as kept:
        fits, _ = both(lambda: Masked(partial(SGD, lr=0.1)), callbacks=[Between(change)], workers=4)
    assert_same(fits)
    if change in (set_rate, add_to_mask):
        # Those of two and of one sample come twice in each round, and one of them was watched in the first.
        assert len([taped for _, taped in kept if taped is not None]) == 3


@contextmanager
def counted_steps() -> Iterator[list[str]]:
    """Count what is computed in the ordinary way while tapes are made, and what is played."""
    steps: list[str] = []

    def count(kind: Any, name: str) -> Any:
        method = getattr(kind, name)

        def counted(self: Any, *args: Any, **settings: Any) -> Any:
            steps.append(name)
            return method(self, *args, **settings)

        return counted

    with pytest.MonkeyPatch.context() as patched:
        for kind, name in (
            (Tape, "play"),
            (StepsByTape, "take"),
            (StepsByTape, "_take_as_ever"),
            (StepRecorder, "watch"),
            (StepRecorder, "record"),
        ):
            patched.setattr(kind, name, count(kind, name))
        yield steps


def test_nothing_is_computed_for_a_tape_but_one_play() -> None:
    with noted_tapes() as kept, counted_steps() as steps:
        both(lambda: Masked(partial(SGD, lr=0.1)), workers=4, local_epochs=2)
    tapes = len([taped for _, taped in kept if taped is not None])
    assert tapes == 3
    computed = len([name for name in steps if name != "take"])
    assert computed == steps.count("take") + tapes


class Writing(Plain):
    """Writes to its parameters, and draws random numbers, before it goes on; asks for a value, if wanted."""

    def __init__(self, make: Any, asks: bool) -> None:
        super().__init__(make)
        self.asks = asks

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.net[0].weight.detach().mul_(0.9)
        noisy = [F.dropout(batch[0], 0.3), batch[1]]
        if self.asks and noisy[0].sum() > 0:
            noisy = [-noisy[0], batch[1]]
        return super().training_step(noisy, batch_idx)


@pytest.mark.parametrize("local_epochs", [1, 3])
@pytest.mark.parametrize("asks", [False, True])
def test_a_recording_that_is_stopped_has_changed_nothing(asks: bool, local_epochs: int) -> None:
    fits, plays = both(lambda: Writing(partial(SGD, lr=0.01), asks), local_epochs=local_epochs)
    assert_same(fits)
    assert (plays > 0) != asks


def test_what_does_not_come_to_the_bits_of_the_step_that_was_watched_is_not_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = Tape.play

    def rounds(self: Tape) -> None:
        play(self)
        with torch.no_grad():
            self.outputs[-1].mul_(1 + 1e-15)

    with noted_tapes() as kept, monkeypatch.context() as patched:
        patched.setattr(Tape, "play", rounds)
        fits, plays = both(lambda: Masked(partial(SGD, lr=0.1)), workers=4, local_epochs=2)
    assert plays == 1
    assert_same(fits)
    assert all(taped is None for _, taped in kept)


def test_a_step_that_is_too_large_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_tapes, "MOST_BYTES", 700)
    with noted_tapes() as kept:
        fits, plays = both(lambda: Masked(partial(SGD, lr=0.1)))
    assert_same(fits)
    assert plays == 0
    assert len({key for key, _ in kept}) == 1


def test_gradients_that_are_too_large_are_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_tapes, "MOST_BYTES", 100)
    with noted_tapes() as kept:
        both(lambda: Masked(partial(SGD, lr=0.1)))
    assert not kept


def test_all_tapes_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    plays = []
    for most in (4000, 1 << 20):
        monkeypatch.setattr(step_tapes, "MOST_BYTES", most)
        fits, count = both(lambda: Masked(partial(SGD, lr=0.1)))
        assert_same(fits)
        plays.append(count)
    assert 0 < plays[0] < plays[1]


def test_nothing_of_a_recording_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    recorders: list[Any] = []
    made = Recorder.__init__

    def noted(self: Recorder, *args: Any, **settings: Any) -> None:
        made(self, *args, **settings)
        recorders.append(ref(self))

    monkeypatch.setattr(Recorder, "__init__", noted)
    _, plays = both(lambda: Masked(partial(SGD, lr=0.1)))
    assert plays
    gc.collect()
    assert recorders
    assert not [one for one in recorders if one() is not None]


def test_a_copy_of_tapes_begins_anew() -> None:
    tapes = StepTapes()
    tapes.keep("key", None)
    for other in (deepcopy(tapes), pickle.loads(pickle.dumps(tapes))):
        assert other.is_empty
        assert not tapes.is_empty


def test_what_was_compared_ahead_of_a_round_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []
    are_the_same, begin_round = Readings.are_the_same, StepTapes.begin_round
    rounds: list[int] = []

    def noted(self: Readings) -> bool:
        compared.append(are_the_same(self))
        return compared[-1]

    def foretold(self: StepTapes, *args: Any) -> Any:
        self.look_ahead()
        if len(rounds) == 2:
            self.look_no_more()
        before = len(compared)
        found = begin_round(self, *args)
        rounds.append(len(compared) - before)
        return found

    monkeypatch.setattr(Readings, "are_the_same", noted)
    monkeypatch.setattr(StepTapes, "begin_round", foretold)
    fits, _ = both(lambda: Masked(partial(SGD, lr=0.1)), workers=4, local_epochs=2, rounds_per_epoch=3)
    assert_same(fits)
    assert len(rounds) == 6
    assert rounds[1:] == [0, 1, *[0] * (len(rounds) - 3)]
