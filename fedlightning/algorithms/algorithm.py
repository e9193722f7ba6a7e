"""What a federated algorithm is made of: the round of federated averaging, and where others differ from it.

One algorithm is one module beside this one. How a round is carried out lives in the strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer

from fedlightning.algorithms.plan import Plan
from fedlightning.algorithms.update import Extras
from fedlightning.local.buffers import Buffers
from fedlightning.local.memory import OptimizerState
from fedlightning.local.procedure import LocalProcedure

Weighting = Literal["samples", "uniform"] | Callable[[int], float]
"""The weight of a worker's update: its number of samples, 1, or a function of its number of samples."""

ServerState = Mapping[str, Sequence[Tensor]]
"""What the server keeps between rounds, by name, such as a control variate; part of checkpoints."""


@dataclass(frozen=True)
class Job:
    """What an algorithm is asked to train, for it to refuse.

    Args:
        names: Names of the module's parameters, in order.
        optimizers: The module's optimizers.
        automatic: Whether Lightning steps them, rather than the module.
        update: ``"averaged"`` or ``"sequential"``.
        optimizer_state: What becomes of the optimizers' states between visits.
    """

    names: Sequence[str]
    optimizers: Sequence[Optimizer]
    automatic: bool
    update: Literal["averaged", "sequential"]
    optimizer_state: OptimizerState


def loss_is_not_told(job: Job, what: str) -> Iterator[str]:
    """Yield a reason where a module optimizes by hand, so that nobody but itself sees its loss.

    Args:
        job: What is to be trained.
        what: Who needs the loss, and what for.
    """
    if not job.automatic:
        yield (
            f"{what}, and under manual optimization training_step steps at once. Use "
            "automatic_optimization=True, or another algorithm."
        )


@dataclass(frozen=True)
class Collected:
    """What a round's visits amount to, for the server.

    Args:
        start: The global parameters that every visit started from; not to be written to.
        mean: What was made of the cohort's parameters: their weighted mean, or what a rule made of them.
        extras: The same of what visits have sent beside them, by name.
        trained: Positions of the parameters that are no frozen ones.
        cohort: Workers whose updates are in it.
        workers: Workers in the federation.
    """

    start: Sequence[Tensor]
    mean: Sequence[Tensor]
    extras: Extras = field(default_factory=dict)
    trained: Sequence[int] = ()
    cohort: int = 1
    workers: int = 1


@dataclass(frozen=True)
class Algorithm:
    """Average what the workers of a cohort have trained; other algorithms change some of these methods.

    An algorithm is frozen and has no state of its own: what the server keeps between rounds goes in and out
    of its methods, what a worker keeps stays there (`LocalTraining.keep`).

    Args:
        weighting: The weight of a worker's update: ``"samples"``, ``"uniform"``, or a function of its number
            of samples.
        buffers: What a visit begins with of buffers, such as BatchNorm's statistics: ``"average"`` of the
            last cohort's, ``"keep"`` for what this worker's last visit ended with, or ``"reset"`` for what
            the fit began with. The global module has the average in each case.

    Raises:
        ValueError: The weighting is none of these, or buffers are not.
    """

    weighting: Weighting = field(default="samples", kw_only=True)
    buffers: Buffers = field(default="average", kw_only=True)

    gradients_will_do: ClassVar[bool] = False
    """Whether one local step may be taken at the controller, along averaged gradients."""

    def __post_init__(self) -> None:
        if not callable(self.weighting) and self.weighting not in ("samples", "uniform"):
            raise ValueError(
                f"weighting must be 'samples', 'uniform' or a function of a number of samples, got "
                f"{self.weighting!r}."
            )
        if self.buffers not in get_args(Buffers):
            raise ValueError(f"buffers must be 'average', 'keep' or 'reset', got {self.buffers!r}.")

    def weight(self, samples: int) -> float:
        """Return the weight of a worker's update.

        Args:
            samples: The worker's number of samples.

        Raises:
            ValueError: The user's function gives no positive number.
        """
        if self.weighting == "samples":
            return samples
        if self.weighting == "uniform":
            return 1
        weight = self.weighting(samples)
        if not weight > 0:
            raise ValueError(
                f"weighting gives {weight!r} for a worker with {samples} samples: a weight must be positive."
            )
        return weight

    def why_not(self, job: Job) -> Iterator[str]:
        """Say what keeps the algorithm from training a module; asked before any work.

        Args:
            job: The module's optimizers, and how they are stepped.

        Yields:
            Reasons, each with what to do about it.
        """
        return iter(())

    def begin(self, parameters: Sequence[Tensor]) -> ServerState:
        """Return what the server keeps before the first round.

        Args:
            parameters: The global parameters; not to be written to, nor kept.
        """
        return {}

    def survey(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        """Return what workers are asked in a visit of its own, before they train; ``None``: nothing.

        The mean of what they send is in the state that `procedure` and `finish` of the same round get, and
        nothing else remains of such a visit. A worker that is alone is not asked: it may ask itself.

        Args:
            state: What the server keeps.
            plan: The round.
        """
        return None

    def procedure(self, state: ServerState, plan: Plan) -> LocalProcedure | None:
        """Return what workers do in a round; ``None`` to train, and nothing else.

        Args:
            state: What the server keeps, and what has come of a `survey`, by the names it was sent under.
            plan: The round.
        """
        return None

    def evaluation(self, state: ServerState) -> LocalProcedure | None:
        """Return what makes the global module a worker's own, where it is evaluated there; ``None``: nothing.

        Args:
            state: What the server keeps.
        """
        return None

    def finish(self, state: ServerState, collected: Collected) -> tuple[Sequence[Tensor], ServerState]:
        """Make of what was collected what stands for the cohort, towards which a server optimizer steps.

        Args:
            state: What the server kept before the round, and what has come of a `survey`; not to be written
                to.
            collected: What the round's visits amount to.

        Returns:
            The new global parameters, unless a server optimizer has them otherwise; and what the server keeps
            from here.
        """
        return collected.mean, state

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint's algorithm is known by: its name and settings, as plain values."""
        settings = {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}
        return {"name": type(self).__name__, **settings}


@dataclass(frozen=True)
class FedAvg(Algorithm):
    """Average the parameters that workers have trained (McMahan et al. 2017, Algorithm 1).

    With ``local_steps=1``, averaging gradients is the same, and the optimizer steps at the controller: FedSGD
    (section 2).

    Args:
        weighting: The weight of a worker's update: ``"samples"`` as in the paper, ``"uniform"``, or a
            function of its number of samples.
        buffers: As in `Algorithm`.

    Example:
        >>> FedAvg().weight(600), FedAvg(weighting="uniform").weight(600)
        (600, 1)
    """

    gradients_will_do: ClassVar[bool] = True


def _plain(value: object) -> object:
    """Return what is the same in another process: of a part, its settings; of a function, its name."""
    if is_dataclass(value):
        return repr(value)
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value
