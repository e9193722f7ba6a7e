"""Print the table of operators on pointers: ``python -m tests.pointers.opinfo [samples per operator]``."""

from __future__ import annotations

import sys

from tests.pointers.opinfo.survey import survey


def main() -> None:
    print(survey(samples=int(sys.argv[1]) if len(sys.argv) > 1 else None))


if __name__ == "__main__":
    main()
