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
    options = parser().parse_args(arguments)
    run: Callable[[Namespace], int] = options.run_command
    raise SystemExit(run(options))


def parser() -> ArgumentParser:
    """Return what parses the command line; `run_command` of its result carries it out."""
    top = ArgumentParser("fedlightning", description="Federated learning for PyTorch Lightning.")
    top.add_argument("--version", action="version", version=f"fedlightning {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

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
    compare.set_defaults(run_command=_compare)

    replay = commands.add_parser(
        "replay",
        help="carry out a visit that failed again, exactly as it was",
        description="Carry out one failed visit again: same parameters, same batches, same random numbers. "
        "Exit code: 0 if it succeeds this time, 1 if it fails again, 2 if there is nothing to replay.",
    )
    replay.add_argument("run", type=Path, help="the folder of a run that failed, or one checkpoint of it")
    replay.add_argument("--worker", help="whose visit; the one that failed unless given")
    replay.add_argument("--pdb", action="store_true", help="open a debugger where the visit fails")
    replay.set_defaults(run_command=_replay)

    doctor = commands.add_parser(
        "doctor",
        help="check the installation: versions, configurations, one round of two workers",
        description="Check the installation. Exit code: 0 if all is well, 1 if not.",
    )
    doctor.set_defaults(run_command=_doctor)
    return top


def _train(arguments: list[str]) -> int:
    from fedlightning.cli import train

    sys.argv = ["fedlightning train", *arguments]
    train.main()
    return 0


def _compare(options: Namespace) -> int:
    from fedlightning.cli.compare import compare

    return compare(options.left, options.right)


def _replay(options: Namespace) -> int:
    from fedlightning.cli.replay import replay_visit

    return replay_visit(options.run, options.worker, options.pdb)


def _doctor(options: Namespace) -> int:
    from fedlightning.cli.doctor import examine

    return examine()
