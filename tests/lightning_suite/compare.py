"""Run Lightning's own tests with its default strategy and with ours, and print what differs.

``make lightning-suite LIGHTNING_TESTS=<checkout> UPDATE=sequential`` calls this. The checkout is Lightning's
repository at the release that is installed; none of it is copied.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.lightning_suite.plugin import UPDATES

ROOT = Path(__file__).parents[2]

SLICES = (
    "trainer/test_trainer.py trainer/test_states.py trainer/test_config_validator.py",
    "trainer/test_dataloaders.py",
    "trainer/connectors trainer/dynamic_args trainer/flags",
    "trainer/logging_ trainer/optimization trainer/properties",
    "loops",
    "core models",
    "callbacks",
    "checkpointing tuner",
    "loggers profilers",
    "utilities helpers overrides serve deprecated_api graveyard",
    "plugins strategies accelerators",
    "test_cli.py",
)
"""Folders of ``tests/tests_pytorch`` that one pytest runs together."""

Rows = dict[str, dict[str, Any]]


def main() -> int:
    """Run the slices that were asked for and print the comparison.

    Returns:
        Non-zero where a test fails only with ours.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="checkout of Lightning's repository")
    parser.add_argument("--update", choices=UPDATES, default="sequential")
    parser.add_argument("--results", type=Path, default=Path("outputs/lightning_suite"))
    parser.add_argument("--slice", help="only the slices whose folders contain this")
    parser.add_argument("--rerun", action="store_true", help="run only the files with failures again")
    arguments = parser.parse_args()
    suite = arguments.checkout.resolve() / "tests" / "tests_pytorch"
    if not suite.is_dir():
        parser.error(f"{suite} does not exist: give a checkout of Lightning's repository.")
    results = arguments.results.resolve()
    slices = [s for s in SLICES if arguments.slice is None or arguments.slice in s]
    default, ours = read(results / "default"), read(results / arguments.update)
    if arguments.rerun:
        # By file: one test that goes by another name now would keep the others from running.
        failed = {test.split("::")[0] for test in only_with_ours(default, ours)}
        files = sorted(file.removeprefix("tests/tests_pytorch/") for file in failed)
        run(suite, files, results / arguments.update, "again", arguments.update)
    else:
        for tests in slices:
            name = tests.split()[0].replace("/", "-").removesuffix(".py")
            if not (results / "default" / f"{name}.json").exists():
                run(suite, tests.split(), results / "default", name, None)
            run(suite, tests.split(), results / arguments.update, name, arguments.update)
    default, ours = read(results / "default"), read(results / arguments.update)
    print(report(default, ours, arguments.update))
    return 1 if only_with_ours(default, ours) else 0


def run(
    suite: Path, tests: list[str], results: Path, name: str, update: str | None, processes: int = 2
) -> None:
    """Run some of the tests in a process of their own and keep what came out of each.

    Args:
        suite: Lightning's ``tests/tests_pytorch``.
        tests: Files, folders or test ids in it.
        results: Folder for the outcomes.
        name: Name of the outcome's file.
        update: Our update, or ``None`` for Lightning's default strategy.
        processes: Processes to run in, besides the one that collects the outcomes; 0 for that one alone.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.lightning_suite.plugin", *tests]
    command += [
        "-n",
        str(processes),
        "--timeout",
        "90",
        "-p",
        "no:cacheprovider",
        "--tb",
        "short",
        "--no-header",
    ]
    command += ["--outcomes", str(results / f"{name}.json")]
    command += ["--federated", update] if update else []
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"{name}.log").open("w") as log:
        print(f"{update or 'default'}: {name}", flush=True)
        subprocess.run(
            command, cwd=suite, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, check=False
        )


def read(results: Path) -> Rows:
    """Read the outcomes of all slices; those that were run again replace the earlier ones."""
    files = sorted(results.glob("*.json"), key=lambda file: (file.stem == "again", file.name))
    return {test: row for file in files for test, row in json.loads(file.read_text()).items()}


def only_with_ours(default: Rows, ours: Rows) -> Rows:
    """Return what fails with ours and passes with Lightning's default."""
    return {
        test: row
        for test, row in ours.items()
        if row["outcome"] == "failed" and default.get(test, {}).get("outcome") == "passed"
    }


def report(default: Rows, ours: Rows, update: str) -> str:
    """Return the comparison as text."""
    shared = {test: row for test, row in default.items() if test in ours}
    lines = [_counted("default", shared), _counted(update, ours)]
    federated = sum(row["federated"] for row in ours.values())
    lines.append(f"{federated} tests built a Trainer with FederatedStrategy")
    failures = only_with_ours(default, ours)
    lines.append(f"{len(failures)} fail only with FederatedStrategy:")
    lines += [f"  {test}\n      {row['error']}" for test, row in sorted(failures.items())]
    return "\n".join(lines)


def _counted(name: str, rows: Rows) -> str:
    found = Counter(row["outcome"] for row in rows.values())
    return f"{name:12}{found['passed']:6} passed{found['failed']:5} failed{found['skipped']:5} skipped"


if __name__ == "__main__":
    sys.exit(main())
