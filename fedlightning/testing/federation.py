"""Check on a user's own module what holds for every module: the equalities that federated training promises.

Each check compares two fits of copies of the module. What is compared is listed in `_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType
from typing import Any, TypeAlias
from warnings import catch_warnings, simplefilter

import lightning as L
import torch
from torch import Tensor

from fedlightning.algorithms import FedAvg, FedBuff, FedDyn, FedProx, TrimmedMean
from fedlightning.local.memory import OptimizerState
from fedlightning.strategy import FederatedStrategy, NotFederatable
from fedlightning.workers import VirtualWorker

Fit: TypeAlias = Callable[[], L.LightningModule]
Settings: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """The outcome of one comparison.

    Args:
        name: What must be the same as what.
        holds: Whether it is; ``None`` where the strategy refuses to fit the module in this way.
        detail: How exactly, where they differ most, or why it was refused.
    """

    name: str
    holds: bool | None
    detail: str

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "-"}[self.holds]
        return f"  {mark} {self.name:<66} {self.detail}"


def check_federation(
    module: L.LightningModule,
    data: Any,
    *,
    workers: int = 3,
    epochs: int = 2,
    seed: int = 0,
    **trainer: Any,
) -> list[Check]:
    """Fit copies of a module in ways that must agree, and print which do.

    A module that keeps something outside of parameters, buffers and optimizers, or draws random numbers that
    no seed decides, will show it here. Each fit is as long as ``epochs`` and ``data`` make it: give a part of
    the data, or ``limit_train_batches=10``.

    Args:
        module: The module; it is copied, and left as it is.
        data: An ordinary train ``DataLoader``, or a ``LightningDataModule``.
        workers: Workers of the fits that have several.
        epochs: Length of each fit.
        seed: Seed of every fit.
        **trainer: Further arguments of Lightning's ``Trainer``, such as ``precision`` or
            ``gradient_clip_val``.

    Returns:
        One outcome per comparison.

    Raises:
        ValueError: ``workers`` is below 2, or ``epochs``.

    Example:
        >>> from fedlightning.examples import DigitsClassifier, DigitsDataModule
        >>> checks = check_federation(DigitsClassifier(), DigitsDataModule(), limit_train_batches=4)
        Does DigitsClassifier federate faithfully? (3 workers, 2 epochs)
          ✓ one worker, local_steps=1, sequential = an ordinary fit ...
        >>> all(check.holds for check in checks)
        True
    """
    for name, value in (("workers", workers), ("epochs", epochs)):
        if value < 2:
            raise ValueError(f"{name} must be at least 2, got {value!r}: less shows nothing.")
    fitting = _Fitting(module, data, epochs, seed, trainer)
    print(f"Does {type(module).__name__} federate faithfully? ({workers} workers, {epochs} epochs)")
    checks = []
    for name, left, right, tolerance in _checks(fitting, workers):
        checks.append(_compared(name, left, right, tolerance))
        print(checks[-1], flush=True)
    return checks


def _checks(fitting: _Fitting, count: int) -> Iterator[tuple[str, Fit, Fit, float]]:
    """Yield what is compared: its name, two fits, and how far they may be apart, relative to their size."""

    def several_with(*, epochs: int | None = None, **settings: Any) -> L.LightningModule:
        return fitting.run(partial(FederatedStrategy, count, **settings), epochs=epochs)

    several: Fit = several_with
    names = [f"worker-{number}" for number in range(count)]

    def listed(order: list[str]) -> FederatedStrategy:
        return FederatedStrategy([VirtualWorker(id=name) for name in order])

    ordinary = partial(fitting.run, lambda: "auto")
    for update in ("sequential", "averaged"):
        # A module that steps by hand does so at the worker, where its optimizer is to go on.
        state: OptimizerState | None = "keep" if update == "averaged" and not fitting.automatic else None
        alone = partial(FederatedStrategy, 1, update=update, local_steps=1, optimizer_state=state)
        name = f"one worker, local_steps=1, {update} = an ordinary fit"
        yield name, partial(fitting.run, alone), ordinary, 0
    yield "several workers = the same again", several, several, 0
    yield (
        "several workers = listed in another order",
        partial(fitting.run, partial(listed, names)),
        partial(fitting.run, partial(listed, names[::-1])),
        0,
    )
    yield "several workers = stopped after an epoch and resumed", several, fitting.resumed(count), 0
    weighted, uniform = cache(several), cache(partial(several_with, algorithm=FedAvg(weighting="uniform")))
    same: list[tuple[str, Fit, Settings]] = [
        ("a proximal term of 0", weighted, {"algorithm": FedProx(mu=0)}),
        ("dynamic regularisation of 0", uniform, {"algorithm": FedDyn(alpha=0)}),
        ("updates buffered until all are there", weighted, {"asynchronous": FedBuff(count)}),
        ("updates averaged at a trusted worker", weighted, {"aggregator": VirtualWorker(id="trusted")}),
        ("updates averaged at each worker in turn", weighted, {"aggregator": "rotating"}),
    ]
    for name, reference, settings in same:
        yield f"several workers = with {name}", reference, partial(several_with, **settings), 0
    # Equal but for rounding, which later rounds may amplify.
    one_round: Settings = {"rounds_per_epoch": 1, "algorithm": FedAvg(weighting="uniform")}
    reference = cache(partial(several_with, epochs=1, **one_round))
    rounded: list[tuple[str, Settings]] = [
        ("a server optimizer: SGD of rate 1", {"server_optimizer": partial(torch.optim.SGD, lr=1.0)}),
        ("a mean that is trimmed by nothing", {"aggregation": TrimmedMean(0.0)}),
    ]
    for name, settings in rounded:
        changed = partial(several_with, epochs=1, **one_round, **settings)
        yield f"several workers = with {name}", reference, changed, 1e-5
    plainly = fitting.by_plain_sgd()
    yield (
        "several workers = with local steps taken together",
        partial(plainly.run, partial(FederatedStrategy, count, **one_round), epochs=1),
        partial(plainly.run, partial(FederatedStrategy, count, **one_round, vectorize=count), epochs=1),
        1e-5,
    )


class _Fitting:
    """Fit copies of one module, always from the same state of all random generators."""

    def __init__(
        self, module: L.LightningModule, data: Any, epochs: int, seed: int, settings: dict[str, Any]
    ) -> None:
        self._module = module
        self._data = data
        self._epochs = epochs
        self._seed = seed
        self.automatic = module.automatic_optimization
        self._settings: dict[str, Any] = {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        } | settings

    def by_plain_sgd(self) -> _Fitting:
        """Return the same with plain SGD in place of the module's optimizers, unless it steps them by hand.

        Adam makes a whole step of what rounding leaves of a gradient of zero, such as that of a bias before
        batch normalisation.
        """
        module = deepcopy(self._module)
        if self.automatic:
            vars(module)["configure_optimizers"] = MethodType(_plain_sgd, module)
        return _Fitting(module, self._data, self._epochs, self._seed, self._settings)

    def run(
        self, make_strategy: Callable[[], Any], *, epochs: int | None = None, **checkpoint: Any
    ) -> L.LightningModule:
        module = deepcopy(self._module)
        trainer = self._trainer(make_strategy(), epochs or self._epochs)
        self._fit(trainer, module, **checkpoint)
        return module

    def resumed(self, workers: int) -> Fit:
        def run() -> L.LightningModule:
            with TemporaryDirectory() as folder:
                path = Path(folder) / "stopped.ckpt"
                first = self._trainer(FederatedStrategy(workers), 1)
                self._fit(first, deepcopy(self._module))
                first.save_checkpoint(path)
                return self.run(partial(FederatedStrategy, workers), ckpt_path=path)

        return run

    def _trainer(self, strategy: Any, epochs: int) -> L.Trainer:
        return L.Trainer(
            strategy=strategy, max_epochs=epochs, devices=1, enable_checkpointing=False, **self._settings
        )

    def _fit(self, trainer: L.Trainer, module: L.LightningModule, **checkpoint: Any) -> None:
        L.seed_everything(self._seed, verbose=False)
        key = "datamodule" if isinstance(self._data, L.LightningDataModule) else "train_dataloaders"
        with catch_warnings():
            simplefilter("ignore")  # told by the user's own fits
            trainer.fit(module, **{key: self._data}, **checkpoint)


def _plain_sgd(module: L.LightningModule) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.01)


def _compared(name: str, left: Fit, right: Fit, tolerance: float) -> Check:
    try:
        first, second = left().state_dict(), right().state_dict()
    except NotFederatable as refusal:
        return Check(name, None, f"refused: {str(refusal).splitlines()[-1].removeprefix('- ')}")
    if all(torch.equal(tensor, second[key]) for key, tensor in first.items()):
        return Check(name, True, "the same bits")
    key, distance = max(
        ((key, _distance(tensor, second[key])) for key, tensor in first.items()), key=lambda pair: pair[1]
    )
    return Check(name, distance <= tolerance, f"{key} differs by {distance:.2g} of its size")


def _distance(left: Tensor, right: Tensor) -> float:
    difference = (left.double() - right.double()).norm()
    return float(difference / left.double().norm().clamp_min(1e-12))
