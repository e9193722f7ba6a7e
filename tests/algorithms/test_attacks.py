"""What bad workers do, in numbers, and who they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedlightning.algorithms.attacks import (
    ALIE,
    BackdoorPatch,
    BadWorkers,
    Gaussian,
    InnerProduct,
    LabelFlip,
    Replacement,
    SignFlip,
)


def test_a_share_is_drawn_by_the_seed_alone() -> None:
    names = [f"worker-{number}" for number in range(50)]
    bad = BadWorkers(SignFlip(), share=0.2)
    drawn = bad.among(names, seed=1)
    assert len(drawn) == 10
    assert drawn == bad.among(reversed(names), seed=1) != bad.among(names, seed=2)


def test_alie_hides_as_the_paper_says() -> None:
    """With 50 workers, 24 of them bad, two good ones must be nearer: z is where 24 of 26 lie below."""
    good = torch.randn(26, 3, generator=torch.Generator().manual_seed(0))
    sent = ALIE().agree(good, bad=24)
    z = (good.mean(0) - sent) / good.std(0)
    assert z.tolist() == pytest.approx([1.42607687] * 3, abs=1e-4)


def test_inner_product_goes_against_the_mean() -> None:
    good = torch.tensor([[1.0, 0.0], [3.0, -2.0]])
    assert InnerProduct(epsilon=0.1).agree(good, bad=3).tolist() == pytest.approx([-0.2, 0.1])


def test_a_back_door_is_a_patch_and_a_label() -> None:
    images, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
    attack = BackdoorPatch(target=7, size=2, fraction=0.5)
    stamped, taught = attack.change([images, labels])
    assert taught.tolist() == [7, 7, 2, 3]
    assert stamped[:2, :, -2:, -2:].eq(1).all()
    assert stamped.sum() == 8
    assert images.sum() == 0


NONSENSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: BadWorkers(SignFlip()), "give one of share and names"),
    (lambda: BadWorkers(SignFlip(), share=0.2, names=("bob",)), "give one of share and names"),
    (lambda: BadWorkers(SignFlip(), share=1.0), "share must be at least 0 and below 1"),
    (lambda: BadWorkers("flip", share=0.2), "attack must be one such as SignFlip"),  # type: ignore[arg-type]  # what is tested
    (lambda: BadWorkers(SignFlip(), names=("eve",)).among(["bob"], 0), "names has 'eve'"),
    (lambda: SignFlip(scale=-1), "scale must be at least 0"),
    (lambda: Replacement(scale=-1), "scale must be at least 0"),
    (lambda: Replacement(trained_on=SignFlip()), "trained_on must be an attack on data"),  # type: ignore[arg-type]  # what is tested
    (lambda: Gaussian(std=-1), "std must be at least 0"),
    (lambda: LabelFlip(classes=1), "classes must be at least 2"),
    (lambda: BackdoorPatch(target=0, size=0), "size must be at least 1"),
    (lambda: BackdoorPatch(target=0, fraction=0), "fraction must be above 0"),
    (
        lambda: LabelFlip(classes=2).change(torch.zeros(3)),
        "takes batches of inputs and whole",
    ),
]


@pytest.mark.parametrize(("make", "message"), NONSENSE)
def test_nonsense_is_refused_at_once(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
