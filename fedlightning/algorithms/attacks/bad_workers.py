"""Which workers are bad, and where what they do takes the place of what they should."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedlightning.local.procedure import LocalProcedure, LocalTraining
from fedlightning.local.wrapping import WrappedProcedure
from fedlightning.workers.random import derive_seed
from fedlightning.workers.remote import record

BAD = "attack/bad"
"""Names what says in a round with a collusion whose update is a bad worker's."""


class Attack:
    """What bad workers do: a frozen dataclass of settings; one of the three kinds below."""


class UpdateAttack(Attack, ABC):
    """Train as all do, or on something else, and send something else.

    Attributes:
        trained_on: What is done to the data; ``None`` to train as all do.
    """

    trained_on: DataAttack | None = None

    @abstractmethod
    def change(self, way: list[Tensor]) -> list[Tensor]:
        """Return what is sent; within ``no_grad``.

        Args:
            way: How far each parameter has gone in the visit; not to be written to.
        """


class DataAttack(Attack, ABC):
    """Train on something else, and send what comes of it."""

    @abstractmethod
    def change(self, batch: Any) -> Any:
        """Return the batch that is trained on.

        Args:
            batch: As the worker's loader yields it; not to be written to.
        """


class Collusion(Attack, ABC):
    """Agree on what to send, knowing what the good workers of the round send."""

    @abstractmethod
    def agree(self, good: Tensor, bad: int) -> Tensor:
        """Return the way that every bad worker claims to have gone.

        Args:
            good: The ways of the good workers, shape ``(workers, entries)``, at least one.
            bad: How many bad workers there are in the round.

        Returns:
            Shape ``(entries,)``.
        """


@dataclass(frozen=True)
class BadWorkers:
    """Let some workers be bad for the whole run; the run, not they, decides who.

    Args:
        attack: What they do.
        share: Share of all workers that are bad, drawn by the seed of the run; rounded down.
        names: Which workers, in place of a share.

    Raises:
        TypeError: ``attack`` is none.
        ValueError: ``share`` is no share, or both or neither of the two are given.

    Example:
        >>> from fedlightning.algorithms.attacks import SignFlip
        >>> sorted(BadWorkers(SignFlip(), names=["bob"]).among(["alice", "bob"], seed=0))
        ['bob']
    """

    attack: Attack
    share: float | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.attack, Attack):
            raise TypeError(f"attack must be one such as SignFlip(), got {self.attack!r}.")
        object.__setattr__(self, "names", tuple(self.names))
        if (self.share is None) == (not self.names):
            raise ValueError(
                f"give one of share and names, got share={self.share!r} and names={list(self.names)}."
            )
        if self.share is not None and not 0 <= self.share < 1:
            raise ValueError(f"share must be at least 0 and below 1, got {self.share!r}.")

    def among(self, workers: Iterable[str], seed: int) -> frozenset[str]:
        """Return which of the workers are bad.

        Args:
            workers: Names of all workers.
            seed: Seed of the run.

        Raises:
            ValueError: There is no worker of a name that was given.
        """
        everyone = sorted(workers)
        if self.share is None:
            if unknown := sorted(set(self.names) - set(everyone)):
                raise ValueError(f"names has {unknown[0]!r}, and the workers are {', '.join(everyone)}.")
            return frozenset(self.names)
        drawn = np.random.default_rng(derive_seed(seed, "bad workers")).permutation(len(everyone))
        return frozenset(everyone[position] for position in drawn[: int(self.share * len(everyone))])


def attacked(attack: Attack, procedure: LocalProcedure | None, *, bad: bool) -> LocalProcedure | None:
    """Return what a worker does in a round with bad workers.

    Args:
        attack: What the bad ones do.
        procedure: What all should do; ``None`` to train, and nothing else.
        bad: Whether the worker is one of them.
    """
    if isinstance(attack, Collusion):
        return FlaggedTraining(procedure, bad)
    return AttackedTraining(procedure, attack) if bad else procedure


@record
@dataclass(frozen=True)
class AttackedTraining(WrappedProcedure):
    """Do what should be done on other data, or send something else.

    Args:
        procedure: What should be done; ``None`` to train.
        attack: What is done to data or update.
    """

    procedure: LocalProcedure | None
    attack: Attack

    @override
    def run(self, local: LocalTraining) -> None:
        start = local.copy_parameters()
        data = self.attack.trained_on if isinstance(self.attack, UpdateAttack) else self.attack
        if isinstance(data, DataAttack):
            local.alter_batches(data.change)
        self.carry_out(local)
        if isinstance(self.attack, UpdateAttack):
            self._change(local, start, self.attack)

    @torch.no_grad()
    def _change(self, local: LocalTraining, start: Sequence[Tensor], attack: UpdateAttack) -> None:
        trained = local.trained
        way = [local.parameters[position] - start[position] for position in trained]
        for position, step in zip(trained, attack.change(way), strict=True):
            local.parameters[position].copy_(start[position] + step)


@record
@dataclass(frozen=True)
class FlaggedTraining(WrappedProcedure):
    """Do what should be done, and say whose update it is, where updates are combined.

    Args:
        procedure: What should be done; ``None`` to train.
        bad: Whether the worker is bad.
    """

    procedure: LocalProcedure | None
    bad: bool

    sends: ClassVar[bool] = True

    @override
    def run(self, local: LocalTraining) -> None:
        self.carry_out(local)
        local.sent[BAD] = [torch.tensor(float(self.bad))]
