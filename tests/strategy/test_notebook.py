from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from fedlightning.data import Dirichlet, Partition
from fedlightning.strategy import FederatedStrategy, History, RoundRecord
from tests.strategy.toys import fit


def texts(html: str) -> list[str]:
    """Return the texts of a piece of HTML, which must be well formed."""
    return [text for text in ElementTree.fromstring(f"<div>{html}</div>").itertext() if text]


def test_a_strategy_is_written_as_the_call_that_makes_it() -> None:
    strategy = FederatedStrategy(4, Dirichlet(alpha=0.3), local_steps=2)
    assert repr(strategy).startswith("FederatedStrategy(workers=4, partition=Dirichlet(")
    assert "update='averaged', local_steps=2" in repr(strategy)
    assert "cohort_size" not in repr(strategy)


def test_a_notebook_shows_settings_workers_and_rounds() -> None:
    strategy = FederatedStrategy(3)
    assert texts(strategy._repr_html_()) == [repr(strategy)]
    fit(strategy, max_epochs=1)
    shown = texts(strategy._repr_html_())
    assert "3 workers, 30 samples " in shown
    assert "███" in shown
    assert repr(strategy.history) in shown
    assert "train/loss" in shown


def test_a_notebook_shows_the_last_rounds_of_a_history() -> None:
    history = History()
    for number in range(15):
        history.add_round(RoundRecord(number, ("<bob>",), 1, None, {"<b>": 0.5}, 1000, 0), [])
    shown = texts(history._repr_html_())
    assert repr(history) in shown
    assert shown.count("0.5") == 10
    assert "<b>" in shown
    assert "1 kB" in shown
    assert texts(History()._repr_html_())[0] == "History(no round yet)"


def test_a_partition_says_its_sizes() -> None:
    partition = Partition(tuple(np.arange(size) for size in (30, 10)), worker_names=("bob", "<alice>"))
    assert repr(partition) == "Partition(2 workers, 10 to 30 of 40 samples each)"
    shown = texts(partition._repr_html_())
    assert shown[1:] == ["worker", "samples", "share", "bob", "30", "75.0%", "<alice>", "10", "25.0%"]
    many = Partition(tuple(np.arange(1) for _ in range(25)))
    assert texts(many._repr_html_())[-1] == "... and 5 more"
