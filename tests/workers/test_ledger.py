"""Every byte that passes a worker's door is entered, with the rule by which it passed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedlightning.workers import (
    Decision,
    Egress,
    KeepData,
    Ledger,
    RefusedByPolicy,
    VirtualWorker,
    in_round,
    payload_bytes,
)
from fedlightning.workers.ledger import ITEMS_PER_ROUND, OTHERS


def test_traffic_is_entered_with_round_and_rule() -> None:
    worker = VirtualWorker(id="bob", policy=KeepData())
    scans = worker.register(torch.ones(100), description="scans")
    with in_round(2):
        worker.get(worker.send(nn.Linear(3, 2)))
        with pytest.raises(RefusedByPolicy):
            scans.get()
    assert worker.ledger.received_bytes == worker.ledger.sent_bytes == 8 * 4
    table = [line.split(maxsplit=7) for line in str(worker.ledger).splitlines()]
    assert table[1:] == [
        ["received", "received", "Linear", "bob", "2", "1", "32"],
        ["sent", "module", "Linear", "controller", "2", "1", "32", "module may leave"],
        ["refused", "data", "scans", "controller", "2", "1", "400", "private data stays at its worker"],
    ]


def test_alike_entries_are_summed() -> None:
    worker = VirtualWorker(id="bob")
    for _ in range(50):
        worker.send(torch.ones(2)).get()
    assert sorted(worker.ledger.entries.values()) == [(50, 400), (50, 400)]


MOVES = st.tuples(
    st.sampled_from(["sent", "refused", "received", "withheld"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 1000),
    st.sampled_from([None, 0, 1]),
)


@given(st.lists(MOVES))
def test_totals_are_the_sums_of_the_entries(moves: list[tuple[str, str, int, int | None]]) -> None:
    ledger = Ledger()
    for direction, item, nbytes, round in moves:
        if direction == "received":
            ledger.receive(item, nbytes, round, "bob")
        elif direction == "withheld":
            ledger.withhold(item, round)
        else:
            egress = Egress("data", "bob", 1, item, nbytes, "Tensor", (), round)
            ledger.record(egress, Decision(direction == "sent", "a rule"))

    def total(direction: str, rounds: Any = (None, 0, 1)) -> int:
        return sum(
            nbytes
            for entry, (_, nbytes) in ledger.entries.items()
            if entry.direction == direction and entry.round in rounds
        )

    assert (ledger.sent_bytes, ledger.received_bytes) == (total("sent"), total("received"))
    for round in (None, 0, 1):
        assert ledger.of_round(round) == (total("sent", [round]), total("received", [round]))
    assert sum(times for times, _ in ledger.entries.values()) == len(moves)
    assert len(ledger.rows()) == len(ledger.entries)


@given(st.lists(MOVES), st.lists(MOVES))
def test_an_account_that_was_sent_goes_on(before: list[Any], after: list[Any]) -> None:
    sent, whole = Ledger(), Ledger()
    for direction, item, nbytes, round in before:
        for ledger in (sent, whole):
            ledger.send(direction, item, nbytes, round, "a rule", "controller")
    sent = Ledger.from_columns(*sent.columns())
    for _, item, nbytes, round in after:
        for ledger in (sent, whole):
            ledger.receive(item, nbytes, round, "bob")
    assert sent.rows() == whole.rows()
    assert (sent.sent_bytes, sent.received_bytes) == (whole.sent_bytes, whole.received_bytes)


def test_numbers_that_are_no_account_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Ledger.from_columns([0, 3, 1, 8], [("sent", "data", "x", "controller", "a rule")])


def test_items_named_by_messages_do_not_fill_the_memory() -> None:
    ledger = Ledger()
    for number in range(3 * ITEMS_PER_ROUND):
        ledger.receive(f"item {number}", 2, None)
    assert len(ledger.entries) == ITEMS_PER_ROUND + 1
    assert ledger.received_bytes == 6 * ITEMS_PER_ROUND
    assert list(ledger.entries.items())[-1][1] == (2 * ITEMS_PER_ROUND, 4 * ITEMS_PER_ROUND)
    assert list(ledger.entries)[-1].item == OTHERS


def test_no_name_forges_a_line_or_a_tag() -> None:
    worker = VirtualWorker(id="bob")
    worker.send([1], description="scans\nsent data <b>all</b> \x1b[2J" + "x" * 99)
    assert len(str(worker.ledger).splitlines()) == 2
    assert "\x1b" not in str(worker.ledger)
    html = worker.ledger._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert html.startswith("<table>")


def test_the_account_can_be_written_to_a_file(tmp_path: Path) -> None:
    worker = VirtualWorker(id="bob")
    worker.send([1.0], description="weights, and biases").get()
    worker.ledger.to_csv(tmp_path / "bob.csv")
    with open(tmp_path / "bob.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows] == ["weights, and biases"] * 2
    assert [(row["direction"], row["bytes"], row["round"]) for row in rows] == [
        ("received", "8", ""),
        ("sent", "8", ""),
    ]


def test_an_empty_account_is_its_head() -> None:
    assert str(Ledger()).split() == ["direction", "kind", "item", "to", "round", "times", "bytes", "rule"]


def test_payloads_are_counted_as_they_would_be_sent() -> None:
    module = nn.BatchNorm1d(3)
    assert payload_bytes(module) == 4 * 3 * 4 + 8
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    assert payload_bytes(optimizer) == 0
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    assert payload_bytes(optimizer) == 2 * 3 * 4
    assert payload_bytes({"a": [torch.ones(2, dtype=torch.float64), 1.0], "b": (True, "xy")}) == 36
    data = torch.utils.data.TensorDataset(torch.ones(10, 2), torch.ones(10))
    assert payload_bytes(torch.utils.data.Subset(data, [1, 2])) == 2 * 3 * 4
    assert payload_bytes(object()) == 0
