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

AGAIN = "again"
"""Name of the outcomes of tests that were run again."""

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
    parser.add_argument("--slice", help="only the slices, or tests to rerun, whose names contain this")
    parser.add_argument(
        "--rerun", choices=("failures", "federated"), help="run only these again, as far as earlier runs tell"
    )
    parser.add_argument("--processes", type=int, default=2, help="processes to run a slice in")
    arguments = parser.parse_args()
    suite = arguments.checkout.resolve() / "tests" / "tests_pytorch"
    if not suite.is_dir():
        parser.error(f"{suite} does not exist: give a checkout of Lightning's repository.")
    results = arguments.results.resolve()
    slices = [s for s in SLICES if arguments.slice is None or arguments.slice in s]
    default, ours = read(results / "default"), read(results / arguments.update)
    if arguments.rerun:
        chosen = only_with_ours(default, ours) if arguments.rerun == "failures" else federated(results)
        tests = sorted(test for test in chosen if arguments.slice is None or arguments.slice in test)
        run_again(suite, tests, results / arguments.update, arguments.update, arguments.processes)
    else:
        for tests in slices:
            name = tests.split()[0].replace("/", "-").removesuffix(".py")
            if not (results / "default" / f"{name}.json").exists():
                run(suite, tests.split(), results / "default", name, None, processes=arguments.processes)
            run(
                suite,
                tests.split(),
                results / arguments.update,
                name,
                arguments.update,
                processes=arguments.processes,
            )
    default, ours = read(results / "default"), read(results / arguments.update)
    print(report(default, ours, arguments.update))
    return 1 if only_with_ours(default, ours) else 0


def run_again(suite: Path, tests: list[str], results: Path, update: str, processes: int) -> None:
    """Run some tests once more, and enter what came out in the results of all runs again so far.

    Args:
        suite: Lightning's ``tests/tests_pytorch``.
        tests: Ids of tests.
        results: Folder for the outcomes.
        update: Our update.
        processes: As in `run`.
    """
    results.mkdir(parents=True, exist_ok=True)
    wanted, found, kept = results / "wanted.txt", results / "new.json", results / f"{AGAIN}.json"
    wanted.write_text(json.dumps(tests))
    files = sorted({test.split("::")[0].removeprefix("tests/tests_pytorch/") for test in tests})
    run(suite, files, results, found.stem, update, "--only", str(wanted), processes=processes)
    before = json.loads(kept.read_text()) if kept.exists() else {}
    kept.write_text(json.dumps(before | json.loads(found.read_text()), indent=1))
    found.unlink()


def run(
    suite: Path,
    tests: list[str],
    results: Path,
    name: str,
    update: str | None,
    *more: str,
    processes: int = 2,
) -> None:
    """Run some of the tests in a process of their own and keep what came out of each.

    Args:
        suite: Lightning's ``tests/tests_pytorch``.
        tests: Files, folders or test ids in it.
        results: Folder for the outcomes.
        name: Name of the outcome's file.
        update: Our update, or ``None`` for Lightning's default strategy.
        *more: Further arguments of pytest.
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
    command += more
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"{name}.log").open("w") as log:
        print(f"{update or 'default'}: {name}", flush=True)
        subprocess.run(
            command, cwd=suite, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, check=False
        )


def read(results: Path) -> Rows:
    """Read the outcomes of all slices; those that were run again replace the earlier ones."""
    files = sorted(results.glob("*.json"), key=lambda file: (file.stem == AGAIN, file.name))
    return {test: row for file in files for test, row in json.loads(file.read_text()).items()}


def only_with_ours(default: Rows, ours: Rows) -> Rows:
    """Return what fails with ours and passes with Lightning's default."""
    return {
        test: row
        for test, row in ours.items()
        if row["outcome"] == "failed" and default.get(test, {}).get("outcome") == "passed"
    }


def federated(results: Path) -> Rows:
    """Return the tests that have built a Trainer of ours, with whatever update."""
    every = (read(results / update) for update in UPDATES)
    return {test: row for rows in every for test, row in rows.items() if row["federated"]}


def report(default: Rows, ours: Rows, update: str) -> str:
    """Return the comparison as text."""
    shared = {test: row for test, row in default.items() if test in ours}
    lines = [_counted("default", shared), _counted(update, ours)]
    built = sum(row["federated"] for row in ours.values())
    lines.append(f"{built} tests built a Trainer with FederatedStrategy")
    failures = only_with_ours(default, ours)
    lines.append(f"{len(failures)} fail only with FederatedStrategy:")
    lines += [f"  {test}\n      {row['error']}" for test, row in sorted(failures.items())]
    return "\n".join(lines)


def _counted(name: str, rows: Rows) -> str:
    found = Counter(row["outcome"] for row in rows.values())
    return f"{name:12}{found['passed']:6} passed{found['failed']:5} failed{found['skipped']:5} skipped"


if __name__ == "__main__":
    sys.exit(main())
