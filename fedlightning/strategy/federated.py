"""``FederatedStrategy``: the seam between Lightning's Trainer and the federation.

One batch of Lightning's training loop is one federated round. This module says at which of Lightning's
hooks each part of a round happens; the parts themselves live beside it: what a user may set (``settings``),
the fit as a whole (``run``), how a round is carried out (``rounds``), what it does to the module
(``global_module``), what is refused (``refusals``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    Algorithm,
    Asynchronous,
    FedAvg,
    Participation,
    Sampling,
    ServerOptimizerFactory,
    ServerSchedulerFactory,
    SimulatedClock,
)
from fedlightning.algorithms.attacks import BadWorkers
from fedlightning.algorithms.postprocessing import Postprocessing, Postprocessor
from fedlightning.data import FederatedDataLoader, Partitioner
from fedlightning.local.memory import OptimizerState
from fedlightning.local.vectorised.trial import Wish
from fedlightning.strategy import lightning_calls
from fedlightning.strategy.asynchronous_round import AsynchronousRound
from fedlightning.strategy.backward import GradientsTaken, GuardedBackward, PseudoGradientsTaken
from fedlightning.strategy.backward_hooks import BackwardStrategy
from fedlightning.strategy.class_trees import explain_mixed_class_trees
from fedlightning.strategy.errors import NotFederatable, RoundFailed, RoundInterrupted
from fedlightning.strategy.evaluation import Ticket
from fedlightning.strategy.events import Audience
from fedlightning.strategy.global_module import GlobalModule
from fedlightning.strategy.gradient_round import GradientRound
from fedlightning.strategy.interrupts import Interrupts
from fedlightning.strategy.local_round import LocalRound
from fedlightning.strategy.lone import plans_in
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.own_steps import OwnSteps
from fedlightning.strategy.phases import PhaseClock
from fedlightning.strategy.plain import PlainRounds
from fedlightning.strategy.records import RoundRecord
from fedlightning.strategy.refusals import refuse_for_algorithm, refuse_unsupported
from fedlightning.strategy.replaying import Replay, VisitReplayed, keep_for_replay
from fedlightning.strategy.reporting import duration_of, log_round, log_time, record_of
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.rounds import Round, RoundTerms
from fedlightning.strategy.run import Run
from fedlightning.strategy.settings import Aggregator, FederationSettings, Update
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.workers import Worker


class FederatedStrategy(BackwardStrategy):
    """Train where the data is: ``Trainer(strategy=FederatedStrategy(...))``, and nothing else changed.

    The module travels to the workers, trains on what lies there and comes back: one worker after the other
    (``update="sequential"``), or a cohort per round whose results are averaged (``"averaged"``; FedAvg,
    McMahan et al. 2017, Algorithm 1). The optimizer and schedulers of ``configure_optimizers`` are those of
    the local work; schedules run over rounds, and ``trainer.global_step`` counts rounds. Validation,
    checkpoints and callbacks see the global module.

    With ``local_steps=1``, gradients come back instead of parameters and the optimizer steps at the
    controller (FedSGD); with one worker this is an ordinary ``fit``, bit for bit.

    Each ``fit`` is a run of its own: a second one of the same Trainer begins at round 0 again, with the same
    seed and what the module has learned. ``trainer.fit(..., ckpt_path=...)`` goes on with a run.

    Args:
        workers: A number of virtual workers, or workers that exist. ``None`` for those of federated
            data, for as many as ``partition`` finds in the data, or for ten. Their names decide who has which
            data and who is visited when, not the order in which they are listed.
        partition: How an ordinary train loader's samples are divided over the workers; ``None`` for IID.
            Not used where the data is federated already.
        update: ``"averaged"`` or ``"sequential"``.
        cohort_size: Workers per round (averaged) or per pass over the workers (sequential); ``None`` for all.
        rounds_per_epoch: Rounds in one epoch of the Trainer; ``None`` for as many as see the data once, on
            average where cohorts are drawn.
        local_steps: Batches per visit. ``local_steps`` and ``local_epochs`` exclude each other.
        local_epochs: Passes over a worker's shard per visit; 1 where neither is given.
        optimizer_state: Whether the local optimizer's state is emptied before each visit (``"reset"``, usual
            for averaged), stays at each worker (``"keep"``), or goes along (``"travel"``, usual for
            sequential).
        algorithm: What workers do, and what is made of it, e.g. ``fedlightning.algorithms.FedProx(mu=0.1)``;
            ``None`` for `FedAvg`.
        server_optimizer: Builds the optimizer that steps the global module along the pseudo-gradient, e.g.
            ``functools.partial(torch.optim.Adam, lr=0.01)``; ``None`` to take the average as it is.
        server_scheduler: Builds the schedule of the server optimizer's learning rate over rounds, e.g.
            ``functools.partial(torch.optim.lr_scheduler.LinearLR, total_iters=20)``; ``None`` for a constant.
        sampling: How a cohort is drawn, such as ``fedlightning.algorithms.WeightedSampling()`` or
            ``PowerOfChoice(candidates=20)``; ``None`` for uniformly.
        participation: What keeps a cohort from doing all of its work, in a simulation:
            ``Stragglers(share=0.9)``, ``WorkerDropout(rate=0.1)``, ``OverSelection(deadline=60)``, or several
            one after the other.
        clock: How fast workers and their networks are, in a simulation: a ``SimulatedClock(...)``. The
            history then has the seconds that rounds would have taken.
        asynchronous: When the server updates the global model without waiting for all, such as
            ``FedBuff(buffer=10)`` or ``FedAsync(alpha=0.6)``; ``cohort_size`` workers are under way at a
            time, and arrive by the ``clock``. A round is one update of the server.
        postprocess: What is done to an update before it leaves a worker, and undone where updates are
            combined: postprocessors such as ``[TopK(fraction=0.01), Quantize(bits=8)]`` of
            ``fedlightning.algorithms.postprocessing``, or a `Postprocessing` of them with error feedback.
        downlink: The same for the way down: postprocessors such as ``[Quantize(bits=8)]``, for what has
            changed of the global model since a worker was last visited; what they lose goes down later.
        bad_workers: Workers that do something else than they should, to try defences on:
            ``BadWorkers(SignFlip(), share=0.2)`` of ``fedlightning.algorithms.attacks``.
        aggregation: A rule that withstands bad workers, such as ``fedlightning.algorithms.Median()`` or
            ``Krum(bad=2)``, in place of the weighted mean.
        root_data: A small clean data set of the server's own, for a rule that trusts by it (``FLTrust()``),
            to be read as the train loader reads; or a number of samples to draw from the training data,
            which workers keep, too.
        aggregator: A worker that is trusted to average: updates go to it from worker to worker, and only
            their mean comes here; ``"rotating"`` for one of each round's own workers, in turn. ``None`` to
            average at the controller.
        tolerance: What happens when a worker fails, is lost, or sends numbers that are not finite; by default
            the run stops at the first two and keeps the third.
        vectorize: Whether virtual workers take their local steps together, by ``torch.vmap``: ``True`` where
            that works, ``"auto"`` where sizes or the first steps tell that it is faster, a whole number for
            that many at a time. Results differ by rounding; what cannot be done together is done one by one,
            and a line says why.
        compile: Whether local steps of virtual workers are compiled by ``torch.compile``, once per shape of
            batches; the seconds that takes pay in long runs.
        processes: How many processes of this machine visit virtual workers, side by side; ``None`` for this
            one. They have a thread each, and come to the same bits; see ``docs/fast.md``.
        seed: Seed of partition, cohorts, shuffling and local randomness; ``None`` for the seed that
            ``seed_everything`` or ``torch.manual_seed`` set.
        accelerator: Set by the Trainer.
        checkpoint_io: As in every Lightning strategy.
        precision_plugin: As in every Lightning strategy.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, or two exclude each other; names value and remedy.

    Example:
        >>> from fedlightning.examples import DigitsClassifier, DigitsDataModule
        >>> strategy = FederatedStrategy(workers=3, seed=0)
        >>> parts = ("checkpointing", "model_summary", "progress_bar")
        >>> quiet = {"logger": False} | {f"enable_{part}": False for part in parts}
        >>> trainer = pl.Trainer(max_epochs=2, accelerator="cpu", strategy=strategy, **quiet)
        >>> trainer.fit(DigitsClassifier(), datamodule=DigitsDataModule())
        >>> strategy.history
        History(2 rounds, 3 workers, loss ..., ... up, ... down)
    """

    strategy_name = "federated"

    def __init__(
        self,
        workers: int | Sequence[Worker] | None = None,
        partition: Partitioner | None = None,
        update: Update = "averaged",
        *,
        cohort_size: int | None = None,
        rounds_per_epoch: int | None = None,
        local_steps: int | None = None,
        local_epochs: int | None = None,
        optimizer_state: OptimizerState | None = None,
        algorithm: Algorithm | None = None,
        server_optimizer: ServerOptimizerFactory | None = None,
        server_scheduler: ServerSchedulerFactory | None = None,
        sampling: Sampling | None = None,
        participation: Participation | Sequence[Participation] | None = None,
        clock: SimulatedClock | None = None,
        asynchronous: Asynchronous | None = None,
        postprocess: Postprocessing | Sequence[Postprocessor] | None = None,
        downlink: Sequence[Postprocessor] | None = None,
        bad_workers: BadWorkers | None = None,
        aggregation: AggregationRule | None = None,
        root_data: Dataset[Any] | int | None = None,
        aggregator: Aggregator | None = None,
        tolerance: Tolerance | None = None,
        vectorize: Wish = False,
        compile: bool = False,
        processes: int | None = None,
        seed: int | None = None,
        accelerator: Accelerator | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        explain_mixed_class_trees()
        self._chosen_accelerator: Accelerator | None = None
        settings = FederationSettings(
            workers=workers,
            partition=partition,
            update=update,
            cohort_size=cohort_size,
            rounds_per_epoch=rounds_per_epoch,
            local_steps=local_steps,
            local_epochs=local_epochs,
            optimizer_state=optimizer_state,
            algorithm=algorithm if algorithm is not None else FedAvg(),
            server_optimizer=server_optimizer,
            server_scheduler=server_scheduler,
            sampling=sampling,
            participation=_listed(participation),
            clock=clock,
            asynchronous=asynchronous,
            postprocess=_chain_of(postprocess),
            downlink=_chain_of(downlink),
            bad_workers=bad_workers,
            aggregation=aggregation,
            root_data=root_data,
            aggregator=aggregator,
            tolerance=tolerance if tolerance is not None else Tolerance(),
            vectorize=vectorize,
            compile=compile,
            processes=processes,
            seed=seed,
        )
        super().__init__("cpu", accelerator, checkpoint_io, precision_plugin, settings=settings)
        self.replay: Replay | None = None
        self._plain: PlainRounds | None = None
        self._result: RoundResult | None = None
        self._visiting = False
        self._told_of_wasted_gradients = False
        self._accumulate = 1
        self._interrupts = Interrupts()
        self._audience = Audience()
        self._clock = PhaseClock()
        self._ended: RoundRecord | None = None

    # Before the first round.

    @property
    def accelerator(self) -> Accelerator | None:
        """The accelerator of the Trainer that has this strategy."""
        return self._chosen_accelerator or self._accelerator

    @accelerator.setter
    def accelerator(self, accelerator: Accelerator) -> None:
        # Lightning sets it when a Trainer is made, and takes what it finds for the user's own choice.
        if self._chosen_accelerator is not None:
            raise NotFederatable(
                "this FederatedStrategy belongs to another Trainer already, whose run it holds. Make a new "
                "one for each Trainer: FederatedStrategy(...) with the same settings."
            )
        self._chosen_accelerator = accelerator

    @property
    def parallel_devices(self) -> None:
        """No devices of its own: Lightning then gives the strategy those that the Trainer chose."""
        return

    @parallel_devices.setter
    def parallel_devices(self, devices: Sequence[torch.device]) -> None:
        # A strategy object that the user gives would else stay on the CPU.
        if devices:
            self._root_device = lightning_calls.as_device(devices[0])

    @override
    def setup(self, trainer: pl.Trainer) -> None:
        """Refuse what cannot be federated, then set up as on a single device."""
        assert self.lightning_module is not None
        fitting = trainer.state.fn == TrainerFn.FITTING
        lightning_calls.PassPlansBy.install(self.lightning_module, _stands_in)
        if fitting:
            refuse_unsupported(trainer, self.lightning_module, self.settings)
            if not self._steps_at_controller:
                OwnSteps.install(self.lightning_module)
            self._told_of_wasted_gradients = False
            self._take_accumulation_over()
            self._run = Run(self.settings, trainer, replay=self.replay, resume=self._resume)
        self._clock = PhaseClock(lightning_calls.profiler_of(trainer) if fitting else None)
        self._start_evaluation(self._this_run.seed if fitting else self._seed_without_fit())
        super().setup(trainer)
        if fitting:
            refuse_for_algorithm(self.lightning_module, self.optimizers, self.settings)
            self._this_run.prepare_server(self.lightning_module)
            self._fitting = True
            if self._this_run.spread is not None:
                self._this_run.spread.prepare(trainer)  # while the data is placed

    @override
    def process_dataloader(self, dataloader: object) -> object:
        """Place the training data at the workers and hand the Trainer a loader of plans instead."""
        if self._run is None or not lightning_calls.awaits_train_loader(self._trainer):
            self._warn_of_central_evaluation(dataloader)
            return super().process_dataloader(dataloader)
        lightning_calls.advise_on_processes(self._trainer, dataloader)
        self._described = {}
        loader = self._run.place(dataloader)
        if self.federation.alone:  # several workers read their shards with random numbers of their own
            lightning_calls.seed_processes(self._trainer, dataloader)
        if self.settings.plain and not self._run.plain:  # what would do no harm there must be refused here
            refuse_unsupported(
                self._trainer, self._trainer.lightning_module, replace(self.settings, workers=None)
            )
        self._plain = None
        if self._run.plain:
            self._plain = PlainRounds(self._trainer, self._run, self._interrupts, self._clock)
        return loader

    def _warn_of_central_evaluation(self, dataloader: object) -> None:
        personal = self._run is not None and self._run.has_personal_models
        if personal and not isinstance(dataloader, FederatedDataLoader):
            rank_zero_warn(
                f"{type(self.settings.algorithm).__name__} makes a model of each worker's own, and a loader "
                "that is here evaluates the global module alone. Give a FederatedDataLoader to evaluate each "
                "worker's model on data of its own."
            )

    # One round, in the order in which Lightning calls.

    @property
    def visiting(self) -> bool:
        """Whether the module is at a worker now."""
        return self._visiting

    @override
    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Leave a plan where it is; batches go to the device at their workers."""
        return batch if _stands_in(batch) else super().batch_to_device(batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Notice where a callback has changed how many batches are accumulated."""
        self._interrupts.release()
        if self._plain is not None:
            self._plain.begin_batch()
        self._take_accumulation_over()

    def on_train_end(self) -> None:
        """Let a Ctrl-C through that has waited for the end of a round."""
        self._interrupts.release()

    @override
    def on_validation_start(self) -> None:
        """Let a Ctrl-C through that has waited for the end of a round, and begin a validation."""
        self._interrupts.release()
        self._clock.turn_to("evaluate")
        super().on_validation_start()

    def _take_accumulation_over(self) -> None:
        """Accumulate local batches at the workers, rather than rounds in the Trainer's loop."""
        trainer = self._trainer
        if self.settings.plain or self._steps_at_controller:
            return
        if not isinstance(trainer.accumulate_grad_batches, _TakenOver):
            self._accumulate = trainer.accumulate_grad_batches
            trainer.accumulate_grad_batches = _TakenOver(1)

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Carry out a round's plan, up to the cohort's average, and log what was logged at the workers."""
        if self._plain is not None:
            return self._plain.training_step(partial(super().training_step, *args, **kwargs))
        batch, *batch_idx = args
        assert self.lightning_module is not None
        plan = self._this_run.plan_of(batch, batch_idx[0] if batch_idx else None)
        if plan is None:
            return super().training_step(*args, **kwargs)
        # Some optimizers evaluate their closure several times per step: the same batches once more.
        again = plan.round < self._this_run.round
        if not again:
            self._audience = Audience(self._trainer)
            self._audience.tell("on_round_start", plan)
        self._visiting = True
        try:
            with lightning_calls.counted_as_one_step(self._lightning_optimizers):
                self._result = self._round(bool(batch_idx)).run(plan)
        except (RoundFailed, RoundInterrupted) as failure:
            if self.replay is None:
                keep_for_replay(self._trainer, failure, at_work=not self.federation.in_process)
            if isinstance(failure, RoundInterrupted):  # of which Lightning says nothing more
                rank_zero_warn(str(failure))
            raise
        finally:
            self._visiting = False
            self._clock.turn_to(None)
        self._interrupts.hold()
        if self.replay is not None:
            raise VisitReplayed
        self._warn_of(self._result, plan.round)
        self._clock.turn_to("log")
        log_round(self.lightning_module, self._result)
        if self._this_run.stopwatch is not None:
            before = self.history.simulated_seconds
            log_time(self.lightning_module, before + (duration_of(plan, self._result) or 0.0))
        self._clock.turn_to(None)
        lightning_calls.tell_batch_size(self._trainer, self._result.samples)
        loss = self._result.loss
        if self._steps_at_controller:
            if not again:
                self._global.take_frozen(self._result)
            self._complete_round(self._result, again=again)
            if lightning_calls.only_accumulates(self._trainer):
                self._announce_end()
        elif not self.lightning_module.automatic_optimization:
            with self._global.gradients_kept(self.federation.alone):
                self._global.take_pseudo_gradients(self._result)
                self._take_average_over()
        return loss

    def _warn_of(self, result: RoundResult, round: int) -> None:
        for worker, reason in result.skipped.items():
            rank_zero_warn(f"round {round}: worker {worker!r} is left out of the round: {reason}")
        if result.wastes_gradients and not self._told_of_wasted_gradients:
            self._told_of_wasted_gradients = True
            rank_zero_warn(
                "a visit ended with gradients that no optimizer had stepped along, and they were dropped: a "
                "module that accumulates gradients by hand must step before a visit ends. Use a number of "
                "local_steps that is a multiple of the batches it accumulates."
            )

    def _round(self, passes_batch_idx: bool) -> Round:
        module = self.lightning_module
        assert module is not None
        at_controller = self._steps_at_controller
        terms = RoundTerms(
            self.federation,
            module,
            passes_batch_idx=passes_batch_idx,
            accumulate=self._trainer.accumulate_grad_batches if at_controller else self._accumulate,
            audience=self._audience,
            clock=self._clock,
            stopwatch=self._this_run.stopwatch,
            tolerance=self.settings.tolerance,
            aggregation=self.settings.aggregation,
            root=self._this_run.root,
            postprocess=self.settings.postprocess,
            downlink=self._this_run.downlink,
            bad_workers=self.settings.bad_workers,
            aggregator=self.settings.aggregator,
            algorithm=self.settings.algorithm,
            server_state=self._this_run.server_state,
            first_buffers=self._this_run.first_buffers,
            checks_cohort=self.settings.update == "averaged" and self.replay is None,
            foresight=self._this_run.foresight,
        )
        if at_controller:
            return GradientRound(terms)
        by_hand = not module.automatic_optimization
        optimization = Optimization(
            self.optimizers,
            [config.scheduler for config in self.lr_scheduler_configs] if by_hand else [],
            keeps_settings=by_hand
            or self.settings.local_optimizer_state == "travel"
            or lightning_calls.overrides("optimizer_step", module),
        )
        together, asynchronous = self._this_run.together, self.settings.asynchronous
        if asynchronous is None:
            return LocalRound(terms, optimization, together, self._this_run.spread, self._this_run.step_tapes)
        return AsynchronousRound(terms, optimization, together, asynchronous, self._this_run.versions)

    @override
    def post_backward(self, closure_loss: Tensor) -> None:
        """Let the precision plugin be itself again."""
        super().post_backward(closure_loss)
        if self._plain is not None:
            self._plain.end_backward()

    @override
    def _in_place_of(self, plugin: Precision) -> Precision | None:
        if self._plain is not None:
            guard = self._plain.backward_guard()
            return None if guard is None else GuardedBackward(plugin, partial(self._as_itself, guard))
        if self._visiting or self._result is None:
            return None
        if self._steps_at_controller:
            return GradientsTaken(plugin, self._as_itself, self._take_gradients)
        return PseudoGradientsTaken(plugin, self._as_itself, self._take_pseudo_gradients)

    def _take_gradients(self) -> None:
        assert self._result is not None
        self._global.take_gradients(self._result)
        self._result = None

    def _take_pseudo_gradients(self) -> None:
        assert self._result is not None
        self._global.take_pseudo_gradients(self._result)

    @override
    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: pl.LightningModule | torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the round and take it over into the global module: the user's optimizer, or the server's."""
        if self._visiting:
            return super().optimizer_step(optimizer, closure, model, **kwargs)
        if self._plain is not None:
            return self._plain.optimizer_step(
                partial(super().optimizer_step, optimizer, closure, model, **kwargs)
            )
        if self._steps_at_controller:
            output = super().optimizer_step(optimizer, closure, model, **kwargs)
            self._announce_end()
            return output
        loss = closure()
        self._take_average_over()
        return loss

    def _take_average_over(self) -> None:
        """Make the cohort's average the global module, or step the server optimizer along it."""
        assert self._result is not None
        self._clock.turn_to("aggregate")
        self._global.take_average(self._result)
        self._complete_round(self._result)
        self._announce_end()
        self._result = None

    def _complete_round(self, result: RoundResult, *, again: bool = False) -> None:
        """Take the buffers over and move on to the next round."""
        self._global.take_buffers(result)
        if again:
            return
        assert self.current_plan is not None
        self._clock.turn_to("log")
        self._ended = record_of(self.current_plan, result, self._this_run.traffic)
        self._this_run.complete(self._ended, result)
        self._clock.turn_to(None)
        self.history.add_times(self._ended.round, self._clock.take())

    def _announce_end(self) -> None:
        """Tell of a round's end, once the global module holds its result."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._audience.tell("on_round_end", ended)

    @override
    def on_validation_end(self) -> None:
        """Enter the validation, and what it took, in the history."""
        super().on_validation_end()
        self._clock.turn_to(None)
        if self._fitting and self.history:
            self.history.add_times(self.history[-1].round, self._clock.take())

    @override
    def teardown(self) -> None:
        """Leave module and Trainer as they were, then tear down as on a single device."""
        self._interrupts.drop()
        self._result = None
        self._plain = None
        if self._run is not None:
            self._run.close()
        if self.lightning_module is not None:
            lightning_calls.PassPlansBy.remove(self.lightning_module)
            OwnSteps.remove(self.lightning_module)
            if isinstance(self._trainer.accumulate_grad_batches, _TakenOver):
                self._trainer.accumulate_grad_batches, self._accumulate = self._accumulate, 1
        super().teardown()

    def _seed_without_fit(self) -> int:
        return self.settings.seed if self.settings.seed is not None else torch.initial_seed()

    @property
    def _steps_at_controller(self) -> bool:
        """Whether gradients come back; a module that optimizes by hand steps at the workers in any case."""
        assert self.lightning_module is not None
        return self.settings.steps_at_controller and self.lightning_module.automatic_optimization

    @property
    def _global(self) -> GlobalModule:
        assert self.lightning_module is not None
        return GlobalModule(self.lightning_module, self._this_run.server)


def _chain_of(postprocess: Postprocessing | Sequence[Postprocessor] | None) -> Postprocessing | None:
    """Return what was given as a chain; one without steps is none at all."""
    chain = Postprocessing(postprocess) if isinstance(postprocess, Sequence) else postprocess
    return chain if not isinstance(chain, Postprocessing) or chain.steps else None


def _listed(participation: Participation | Sequence[Participation] | None) -> Sequence[Participation] | None:
    """Return what was given as a tuple; nothing, or an empty list, as none."""
    if participation is None or isinstance(participation, Sequence):
        return tuple(participation or ()) or None
    return (participation,)


class _TakenOver(int):
    """Be the Trainer's ``accumulate_grad_batches`` while workers accumulate; not a callback's own 1."""


def _stands_in(batch: object) -> bool:
    """Tell whether something stands in for a batch that lies at a worker."""
    return isinstance(batch, Ticket) or bool(plans_in(batch))
