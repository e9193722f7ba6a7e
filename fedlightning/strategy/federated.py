"""``FederatedStrategy``: the seam between Lightning's Trainer and the federation.

One batch of Lightning's training loop is one federated round. This module says at which of Lightning's
hooks each part of a round happens; the parts themselves live beside it: what a user may set (``settings``),
where things lie (``federation``), how a round is carried out (``rounds``), what is refused (``refusals``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from fedlightning.algorithms import (
    AggregationRule,
    AveragedSchedule,
    Plan,
    Schedule,
    SequentialSchedule,
    ServerOptimizerFactory,
    ServerUpdate,
)
from fedlightning.data import FederatedDataLoader, Partitioner
from fedlightning.local.memory import OptimizerState
from fedlightning.local.randomness import capture_global_streams, restore_global_streams
from fedlightning.strategy import lightning_calls
from fedlightning.strategy.checkpoint import (
    FORMAT,
    FederationState,
    check_format,
    check_identity,
    check_seed,
    identity_of,
)
from fedlightning.strategy.class_trees import explain_mixed_class_trees
from fedlightning.strategy.errors import NotFederatable, RoundFailed
from fedlightning.strategy.evaluation import Ticket
from fedlightning.strategy.evaluation_hooks import EvaluatingStrategy
from fedlightning.strategy.events import Audience
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.history import History
from fedlightning.strategy.lone import LoneLoader, LoneTraining, plans_in
from fedlightning.strategy.notebook import strategy_as_html
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.plan_loader import PlanLoader
from fedlightning.strategy.records import RoundRecord, WorkerSummary
from fedlightning.strategy.refusals import refuse_unsupported
from fedlightning.strategy.replaying import Replay, VisitReplayed, save_for_replay
from fedlightning.strategy.reporting import describe, evaluate_at, log_round, record_of
from fedlightning.strategy.roster import roster_of_federated_loader, roster_of_ordinary_loader
from fedlightning.strategy.rounds import GradientRound, LocalRound, Round, RoundResult
from fedlightning.strategy.settings import FederationSettings, Update, cohort_too_large
from fedlightning.strategy.tolerance import Tolerance
from fedlightning.workers import Worker


class FederatedStrategy(EvaluatingStrategy):
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
            data, not the order in which they are listed; sequential visits follow that order.
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
        server_optimizer: Builds the optimizer that steps the global module along the pseudo-gradient, e.g.
            ``functools.partial(torch.optim.Adam, lr=0.01)``; ``None`` to take the average as it is.
        aggregation: A rule that withstands bad workers, such as ``fedlightning.algorithms.Median()`` or
            ``Krum(bad=2)``, in place of the weighted mean.
        aggregator: A worker that is trusted to average: updates go to it from worker to worker, and only
            their mean comes here. ``None`` to average at the controller.
        tolerance: What happens when a worker fails, is lost, or sends numbers that are not finite; by default
            the run stops at the first two and keeps the third.
        seed: Seed of partition, cohorts, shuffling and local randomness; ``None`` for the seed that
            ``seed_everything`` or ``torch.manual_seed`` set.
        accelerator: Set by the Trainer.
        checkpoint_io: As in every Lightning strategy.
        precision_plugin: As in every Lightning strategy.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of range, or two exclude each other; names value and remedy.
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
        server_optimizer: ServerOptimizerFactory | None = None,
        aggregation: AggregationRule | None = None,
        aggregator: Worker | None = None,
        tolerance: Tolerance | None = None,
        seed: int | None = None,
        accelerator: Accelerator | None = None,
        checkpoint_io: CheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        explain_mixed_class_trees()
        self._chosen_accelerator: Accelerator | None = None
        super().__init__("cpu", accelerator, checkpoint_io, precision_plugin)
        self.settings = FederationSettings(
            workers=workers,
            partition=partition,
            update=update,
            cohort_size=cohort_size,
            rounds_per_epoch=rounds_per_epoch,
            local_steps=local_steps,
            local_epochs=local_epochs,
            optimizer_state=optimizer_state,
            server_optimizer=server_optimizer,
            aggregation=aggregation,
            aggregator=aggregator,
            tolerance=tolerance if tolerance is not None else Tolerance(),
            seed=seed,
        )
        self.current_plan: Plan | None = None
        self.replay: Replay | None = None
        self.history = History()
        self._state = FederationState()
        self._server = ServerUpdate(server_optimizer)
        self._federation: Federation | None = None
        self._schedule: Schedule | None = None
        self._plans: PlanLoader | LoneLoader | None = None
        self._lone: LoneTraining | None = None
        self._placing = False
        self._opened_epoch: int | None = None
        self._result: RoundResult | None = None
        self._visiting = False
        self._fitting = False
        self._told_of_wasted_gradients = False
        self._resume: Mapping[str, Any] | None = None
        self._accumulate = 1
        self._epochs_before = 0
        self._audience = Audience()
        self._described: dict[str, WorkerSummary] = {}
        self._ended: RoundRecord | None = None

    # What a user reads.

    @property
    def federation(self) -> Federation:
        """The workers of the current or last fit.

        Raises:
            RuntimeError: Nothing has been fitted yet.
        """
        if self._federation is None:
            raise RuntimeError(
                "there is no federation before trainer.fit has placed the data at the workers."
            )
        return self._federation

    def federation_summary(self, *, evaluate: bool = True) -> list[WorkerSummary]:
        """Say of every worker what it holds, how the global module does there, and what passed its door.

        Args:
            evaluate: Whether to run ``validation_step`` on each worker's own training data, at the worker.

        Returns:
            One summary per worker.
        """
        assert self.lightning_module is not None
        summaries = []
        for name, member in self.federation.members.items():
            if name not in self._described:
                self._described[name] = describe(member)
            metrics = evaluate_at(member, self.lightning_module) if evaluate else {}
            ledger = member.worker.ledger
            summaries.append(
                replace(
                    self._described[name],
                    metrics=metrics,
                    sent_bytes=ledger.sent_bytes,
                    received_bytes=ledger.received_bytes,
                )
            )
        return summaries

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings})"

    def _repr_html_(self) -> str:
        workers = None if self._federation is None else self._federation.samples
        return strategy_as_html(repr(self), workers, self.history)

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

    @override
    def setup_environment(self) -> None:
        """Take the device that the Trainer chose: a strategy object would else stay on the CPU."""
        devices = lightning_calls.devices_of(self._trainer)
        if devices:
            self._root_device = devices[0]
        super().setup_environment()

    @override
    def setup(self, trainer: pl.Trainer) -> None:
        """Refuse what cannot be federated, then set up as on a single device."""
        assert self.lightning_module is not None
        fitting = trainer.state.fn == TrainerFn.FITTING
        lightning_calls.PassPlansBy.install(self.lightning_module, _stands_in)
        if fitting:
            refuse_unsupported(trainer, self.lightning_module, self.settings)
            self._told_of_wasted_gradients = False
            self._take_accumulation_over()
            self._start_run(self.settings.seed)
        self._start_evaluation(self._state.seed if fitting else self._seed_without_fit())
        super().setup(trainer)
        if fitting:
            self._prepare_server()
            self._fitting = True

    def _start_run(self, seed: int | None) -> None:
        """Stand at the first round, or where a checkpoint was taken."""
        self._state.start(seed)
        self._plans, self._placing, self._opened_epoch = None, False, None
        self.history = History()
        if self._resume is not None:
            check_seed(self._resume["state"]["seed"], self.settings.seed)
            self._state.load_state_dict(self._resume["state"])
            self.history = History.from_state(self._resume["history"])

    def _prepare_server(self) -> None:
        self._server.prepare(self._parameters)
        if self._resume is not None:
            self._server.load_state_dict(self._resume["server_optimizer"])

    @override
    def process_dataloader(self, dataloader: object) -> object:
        """Place the training data at the workers and hand the Trainer a loader of plans instead."""
        if not self._trainer.training or lightning_calls.has_train_loaders(self._trainer):
            return super().process_dataloader(dataloader)
        lightning_calls.look_after_processes(self._trainer, dataloader)
        if not self._placing:
            self._plans = self._place(dataloader)
            self._placing = True
            return self._plans
        if self._lone is None:
            raise NotFederatable(
                "FederatedStrategy cannot run this fit:\n- train_dataloader is a collection of loaders, and "
                "their batches cannot be combined at several workers yet. Combine the datasets into one "
                "loader, or use workers=1."
            )
        return self._lone.stand_in_for(dataloader)

    def _place(self, dataloader: Any) -> PlanLoader | LoneLoader:
        """Place the first, or only, loader of a fit, or one that was loaded anew in its midst."""
        seed, settings = self._state.seed, self.settings
        if isinstance(dataloader, FederatedDataLoader):
            roster = roster_of_federated_loader(dataloader, settings.workers)
        else:
            roster = roster_of_ordinary_loader(dataloader, settings.workers, settings.partition, seed)
        kept = None if self._plans is None else self.federation.state_dict(round=self._state.round)
        self._federation = Federation(
            roster,
            seed=seed,
            optimizer_state=settings.local_optimizer_state,
            goes_round=settings.rounds_per_epoch is not None or (settings.local_epochs or 1) > 1,
        )
        if kept is not None:
            self._federation.load_state_dict(kept, streams=False)
        if self._resume is not None:
            check_identity(self._resume["identity"], identity_of(settings, self._federation))
        self._described = {}
        self._schedule = self._draw_up_schedule(self._federation)
        self._lone = None
        if self._federation.alone:
            self._lone = LoneTraining(
                self._federation,
                self._state,
                settings.work,
                rounds_per_epoch=settings.rounds_per_epoch,
                on_open=self._begin_epoch,
            )
            return self._lone.stand_in_for(dataloader)
        return PlanLoader(dataloader, self._schedule.rounds_per_epoch, self._next_plan, self._begin_epoch)

    def _draw_up_schedule(self, federation: Federation) -> Schedule:
        cohort_size, workers = self.settings.cohort_size, len(federation.members)
        if cohort_size is not None and cohort_size > workers:
            raise ValueError(cohort_too_large(cohort_size, workers))
        if self.settings.aggregation is not None:
            self.settings.aggregation.check_cohort(cohort_size or workers)
        kind = AveragedSchedule if self.settings.update == "averaged" else SequentialSchedule
        return kind(
            federation.batches,
            self.settings.work,
            cohort_size=cohort_size,
            rounds_per_epoch=self.settings.rounds_per_epoch,
            seed=self._state.seed,
        )

    def _begin_epoch(self) -> None:
        """Go on from a checkpoint, or begin an epoch; called whenever the Trainer opens a loader."""
        assert self._plans is not None
        self._placing = False
        epoch = lightning_calls.epochs_processed(self._trainer)
        resume, self._resume = self._resume, None
        if resume is not None:
            self._plans.rounds_done = resume["rounds_of_epoch"]
            self.federation.load_state_dict(resume["workers"], streams=resume["rounds_of_epoch"] > 0)
            restore_global_streams(resume["global_streams"])
        elif epoch != self._opened_epoch:
            self._plans.rounds_done = 0
        self._opened_epoch = epoch
        if self._overfits and self._plans.rounds_done == 0:
            self._state.steps_done = {}

    def _next_plan(self) -> Plan:
        assert self._schedule is not None
        self._epochs_before = lightning_calls.epochs_processed(self._trainer)
        plan = self._schedule.plan(self._state.round, self._state.steps_done)
        if self._overfits:
            assert self._plans is not None
            # Its cohort and batches are those of the first epoch, its number and random numbers its own.
            of_epoch = self._schedule.plan(self._plans.rounds_done, self._state.steps_done)
            plan = Plan(plan.round, of_epoch.assignments, plan.seed)
        self.current_plan = plan if self.replay is None else self.replay.only(plan)
        return self.current_plan

    def _plan_of(self, batch: Any, batch_idx: list[int]) -> Plan | None:
        """Return the plan of what the Trainer trains on; ``None`` for a batch that somebody brought along."""
        if not plans_in(batch):
            return None
        if self._lone is None:
            return self.current_plan
        self._epochs_before = lightning_calls.epochs_processed(self._trainer)
        number = batch_idx[0] if batch_idx else lightning_calls.batch_number(self._trainer)
        plan = self._lone.plan_of(batch, number)
        self.current_plan = plan if self.replay is None else self.replay.only(plan)
        return self.current_plan

    @property
    def _overfits(self) -> bool:
        """Whether every epoch has the visits of the first one again, as ``overfit_batches`` asks."""
        asked = float(getattr(self._trainer, "overfit_batches")) > 0  # noqa: B009 - untyped, set by a connector
        return asked and self._lone is None

    # One round, in the order in which Lightning calls.

    @override
    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Leave a plan where it is; batches go to the device at their workers."""
        return batch if _stands_in(batch) else super().batch_to_device(batch, device, dataloader_idx)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Notice where a callback has changed how many batches are accumulated."""
        self._take_accumulation_over()

    def _take_accumulation_over(self) -> None:
        """Accumulate local batches at the workers, rather than rounds in the Trainer's loop."""
        trainer = self._trainer
        if not self._steps_at_controller and not isinstance(trainer.accumulate_grad_batches, _TakenOver):
            self._accumulate = trainer.accumulate_grad_batches
            trainer.accumulate_grad_batches = _TakenOver(1)

    @override
    def training_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Carry out a round's plan, up to the cohort's average, and log what was logged at the workers."""
        batch, *batch_idx = args
        assert self.lightning_module is not None
        plan = self._plan_of(batch, batch_idx)
        if plan is None:
            return super().training_step(*args, **kwargs)
        # Some optimizers evaluate their closure several times per step: the same batches once more.
        again = plan.round < self._state.round
        if not again:
            self._audience = Audience(self._trainer)
            self._audience.tell("on_round_start", plan)
        self._visiting = True
        try:
            with lightning_calls.counted_as_one_step(self._lightning_optimizers):
                self._result = self._round(bool(batch_idx)).run(plan)
        except RoundFailed as failure:
            if self.replay is None:
                self._keep_for_replay(failure)
            raise
        finally:
            self._visiting = False
        if self.replay is not None:
            raise VisitReplayed
        self._warn_of(self._result, plan.round)
        log_round(self.lightning_module, self._result)
        lightning_calls.tell_batch_size(self._trainer, self._result.samples)
        loss = self._result.loss
        if self._steps_at_controller:
            if not again:
                self._take_frozen_over()
            self._complete_round(again=again)
            if lightning_calls.only_accumulates(self._trainer):
                self._announce_end()
        elif not self.lightning_module.automatic_optimization:
            waiting = [parameter.grad for parameter in self._parameters]
            self._server.set_pseudo_gradients(self._parameters, _complete(self._result.average))
            self._take_average_over()
            if self.federation.alone:  # its gradients may wait for those of the next batch
                for parameter, gradient in zip(self._parameters, waiting, strict=True):
                    parameter.grad = gradient
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

    def _keep_for_replay(self, failure: RoundFailed) -> None:
        """Save the round's start; that it cannot be saved must not hide why the round failed."""
        try:
            path = save_for_replay(self._trainer, failure)
        except Exception as error:  # noqa: BLE001 - a full disk, a lost worker: told beside the failure
            rank_zero_warn(f"the failed visit could not be saved for a replay: {error}")
        else:
            failure.replay = None if path is None else str(path)

    def _round(self, passes_batch_idx: bool) -> Round:
        module = self.lightning_module
        assert module is not None
        if self._steps_at_controller:
            return GradientRound(
                self.federation,
                module,
                passes_batch_idx=passes_batch_idx,
                accumulate=self._trainer.accumulate_grad_batches,
                audience=self._audience,
                tolerance=self.settings.tolerance,
                aggregation=self.settings.aggregation,
                aggregator=self.settings.aggregator,
            )
        manual = not module.automatic_optimization
        optimization = Optimization(
            self.optimizers,
            [config.scheduler for config in self.lr_scheduler_configs] if manual else [],
            keeps_settings=manual or self.settings.local_optimizer_state == "travel",
        )
        return LocalRound(
            self.federation,
            module,
            optimization,
            passes_batch_idx=passes_batch_idx,
            accumulate=self._accumulate,
            audience=self._audience,
            tolerance=self.settings.tolerance,
            aggregation=self.settings.aggregation,
            aggregator=self.settings.aggregator,
        )

    @override
    def backward(
        self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Put the round's gradients, or pseudo-gradients, on the global module."""
        if self._visiting or self._result is None:
            return super().backward(closure_loss, optimizer, *args, **kwargs)
        assert self.lightning_module is not None
        if not self._steps_at_controller:
            # Hooks ran at each local step.
            self._server.set_pseudo_gradients(self._parameters, _complete(self._result.average))
            return closure_loss.detach()
        closure_loss = self.precision_plugin.pre_backward(closure_loss, self.lightning_module)
        for parameter, gradient in zip(self._parameters, self._result.average, strict=True):
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient
        self._result = None
        return self.precision_plugin.post_backward(closure_loss, self.lightning_module)

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
        self._server.apply(self._parameters, _complete(self._result.average))
        self._complete_round()
        self._announce_end()
        self._result = None

    @torch.no_grad()
    def _take_frozen_over(self) -> None:
        """Take over what training steps wrote to parameters without a gradient, such as a teacher."""
        assert self._result is not None
        for parameter, mean in zip(self._parameters, self._result.average, strict=True):
            if not parameter.requires_grad and mean is not None:
                parameter.copy_(mean)

    @torch.no_grad()
    def _complete_round(self, *, again: bool = False) -> None:
        """Take the buffers over and move on to the next round."""
        assert self.lightning_module is not None
        assert self.current_plan is not None
        assert self._result is not None
        for buffer, mean in zip(self.lightning_module.buffers(), self._result.buffers, strict=True):
            buffer.copy_(mean)
        if again:
            return
        assert self._plans is not None
        self._plans.rounds_done += 1
        self._state.complete(self.current_plan)
        self._ended = record_of(self.current_plan, self._result)
        self.history.add_round(self._ended, self._result.visits)

    def _announce_end(self) -> None:
        """Tell of a round's end, once the global module holds its result."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._audience.tell("on_round_end", ended)

    @override
    def on_validation_end(self) -> None:
        """Enter the validation in the history."""
        super().on_validation_end()
        self._enter_evaluation()

    def _enter_evaluation(self) -> None:
        if self._trainer.state.fn == TrainerFn.FITTING and not self._trainer.sanity_checking:
            self.history.add_evaluation(self._state.round, lightning_calls.evaluated_metrics(self._trainer))

    # Checkpoints.

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save the federation along with what Lightning saves, unless that is the weights alone."""
        if self._trainer.validating:  # a checkpoint of a validation's end comes before our own hook
            self._enter_evaluation()
        if self._plans is not None and lightning_calls.resumable(checkpoint):
            checkpoint["federation"] = self._federation_state(self._plans)
            if self._lone is None or not self._lone.keeps_places:
                lightning_calls.leave_loaders_out(checkpoint)
        super().save_checkpoint(checkpoint, filepath, storage_options)

    def _federation_state(self, plans: PlanLoader | LoneLoader) -> dict[str, Any]:
        # An epoch may also end early: by max_steps, an early stop or a hook.
        ended = (
            plans.rounds_done >= self._trainer.num_training_batches
            or lightning_calls.epochs_processed(self._trainer) > self._epochs_before
        )
        return {
            "format": FORMAT,
            "identity": identity_of(self.settings, self.federation),
            "state": self._state.state_dict(),
            "rounds_of_epoch": 0 if ended else plans.rounds_done,
            "server_optimizer": self._server.state_dict(),
            "workers": self.federation.state_dict(
                round=self._state.round, without_lost=self.settings.tolerance.skips("lost")
            ),
            "global_streams": capture_global_streams(),
            "history": self.history.state_dict(),
        }

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the module; where a fit goes on, keep the federation's part until the data is placed."""
        super().load_model_state_dict(checkpoint, strict)
        if not lightning_calls.is_being_restored(self._trainer, checkpoint):
            return  # the weights alone
        if self._trainer.state.fn == TrainerFn.FITTING and "federation" in checkpoint:
            check_format(checkpoint["federation"])
            self._resume = checkpoint["federation"]
        if self._fitting:
            # Who tries something out in the midst of a fit (a learning-rate finder) undoes it in this way.
            plans = self._plans
            self._start_run(self._state.seed)
            self._prepare_server()
            if plans is not None:  # the loaders may stay
                self._plans, plans.rounds_done = plans, 0
                self.federation.forget()

    @override
    def teardown(self) -> None:
        """Leave module and Trainer as they were, then tear down as on a single device."""
        self._result = None
        self._resume = None
        self._fitting = False
        if self._lone is not None:
            self._lone.close()
            self._lone = None
        if self.lightning_module is not None:
            lightning_calls.PassPlansBy.remove(self.lightning_module)
            if isinstance(self._trainer.accumulate_grad_batches, _TakenOver):
                self._trainer.accumulate_grad_batches, self._accumulate = self._accumulate, 1
        super().teardown()

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.lightning_module is not None
        return self.lightning_module.trainer

    def _seed_without_fit(self) -> int:
        return self.settings.seed if self.settings.seed is not None else torch.initial_seed()

    @property
    def _steps_at_controller(self) -> bool:
        """Whether gradients come back; a module that optimizes by hand steps at the workers in any case."""
        assert self.lightning_module is not None
        return self.settings.steps_at_controller and self.lightning_module.automatic_optimization

    @property
    def _parameters(self) -> list[torch.nn.Parameter]:
        assert self.lightning_module is not None
        return list(self.lightning_module.parameters())


class _TakenOver(int):
    """Be the Trainer's ``accumulate_grad_batches`` while workers accumulate; not a callback's own 1."""


def _stands_in(batch: object) -> bool:
    """Tell whether something stands in for a batch that lies at a worker."""
    return isinstance(batch, Ticket) or bool(plans_in(batch))


def _complete(average: Sequence[Tensor | None]) -> list[Tensor]:
    """Return averaged parameters, none of which is ever missing, as such to the type checker."""
    return [tensor for tensor in average if tensor is not None]
