"""The command `fedlightning`: parses the command line and hands over to the subcommand's own module.

Those are imported when they are asked for, so that `--help` answers without torch.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from fedlightning import __version__


def main() -> None:
    """Run the subcommand that the command line names.

    Raises:
        SystemExit: always, with the subcommand's exit code: 0 for success.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == ["train"]:  # Hydra parses what follows, `--help` included
        raise SystemExit(_train(arguments[1:]))
    options = _parser().parse_args(arguments)
    run: Callable[[Namespace], int] = options.run
    raise SystemExit(run(options))


def _parser() -> ArgumentParser:
    parser = ArgumentParser("fedlightning", description="Federated learning for PyTorch Lightning.")
    parser.add_argument("--version", action="version", version=f"fedlightning {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    commands.add_parser(
        "train", help="train what a configuration describes (fedlightning-train)", add_help=False
    )

    compare = commands.add_parser(
        "compare",
        help="name the first round and tensor in which two runs differ",
        description="Compare the fingerprints of two runs (fedlightning-train ... fingerprint=true). "
        "Exit code: 0 for the same bits, 1 for a difference, 2 if there is nothing to compare.",
    )
    compare.add_argument("left", type=Path, help="a run's folder, or its fingerprint.jsonl")
    compare.add_argument("right", type=Path, help="the other run's")
    compare.set_defaults(run=_compare)

    doctor = commands.add_parser(
        "doctor",
        help="check the installation: versions, configurations, one round of two workers",
        description="Check the installation. Exit code: 0 if all is well, 1 if not.",
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _train(arguments: list[str]) -> int:
    from fedlightning.cli import train

    sys.argv = ["fedlightning train", *arguments]
    train.main()
    return 0


def _compare(options: Namespace) -> int:
    from fedlightning.cli.compare import compare

    return compare(options.left, options.right)


def _doctor(options: Namespace) -> int:
    from fedlightning.cli.doctor import examine

    return examine()
