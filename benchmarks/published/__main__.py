"""Run the studies and show what they came to: ``python -m benchmarks.published [fedavg ...] [--write]``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.published import fedavg, fedprox, robust, scaffold
from benchmarks.published.page import as_text, write
from benchmarks.published.store import Store
from benchmarks.published.study import CLAIMS_HEADER, Effort, Report, Table

STUDIES = {
    "fedavg": fedavg.study,
    "scaffold": scaffold.study,
    "robust": robust.study,
    "fedprox": fedprox.study,
}
TUNING = (100, 101)


def main() -> None:
    arguments = _arguments()
    seeds = range(2 if arguments.quick else arguments.seeds)
    effort = Effort(seeds, TUNING[:1] if arguments.quick else TUNING, arguments.quick)
    reports: dict[str, Report] = {}
    for name in arguments.studies or STUDIES:
        store = Store(arguments.store / f"{name}.jsonl", arguments.processes)
        reports[name] = STUDIES[name](store.measure, effort)
        print(f"{name}: {store.seconds / 60:.1f} minutes of one core in all")
        print(as_text(reports[name].details), end="\n\n", flush=True)
    claims = [claim.cells for report in reports.values() for claim in report.claims]
    print(as_text(Table(CLAIMS_HEADER, claims)))
    if arguments.write:
        write(reports, Path("docs"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Try what papers report.")
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], default=[], help="all unless given")
    parser.add_argument("--seeds", type=int, default=10, help="draws of data; 10")
    parser.add_argument("--quick", action="store_true", help="only try out that everything runs")
    parser.add_argument("--processes", type=int, default=2, help="at a time; 2, and 0 for this one alone")
    parser.add_argument("--write", action="store_true", help="write docs/published.md's tables and figures")
    kept = Path(tempfile.gettempdir()) / "fedlightning-published"
    parser.add_argument("--store", type=Path, default=kept, help=f"where finished runs are kept; {kept}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
