"""A pytest plugin for Lightning's own tests: puts ``FederatedStrategy`` where Lightning takes its default.

Loaded with ``-p tests.lightning_suite.plugin`` in a checkout of Lightning; ``compare`` does it. What came out
of each test is written to a file; reading and comparing such files lives in ``compare``.
"""

from __future__ import annotations

import json
from functools import wraps
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from fedlightning.strategy import FederatedStrategy

UPDATES = ("averaged", "sequential")
CHOOSES = "_choose_strategy"
"""The one private method of Lightning's that is replaced: it picks a strategy where the user gave none."""

_PROPERTY = "federated"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("federated")
    group.addoption("--federated", choices=UPDATES, help="run default Trainers with FederatedStrategy")
    group.addoption("--outcomes", type=Path, help="write what came out of each test to this JSON file")
    group.addoption("--only", type=Path, help="run only the tests whose ids are in this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    update = config.getoption("--federated")
    if update is not None:
        config.pluginmanager.register(Federated(update))
    path = config.getoption("--outcomes")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select by id after the collection: an id that is gone does not keep the others from running."""
    path = config.getoption("--only")
    if path is not None:
        wanted = set(json.loads(path.read_text()))
        items[:] = [item for item in items if item.nodeid in wanted]


class Federated:
    """Give every Trainer that would take Lightning's default ours, and note which tests built one.

    Args:
        update: The federated update.

    Raises:
        pytest.UsageError: Lightning no longer chooses its default where we replace it.
    """

    def __init__(self, update: Any) -> None:
        self._update = update
        self._chosen = False
        original = getattr(_AcceleratorConnector, CHOOSES, None)
        if original is None:
            raise pytest.UsageError(_moved("is gone"))

        @wraps(original)
        def choose(connector: _AcceleratorConnector) -> Any:
            strategy = original(connector)
            # By exact type: single-device strategies of other hardware stay.
            if type(strategy) is not SingleDeviceStrategy:
                return strategy
            self._chosen = True
            return FederatedStrategy(workers=1, update=self._update, local_steps=1)

        setattr(_AcceleratorConnector, CHOOSES, choose)
        trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        if not isinstance(trainer.strategy, FederatedStrategy):
            raise pytest.UsageError(_moved(f"let {type(trainer.strategy).__name__} through"))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        """Note on the test whether it built a Trainer of ours; xdist carries it to the report."""
        self._chosen = False
        yield
        if self._chosen:
            item.user_properties.append((_PROPERTY, True))


class Outcomes:
    """Collect one row per test and write them when the run ends.

    Args:
        path: The JSON file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of a test's phases, and the last line of its error."""
        row = self._rows.setdefault(report.nodeid, {"outcome": "passed", "error": "", "federated": False})
        row["federated"] |= (_PROPERTY, True) in [tuple(entry) for entry in report.user_properties]
        if report.failed:
            row["outcome"] = "failed"
            row["error"] = row["error"] or _error_of(report)
        elif report.skipped and row["outcome"] == "passed":
            row["outcome"] = "skipped"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported counts as one failed test."""
        if report.failed:
            self._rows[report.nodeid] = {"outcome": "failed", "error": _error_of(report), "federated": False}

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._rows, indent=1))


def _error_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else report.longreprtext
    return " ".join(message.split("\n", maxsplit=2)[:2])[:300]


def _moved(how: str) -> str:
    return (
        f"Lightning's _AcceleratorConnector.{CHOOSES} {how}: it no longer chooses the default strategy. "
        "Look for where SingleDeviceStrategy is built now, and replace that in lightning_suite/plugin.py."
    )
