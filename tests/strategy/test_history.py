from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from fedlightning.strategy import EvaluatedWorker, FederatedStrategy, History, RoundRecord, VisitRecord
from tests.strategy.toys import Classifier, fit, loader, trainer


def visit(round: int, worker: str, **metrics: float) -> VisitRecord:
    return VisitRecord(round, worker, 10, 2, 0.5, metrics, 100, 200)


def two_rounds() -> History:
    history = History()
    for number in range(2):
        record = RoundRecord(
            number, ("bob", "alice"), 4, 0.5, {"acc": 0.1 * number}, 200, 400, {"acc_min": 0.0}
        )
        history.add_round(record, [visit(number, "bob", acc=0.0), visit(number, "alice", acc=0.2)])
    workers = [EvaluatedWorker(2, "bob", 4, False, {"val/acc": 0.6})]
    history.add_evaluation(2, {"val/acc": 0.7}, workers=workers)
    return history


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_has_a_row_per_round_visit_or_evaluation(tmp_path: Path) -> None:
    history, path = two_rounds(), tmp_path / "history.csv"
    history.to_csv(path)
    assert [(row["round"], row["workers"], row["acc"], row["spread/acc_min"]) for row in read(path)] == [
        ("0", "bob alice", "0.0", "0.0"),
        ("1", "bob alice", "0.1", "0.0"),
    ]
    history.to_csv(path, of="visits")
    assert [(row["round"], row["worker"], row["bytes_up"]) for row in read(path)] == [
        ("0", "bob", "100"),
        ("0", "alice", "100"),
        ("1", "bob", "100"),
        ("1", "alice", "100"),
    ]
    history.to_csv(path, of="evaluations")
    assert read(path) == [{"rounds": "2", "val/acc": "0.7"}]
    history.to_csv(path, of="workers")
    assert read(path) == [
        {"rounds": "2", "worker": "bob", "samples": "4", "personal": "False", "val/acc": "0.6"}
    ]


def test_columns_that_come_later_are_kept(tmp_path: Path) -> None:
    history = two_rounds()
    history.add_round(RoundRecord(2, ("bob",), 1, None, {"late": 1.0}, 0, 0), [])
    history.to_csv(tmp_path / "history.csv")
    rows = read(tmp_path / "history.csv")
    assert [row["late"] for row in rows] == ["", "", "1.0"]
    assert rows[2]["loss"] == ""


def test_another_table_is_refused() -> None:
    with pytest.raises(ValueError, match="is no table of a history"):
        History().rows("worker")  # type: ignore[arg-type]  # what a user may mistype


def test_a_large_cohort_is_kept_as_a_whole() -> None:
    history = History()
    record = RoundRecord(0, ("a",) * 21, 21, 0.5, {}, 0, 0)
    history.add_round(record, [visit(0, "a")] * 21)
    assert (len(history), history.visits) == (1, ())


def test_a_validation_is_entered_once() -> None:
    history = two_rounds()
    history.add_evaluation(2, {"val/acc": 0.8})
    assert [evaluation.metrics for evaluation in history.evaluations] == [{"val/acc": 0.8}]
    assert history.workers == (), "of the validation before"


def test_what_was_saved_comes_back() -> None:
    history = two_rounds()
    again = History.from_state(history.state_dict())
    for of in ("rounds", "visits", "evaluations", "workers"):
        assert again.rows(of) == history.rows(of)
    assert list(again) == list(history)
    assert again.visits == history.visits
    assert again.workers == history.workers


def test_the_rounds_of_the_first_checkpoints_are_read() -> None:
    row = {
        "round": 0,
        "workers": ["bob"],
        "steps": 1,
        "loss": 0.5,
        "metrics": {},
        "bytes_up": 1,
        "bytes_down": 2,
    }
    assert list(History.from_state([row])) == [RoundRecord(0, ("bob",), 1, 0.5, {}, 1, 2)]


def test_a_resumed_run_has_the_whole_history(tmp_path: Path) -> None:
    def strategy() -> FederatedStrategy:
        return FederatedStrategy(3, rounds_per_epoch=2, seed=0)

    saver: Any = ModelCheckpoint(tmp_path, save_top_k=-1, monitor="val/acc")
    _, whole = fit(strategy(), callbacks=[saver], enable_checkpointing=True, max_epochs=2)
    first = next(tmp_path.glob("epoch=0*"))
    resumed = trainer(strategy(), max_epochs=2)
    resumed.fit(Classifier(), loader(), loader(12, shuffle=False), ckpt_path=str(first))
    for of in ("rounds", "evaluations"):
        assert resumed.strategy.history.rows(of) == whole.strategy.history.rows(of)
    assert [e.rounds for e in whole.strategy.history.evaluations] == [2, 4]
    assert set(whole.strategy.history.evaluations[0].metrics) == {"val/acc", "val/loss"}
    assert len(resumed.strategy.history.visits) == 12


def test_it_says_what_it_is() -> None:
    assert repr(History()) == "History(no round yet)"
    assert repr(two_rounds()) == "History(2 rounds, 2 workers, loss 0.5, 400 B up, 800 B down)"
