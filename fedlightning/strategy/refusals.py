"""What cannot be federated yet, or never: refused at ``fit`` with what and why, never ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.optim import Optimizer

from fedlightning.algorithms import Algorithm, Job
from fedlightning.local.worker_trainer import hooks_left_behind
from fedlightning.strategy.errors import NotFederatable
from fedlightning.strategy.lightning_calls import devices_of, takes_dataloader_iter
from fedlightning.strategy.settings import FederationSettings

Check = Callable[[pl.Trainer, pl.LightningModule, FederationSettings], Iterator[str]]


def refuse_unsupported(trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings) -> None:
    """Check a fit before any work.

    Args:
        trainer: The Trainer that is about to fit.
        module: Its module.
        settings: Settings of the federation.

    Raises:
        NotFederatable: Names everything that is in the way, with reason and remedy.
    """
    _refuse([reason for check in _CHECKS for reason in check(trainer, module, settings)])


def refuse_for_algorithm(
    module: pl.LightningModule, optimizers: Sequence[Optimizer], settings: FederationSettings
) -> None:
    """Check, once there are optimizers, whether the algorithm can train this module.

    Args:
        module: The module.
        optimizers: Its optimizers.
        settings: Settings of the federation.

    Raises:
        NotFederatable: Names everything that is in the way, with reason and remedy.
    """
    names = [name for name, _ in module.named_parameters()]
    automatic, state = module.automatic_optimization, settings.local_optimizer_state
    job = Job(names, optimizers, automatic, settings.update, state)
    _refuse([*settings.algorithm.why_not(job), *_asynchronous(settings)])


def _asynchronous(settings: FederationSettings) -> Iterator[str]:
    algorithm = type(settings.algorithm)
    own = [n for n in ("begin", "survey", "finish") if getattr(algorithm, n) is not getattr(Algorithm, n)]
    if settings.asynchronous is not None and own:
        yield (
            f"{algorithm.__name__} is about rounds that all workers begin at once, and under asynchronous="
            f"{settings.asynchronous!r} they do not. Use an algorithm whose server averages and keeps "
            "nothing, such as FedAvg or FedProx."
        )


def _refuse(reasons: Sequence[str]) -> None:
    if reasons:
        raise NotFederatable(
            "FederatedStrategy cannot run this fit:\n" + "\n".join(f"- {r}" for r in reasons)
        )


def _steps(trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings) -> Iterator[str]:
    if takes_dataloader_iter(module) and not settings.plain:
        yield (
            "training_step takes a dataloader_iter, but the batches lie at the workers. Take a batch instead."
        )


def _sparse_gradients(
    trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings
) -> Iterator[str]:
    workers = len(settings.workers) if isinstance(settings.workers, Sequence) else settings.workers
    if settings.update == "sequential" or workers == 1:
        return
    if not (settings.steps_at_controller and module.automatic_optimization):
        return
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            yield (
                f"{name} is an {type(part).__name__} with sparse gradients, which cannot be averaged over "
                "workers. Use sparse=False, or local_steps=2 or more: then parameters are averaged."
            )


def _sampling(trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings) -> Iterator[str]:
    sampling = settings.sampling
    if sampling is not None and sampling.evaluates and not module.automatic_optimization:
        yield (
            f"sampling={sampling!r} has the loss of training_step measured without training, and "
            f"{type(module).__name__} steps by hand in there. Use PowerOfChoice(..., losses='reported')."
        )


def _trainer_features(
    trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings
) -> Iterator[str]:
    devices = devices_of(trainer)
    if len(devices) > 1:
        yield (
            f"devices={len(devices)}: the federation runs in one process on one device. Use devices=1; the "
            "number of workers is FederatedStrategy(workers=...)."
        )
    callbacks: list[pl.Callback] = getattr(trainer, "callbacks")  # noqa: B009 - untyped, set by a connector
    averages = any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks)
    if settings.asynchronous is not None and getattr(trainer, "overfit_batches"):  # noqa: B009 - as above
        yield (
            "overfit_batches has every epoch begin with the same visits, and asynchronous rounds go on from "
            "those before. Use overfit_batches=0, or no asynchronous."
        )
    measures = StochasticWeightAveraging.pl_module_contains_batch_norm(module)
    if averages and measures and not settings.steps_at_controller:
        yield (
            "StochasticWeightAveraging measures BatchNorm's statistics anew in one more epoch without "
            "training, and rounds of local training train. Use local_steps=1, layers that need no statistics "
            "such as GroupNorm, or the WeightAveraging callback."
        )


def _processes(
    trainer: pl.Trainer, module: pl.LightningModule, settings: FederationSettings
) -> Iterator[str]:
    if (settings.processes or 1) == 1 or settings.plain:
        return
    if settings.steps_at_controller and module.automatic_optimization:
        yield (
            f"processes={settings.processes} are for local training, and with local_steps=1 workers only "
            "compute gradients, for a step here. Use local_steps=2 or more, or leave processes out."
        )
    for reason in hooks_left_behind(trainer):
        yield f"{reason}, or leave processes={settings.processes} out."


_CHECKS: tuple[Check, ...] = (_steps, _sparse_gradients, _sampling, _trainer_features, _processes)
