"""Fingerprints of a module: taken, written as lines of JSON, read, compared. When: `fingerprint`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

_DIGITS = 16
"""Of each tensor's 64 hexadecimal digits, so many are written: enough to tell tensors apart."""


@dataclass(frozen=True)
class Fingerprint:
    """The hashes of a module's tensors at one moment of a run.

    Args:
        rounds: Rounds trained before.
        module: SHA-256 over all tensors, 64 hexadecimal digits.
        tensors: The first 16 digits of each tensor's SHA-256, by name, in the module's order.
    """

    rounds: int
    module: str
    tensors: Mapping[str, str]

    def as_line(self) -> str:
        """Return the fingerprint as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Difference:
    """The first moment at which two runs differ.

    Args:
        rounds: Rounds trained before.
        tensors: Names of the tensors that differ, or that only one of the two has; in the module's order.
    """

    rounds: int
    tensors: tuple[str, ...]


def take_fingerprint(module: nn.Module, rounds: int) -> Fingerprint:
    """Hash every parameter and buffer: its name, dtype, shape and bytes.

    Args:
        module: The module; only read. A tensor on an accelerator is copied to the CPU.
        rounds: Rounds trained so far.
    """
    whole, tensors = sha256(), {}
    # Under each of its names, where a tensor has several.
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    for name, tensor in chain(parameters, buffers):
        digest = _digest(name, tensor)
        whole.update(digest)
        tensors[name] = digest.hex()[:_DIGITS]
    return Fingerprint(rounds, whole.hexdigest(), tensors)


def read_fingerprints(path: Path) -> dict[int, Fingerprint]:
    """Read a file of fingerprints.

    Args:
        path: The file. A last line that is cut off, by a run that was killed, is left out.

    Returns:
        The fingerprints by the number of rounds before each.

    Raises:
        ValueError: A line is no fingerprint; names file and line.
    """
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    found = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    return {fingerprint.rounds: fingerprint for fingerprint in found}


def first_difference(left: Mapping[int, Fingerprint], right: Mapping[int, Fingerprint]) -> Difference | None:
    """Return where two runs first differ, among the rounds that both have; None if they do not."""
    for rounds in sorted(left.keys() & right.keys()):
        one, other = left[rounds], right[rounds]
        if one.module != other.module:
            names = dict.fromkeys((*one.tensors, *other.tensors))
            differing = tuple(n for n in names if one.tensors.get(n) != other.tensors.get(n))
            return Difference(rounds, differing)
    return None


def _parsed(line: str, where: str) -> Fingerprint:
    try:
        return Fingerprint(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is no fingerprint: {line[:60]!r}") from error


def _digest(name: str, tensor: Tensor) -> bytes:
    # As bytes, because NumPy knows neither bfloat16 nor the eight-bit floats; flat, for scalars' sake.
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    head = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
    return sha256(head + flat.numpy().tobytes()).digest()
