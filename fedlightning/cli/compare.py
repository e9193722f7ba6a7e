"""The subcommand `compare`: says in words where the fingerprints of two runs first differ."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fedlightning.callbacks.fingerprint import FINGERPRINT_FILE
from fedlightning.callbacks.fingerprints import Difference, Fingerprint, first_difference, read_fingerprints

_NAMED = 5


def compare(left: Path, right: Path) -> int:
    """Print whether two runs have the same bits, and where they first differ.

    Args:
        left: A run's folder, or its file of fingerprints.
        right: The other run's.

    Returns:
        0 if all rounds are the same, 1 if one differs or a run ends before the other, 2 if there is nothing
        to compare.
    """
    try:
        one, other = read_fingerprints(_file(left)), read_fingerprints(_file(right))
    except (OSError, ValueError) as error:
        print(f"fedlightning compare: {error}", file=sys.stderr)
        return 2
    both = sorted(one.keys() & other.keys())
    if not both:
        print(f"fedlightning compare: {left} and {right} have no round in common", file=sys.stderr)
        return 2
    difference = first_difference(one, other)
    if difference is not None:
        print(_in_words(difference, one[difference.rounds]))
        return 1
    print(f"The same bits {_when(both[0])} to {_when(both[-1])}: {len(both)} fingerprints.")
    return _compare_ends(left, one, right, other)


def _compare_ends(
    left: Path, one: Mapping[int, Fingerprint], right: Path, other: Mapping[int, Fingerprint]
) -> int:
    if max(one) == max(other):
        return 0
    shorter = left if max(one) < max(other) else right
    print(f"But {shorter} ends there, and the other goes on {_when(max(*one, *other))}.")
    return 1


def _in_words(difference: Difference, fingerprint: Fingerprint) -> str:
    names = difference.tensors
    if not names:
        return f"They differ {_when(difference.rounds)}: the same tensors, in another order."
    first = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    whole = len(dict.fromkeys((*fingerprint.tensors, *names)))
    return f"They differ {_when(difference.rounds)}: {first} ({len(names)} of {whole} tensors)."


def _when(rounds: int) -> str:
    """Name a moment of a run.

    Example:
        >>> _when(0), _when(3)
        ('before the first round', 'after round 2')
    """
    return "before the first round" if rounds == 0 else f"after round {rounds - 1}"


def _file(run: Path) -> Path:
    if not run.is_dir():
        return run
    file = run / FINGERPRINT_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{run} has no {FINGERPRINT_FILE}: train with fingerprint=true to write one")
    return file
