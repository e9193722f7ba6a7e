from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from fedlightning.callbacks import FederationReport
from fedlightning.callbacks.fingerprints import take_fingerprint
from fedlightning.callbacks.report import callback
from fedlightning.callbacks.report.contents import summed_ledger
from fedlightning.data import Explicit
from fedlightning.strategy import FederatedStrategy, Tolerance
from fedlightning.workers import VirtualWorker, in_round
from tests.callbacks.conftest import Fit, bob_and_alice
from tests.strategy.toys import Classifier, loader
from tests.strategy.toys import fit as fit_toy

VOID = {"meta", "img", "source", "link", "br"}


class Page(HTMLParser):
    """Reads a page: its text, its attributes, and whether every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())

    def pictures(self) -> Iterator[ElementTree.Element]:
        for _, name, value in self.attributes:
            if name in ("src", "srcset"):
                kind, _, data = value.partition(";base64,")
                assert kind == "data:image/svg+xml"
                yield ElementTree.fromstring(b64decode(data))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Any]:
    """Return the report of a run of bob and alice, with the Trainer."""
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    report = FederationReport(path, title="bob & <alice>")
    _, trainer = fit_toy(bob_and_alice(), callbacks=[report], train=loader(10))
    return Page(path), trainer


def test_it_says_what_happened(written: tuple[Page, Any]) -> None:
    page, trainer = written
    accuracy = float(trainer.callback_metrics["val/acc"])
    for text in (
        "bob & <alice>",
        f"{accuracy:.4g}",
        "bob",
        "alice",
        "█▄·",
        "fedlightning.local.training:train_locally",
        "everything may leave",
        "averaged",
        "Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-08)",
        "83 parameters, 404 B with buffers",
        "TensorDataset",
        version("torch"),
        take_fingerprint(trainer.lightning_module, 4).module,
    ):
        assert text in page.texts, text


def test_it_is_one_file_without_scripts_that_fetches_nothing(written: tuple[Page, Any]) -> None:
    page, _ = written
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    addresses = [value for _, name, value in page.attributes if name in ("src", "srcset", "href", "action")]
    assert all(address.startswith("data:") for address in addresses)


def test_every_picture_is_there_for_light_and_dark_pages(written: tuple[Page, Any]) -> None:
    page, _ = written
    pictures = list(page.pictures())
    assert len(pictures) == 2 * 3
    assert {picture.tag for picture in pictures} == {"{http://www.w3.org/2000/svg}svg"}
    assert all(alt for tag, name, alt in page.attributes if (tag, name) == ("img", "alt"))


def test_what_users_and_workers_name_is_escaped(fit: Fit, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    workers = [VirtualWorker(id=evil), VirtualWorker(id="bob")]
    strategy = FederatedStrategy(workers, Explicit({evil: range(6), "bob": range(6, 10)}))
    fit(FederationReport(tmp_path / "r.html"), strategy=strategy)
    page = Page(tmp_path / "r.html")
    assert "script" not in page.tags
    assert evil in page.texts


def test_many_workers_without_labels_and_a_module_that_logs_nothing(tmp_path: Path) -> None:
    class Quiet(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch[0]).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    data = DataLoader(TensorDataset(torch.randn(90, 4)), batch_size=3)
    report = FederationReport(tmp_path / "r.html", max_workers=5)
    fit_toy(FederatedStrategy(30), module=Quiet, train=data, callbacks=[report], max_epochs=1)
    page = Page(tmp_path / "r.html")
    assert "median" in page.texts
    assert "worker-07" not in page.texts
    assert len(list(page.pictures())) == 2 * 3


def test_a_run_without_a_round(fit: Fit, tmp_path: Path) -> None:
    fit(FederationReport(tmp_path / "r.html"), max_epochs=1, limit_train_batches=0)
    assert not (tmp_path / "r.html").exists()


def test_none_without_a_federation(fit: Fit, tmp_path: Path) -> None:
    fit(FederationReport(tmp_path / "r.html"), strategy="auto")
    assert not (tmp_path / "r.html").exists()


def test_without_matplotlib_it_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'fedlightning[examples]'")):
        FederationReport()


def test_alike_entries_of_ledgers_are_summed() -> None:
    workers = [VirtualWorker(id="bob"), VirtualWorker(id="alice")]
    for number, worker in enumerate(workers):
        with in_round(number):
            worker.send([1.0, 2.0]).get()
    table = summed_ledger(workers)
    assert table.rows == (
        ("received", "received", "list", "2", "32 B", ""),
        ("sent", "data", "list", "2", "32 B", "everything may leave"),
    )
    assert table.foot == ("all", "", "", "4", "64 B", "")


def test_who_was_left_out_is_named_with_the_reason(fit: Fit, tmp_path: Path) -> None:
    class Picky(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.trainer.strategy.current_plan.round == 1 and batch[0].shape[0] == 2:
                raise ValueError("two samples are too few")
            return super().training_step(batch, batch_idx)

    strategy = bob_and_alice(tolerance=Tolerance(on_error="skip"))
    with pytest.warns(UserWarning, match="left out"):
        fit(FederationReport(tmp_path / "r.html"), strategy=strategy, module=Picky)
    texts = Page(tmp_path / "r.html").texts
    start = texts.index("Left out")
    assert texts[start + 5 : start + 8] == ["1", "bob", "ValueError: two samples are too few"]
