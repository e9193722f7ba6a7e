"""One fit: who holds which data, which round comes next, and everything of it that a checkpoint keeps.

How a round is carried out lives in ``rounds``, and when Lightning asks for one in ``federated``.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from fedlightning._version import __version__
from fedlightning.algorithms import Forecast, Plan, Schedule, ServerState, ServerUpdate
from fedlightning.algorithms.postprocessing import Downlink
from fedlightning.data import FederatedDataLoader, LoaderSettings
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.personal import personalise
from fedlightning.local.randomness import capture_global_streams, restore_global_streams
from fedlightning.strategy import lightning_calls
from fedlightning.strategy.candidates import LossesAtWorkers
from fedlightning.strategy.checkpoint import FORMAT, FederationState, check_identity, check_seed, identity_of
from fedlightning.strategy.federation import Federation
from fedlightning.strategy.history import History
from fedlightning.strategy.lone import LoneLoader, LoneTraining, plans_in
from fedlightning.strategy.plain_loader import PlainTraining
from fedlightning.strategy.plan_loader import CompanionLoader, PlanLoader
from fedlightning.strategy.records import RoundRecord
from fedlightning.strategy.replaying import Replay
from fedlightning.strategy.root import Root
from fedlightning.strategy.roster import (
    Roster,
    roster_of_federated_loader,
    roster_of_ordinary_loader,
    roster_of_several_loaders,
)
from fedlightning.strategy.round_result import RoundResult
from fedlightning.strategy.schedules import schedule_for
from fedlightning.strategy.settings import FederationSettings
from fedlightning.strategy.spread import Spread
from fedlightning.strategy.stopwatch import Stopwatch, expected_traffic
from fedlightning.strategy.together import Together
from fedlightning.strategy.traffic import Traffic
from fedlightning.strategy.versions import Versions, versions_from
from fedlightning.workers import Worker


class Run:
    """Draw up the rounds of one fit over the workers that hold its data.

    Args:
        settings: What the user has set.
        trainer: The Trainer whose fit it is.
        replay: The one visit that is to be carried out again; ``None`` for an ordinary run.
        resume: The federation's part of a checkpoint to go on from; ``None`` to begin.

    Attributes:
        plan: The plan of the current round; ``None`` before the first.
        traffic: What was moved to find out who takes part in it.
        history: What the rounds so far came to.
        server: What the server does with a cohort's average.
        server_state: What the server keeps for the algorithm.
        first_buffers: The module's buffers at the start of the fit.
        downlink: What workers know of the global model, where the way down is compressed.
        versions: Earlier versions of the global model that somebody under way has begun with.
        root: The server's own data, where a rule compares updates with what is trained on it.
        together: Carries out visits together; ``None`` where each is made by itself.
        step_tapes: Steps of visits made one after the other, as they were recorded.
        stopwatch: Tells how long visits take by the simulated clock; ``None`` where there is none.
        spread: Makes visits in other processes; ``None`` where all are made in this one.

    Raises:
        NotFederatable: The checkpoint is of a run with another seed.
    """

    def __init__(
        self,
        settings: FederationSettings,
        trainer: pl.Trainer,
        *,
        replay: Replay | None = None,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan: Plan | None = None
        self.traffic = Traffic()
        self.server = ServerUpdate(settings.server_optimizer, settings.server_scheduler)
        self.server_state: ServerState = {}
        self.first_buffers: Sequence[Tensor] = ()
        self.versions: Versions = {}
        self.root: Root | None = None
        self.downlink: Downlink | None = None
        self.together = Together.of(settings.vectorize, compiles=settings.compile)
        self.step_tapes = StepTapes()
        self.stopwatch: Stopwatch | None = None
        processes = settings.processes or 1
        self.spread = Spread(processes) if processes > 1 and settings.workers != 1 else None
        self._settings = settings
        self._trainer = trainer
        self._replay = replay
        self._state = FederationState()
        self._federation: Federation | None = None
        self._schedule: Schedule | None = None
        self._plans: PlanLoader | LoneLoader | None = None
        self._lone: LoneTraining | None = None
        self._epochs_before = 0
        self._foreseen: tuple[Schedule, Plan] | None = None
        self._begin(settings.seed, resume)

    def __getstate__(self) -> dict[str, Any]:
        # What lies at the workers stays there: the copy or pickle of a Trainer has its history alone.
        placed = ("root", "stopwatch", "spread", "_federation", "_schedule", "_plans", "_lone")
        return {**self.__dict__, **dict.fromkeys(placed), "_loaders": []}

    def _begin(self, seed: int | None, resume: Mapping[str, Any] | None) -> None:
        self._state.start(seed)
        self._resume = resume
        self._placing, self._placed = False, False
        self._loaders: list[Any] = []
        self._opened_epoch: int | None = None
        self.history = History()
        if resume is not None:
            check_seed(resume["state"]["seed"], self._settings.seed)
            self._state.load_state_dict(resume["state"])
            self.history = History.from_state(resume["history"])

    @property
    def seed(self) -> int:
        """The seed that everything random in this run derives from."""
        return self._state.seed

    @property
    def round(self) -> int:
        """Number of the round that comes next."""
        return self._state.round

    @property
    def federation(self) -> Federation | None:
        """The workers; ``None`` before the data has been placed."""
        return self._federation

    def prepare_server(self, module: nn.Module) -> None:
        """Let the server have its optimizer and what the algorithm keeps, as it was where the run goes on."""
        parameters = list(module.parameters())
        self.server.prepare(parameters)
        self.first_buffers = [buffer.detach().clone() for buffer in module.buffers()]
        self.server_state = self._settings.algorithm.begin([tensor.detach() for tensor in parameters])
        self.downlink = None if self._settings.downlink is None else Downlink(self._settings.downlink)
        if self._resume is not None:
            self.server.load_state_dict(self._resume["server_optimizer"])
            self.server_state = _on_device_of(parameters, self._resume.get("server_state", self.server_state))
            self.first_buffers = self._resume.get("first_buffers", self.first_buffers)
            if self.downlink is not None:
                self.downlink.load_state_dict(self._resume["downlink"])
        saved = {} if self._resume is None else self._resume.get("versions", {})
        self.versions = versions_from(saved, parameters[0].device if parameters else None)

    @property
    def replays(self) -> bool:
        """Whether the run is there to carry out one visit again."""
        return self._replay is not None

    # Placing the data.

    def place(self, dataloader: Any) -> object:
        """Place a train loader's data at the workers.

        Args:
            dataloader: The first, or only, loader of a fit, one that was loaded anew in its midst, or a
                further one of a collection.

        Returns:
            A loader of plans, to stand in for it.

        Raises:
            NotFederatable: The checkpoint to go on from is of another federation.
            TypeError: The loader cannot be divided over several workers.
        """
        if not self._placing:
            self._loaders, self._placed = [dataloader], False
            self._plans = self._place()
            self._placing = True
            return self._plans
        if self._lone is not None:
            return self._lone.stand_in_for(dataloader)
        if not isinstance(dataloader, FederatedDataLoader):
            LoaderSettings.from_loader(
                dataloader
            )  # refused now: of a length, Lightning takes it for "unknown"
        assert isinstance(self._plans, PlanLoader)
        self._loaders.append(dataloader)
        return CompanionLoader(dataloader, self._plans, self._current_plan, len(self._loaders) - 1)

    def _rounds(self) -> int:
        """Return the rounds of an epoch; only by now is it known whether there is one loader or several."""
        if not self._placed:
            self._placed = True
            if len(self._loaders) > 1:
                self._place()
            self._check_identity()
        assert self._schedule is not None
        return self._schedule.rounds_per_epoch

    def _check_identity(self) -> None:
        assert self._federation is not None
        if self._resume is not None:
            check_identity(self._resume["identity"], identity_of(self._settings, self._federation))

    def _current_plan(self) -> Plan:
        assert self.plan is not None
        return self.plan

    def _place(self) -> PlanLoader | LoneLoader:
        kept = None
        if self._plans is not None and self._federation is not None:
            kept = self._federation.state_dict(round=self.round)
        federation = self._federation = self._federate()
        if kept is not None:
            federation.load_state_dict(kept, streams=False)
        self._place_root()
        self._schedule = schedule_for(self._settings, federation, self.seed)
        if (clock := self._settings.clock) is not None:
            clock.check(federation.pool.workers)
            self.stopwatch = Stopwatch(clock, self.seed, federation.samples, federation.batches)
        self._lone = None
        if federation.alone:
            self._check_identity()
            plain = self._settings.plain and not isinstance(self._loaders[0], FederatedDataLoader)
            self._lone = (PlainTraining if plain else LoneTraining)(
                federation,
                self._state,
                self._settings.work,
                rounds_per_epoch=self._settings.rounds_per_epoch,
                on_open=self._begin_epoch,
                mode=partial(lightning_calls.mode_of_combination, self._trainer),
                resumes=self._resumes_within_epoch,
            )
            return self._lone.stand_in_for(self._loaders[0])
        return PlanLoader(self._loaders[0], self._rounds, self._next_plan, self._begin_epoch)

    def _place_root(self) -> None:
        kept = None if self.root is None else self.root.federation.state_dict(round=self.round)
        self.root = Root.of(self._settings, self._loaders, self.seed)
        if self.root is not None and kept is not None:
            self.root.federation.load_state_dict(kept, streams=False)

    @property
    def _resumes_within_epoch(self) -> bool:
        if self._resume is None or self._resume["rounds_of_epoch"] == 0:
            return False
        # Lightning compares their number with that of the loaders that show a place.
        return not lightning_calls.has_loader_states(self._trainer)

    def _roster(self) -> Roster:
        settings = self._settings
        if len(self._loaders) > 1:
            mode, layout = lightning_calls.combination_of(self._trainer)
            return roster_of_several_loaders(
                self._loaders, settings.workers, settings.partition, self.seed, mode=mode, layout=layout
            )
        if isinstance(self._loaders[0], FederatedDataLoader):
            return roster_of_federated_loader(self._loaders[0], settings.workers)
        return roster_of_ordinary_loader(self._loaders[0], settings.workers, settings.partition, self.seed)

    def _federate(self) -> Federation:
        settings = self._settings
        return Federation(
            self._roster(),
            seed=self.seed,
            optimizer_state=settings.local_optimizer_state,
            goes_round=settings.rounds_per_epoch is not None or (settings.local_epochs or 1) > 1,
        )

    # Which round comes next.

    def _begin_epoch(self) -> None:
        """Go on from a checkpoint, or begin an epoch; called whenever the Trainer opens a loader."""
        assert self._plans is not None
        assert self._federation is not None
        self._placing = False
        epoch = lightning_calls.epochs_processed(self._trainer)
        resume, self._resume = self._resume, None
        if resume is not None:
            self._plans.rounds_done = resume["rounds_of_epoch"]
            within_epoch = resume["rounds_of_epoch"] > 0
            self._federation.load_state_dict(resume["workers"], streams=within_epoch)
            if self.root is not None:
                self.root.federation.load_state_dict(resume["root"], streams=False)
            if within_epoch and isinstance(self._lone, PlainTraining):
                for saved in resume["workers"].values():
                    self._lone.load_state_dict(saved["stream"])
            restore_global_streams(resume["global_streams"])
        elif epoch != self._opened_epoch:
            self._plans.rounds_done = 0
        self._opened_epoch = epoch
        if self._overfits and self._plans.rounds_done == 0:
            self._state.steps_done = {}

    def _next_plan(self) -> Plan:
        assert self._schedule is not None
        self._epochs_before = lightning_calls.epochs_processed(self._trainer)
        losses, forecast = self._losses(), self._forecast()
        plan = self._as_foreseen()
        if plan is None:
            plan = self._schedule.plan(self.round, self._state.steps_done, losses, forecast)
        if self._overfits:
            assert self._plans is not None
            # Its cohort and batches are those of the first epoch, its number and random numbers its own.
            of_epoch = self._schedule.plan(self._plans.rounds_done, self._state.steps_done, losses, forecast)
            plan = plan.but(of_epoch.assignments, of_epoch.absent).closing(of_epoch.closes)
        self.traffic = losses.traffic
        return self._take(plan)

    @property
    def foresight(self) -> Callable[[], Plan] | None:
        """What returns the plan of the round after the current one; ``None`` where it is not known yet."""
        if self._schedule is None or self._overfits or self.replays:
            return None
        return self._plan_after if self._schedule.is_foreseeable else None

    def _plan_after(self) -> Plan:
        assert self._schedule is not None
        plan = self._current_plan()
        done = {each.worker: each.first_step + each.steps for each in plan.assignments}
        following = self._schedule.plan(plan.round + 1, ChainMap(done, self._state.steps_done))
        self._foreseen = self._schedule, following
        return following

    def _as_foreseen(self) -> Plan | None:
        """Return the plan of the coming round if it was foreseen, and what it goes by has come about."""
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is None or self.foresight is None:
            return None
        schedule, plan = foreseen
        done = self._state.steps_done
        alike = all(done.get(each.worker, 0) == each.first_step for each in plan.assignments)
        return plan if alike and schedule is self._schedule and plan.round == self.round else None

    def _forecast(self) -> Forecast:
        """Say when visits will arrive: with the bytes of the last ones, or what can be told of the first."""
        if self.stopwatch is None:
            return Forecast(flights=self._state.flights)
        traffic = self._state.traffic or expected_traffic(
            self._trainer.lightning_module, self._trainer.optimizers, self._settings.postprocess
        )
        expected = partial(self.stopwatch.expected, traffic=traffic)
        return Forecast(seconds=expected, flights=self._state.flights)

    def _losses(self) -> LossesAtWorkers:
        assert self._federation is not None
        return LossesAtWorkers(
            self._federation,
            self._trainer.lightning_module,
            round=self.round,
            seed=self.seed,
            reported=self._state.losses,
            tolerance=self._settings.tolerance,
        )

    def plan_of(self, batch: Any, batch_idx: int | None) -> Plan | None:
        """Return the plan of what the Trainer trains on; ``None`` for a batch that somebody brought along.

        Args:
            batch: What the Trainer takes for a batch.
            batch_idx: Its number within the epoch, where ``training_step`` takes it.
        """
        if not plans_in(batch):
            return None
        if self._lone is None:
            return self.plan
        self._epochs_before = lightning_calls.epochs_processed(self._trainer)
        number = lightning_calls.batch_number(self._trainer) if batch_idx is None else batch_idx
        return self._take(self._lone.plan_of(batch, number))

    @property
    def plain(self) -> bool:
        """Whether the Trainer gets the user's batches, and its own steps are the rounds."""
        return isinstance(self._lone, PlainTraining)

    def next_plain(self) -> Plan:
        """Return the plan of the round that the Trainer's coming step is."""
        assert self._lone is not None
        self._epochs_before = lightning_calls.epochs_processed(self._trainer)
        return self._take(self._lone.plan(1))

    def _take(self, plan: Plan) -> Plan:
        self.plan = plan if self._replay is None else self._replay.only(plan)
        return self.plan

    @property
    def _overfits(self) -> bool:
        """Whether every epoch has the visits of the first one again, as ``overfit_batches`` asks."""
        asked = float(getattr(self._trainer, "overfit_batches")) > 0  # noqa: B009 - untyped, set by a connector
        return asked and self._lone is None

    def complete(self, record: RoundRecord, result: RoundResult) -> None:
        """Move on to the next round.

        Args:
            record: What the current round came to.
            result: Its visits, and what the server keeps from here.
        """
        assert self._plans is not None
        assert self.plan is not None
        self._plans.rounds_done += 1
        self._state.complete(self.plan, result.visits)
        self.server_state, self.versions = result.server_state, result.versions
        if isinstance(self._lone, PlainTraining):
            self._lone.settle(lightning_calls.batches_ahead(self._trainer))
        self.history.add_round(record, result.visits)

    @property
    def has_personal_models(self) -> bool:
        """Whether workers would use something else than the global module."""
        return self._settings.algorithm.evaluation(self.server_state) is not None

    def personalised_at(self, worker: Worker, module: Any) -> Any:
        """Have a worker make its own version of a module that was sent there, where the algorithm has one.

        Args:
            worker: The worker, which may hold no training data.
            module: Pointer to the module there.

        Returns:
            A pointer to the version; ``None`` where there is none.
        """
        procedure = self._settings.algorithm.evaluation(self.server_state)
        if procedure is None or self._federation is None or worker.id not in self._federation.members:
            return None
        member = self._federation.members[worker.id]
        if member.worker is not worker:
            return None
        return worker.start(personalise, module, member.memory, member.stream, self.round, procedure)

    # Checkpoints.

    @property
    def has_begun(self) -> bool:
        """Whether the data has been placed, so that there is something to save."""
        return self._plans is not None

    @property
    def leaves_loaders_out(self) -> bool:
        """Whether what Lightning saves of the train loaders is of no use to anybody."""
        return self._lone is None or not self._lone.keeps_places

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the rounds to come, as tensors and plain values."""
        assert self._plans is not None
        assert self._federation is not None
        # An epoch may also end early: by max_steps, an early stop or a hook.
        ended = (
            self._plans.rounds_done >= self._trainer.num_training_batches
            or lightning_calls.epochs_processed(self._trainer) > self._epochs_before
        )
        return {
            "format": FORMAT,
            "version": __version__,
            "identity": identity_of(self._settings, self._federation),
            "state": self._state.state_dict(),
            "rounds_of_epoch": 0 if ended else self._plans.rounds_done,
            "server_optimizer": self.server.state_dict(),
            "server_state": {name: list(tensors) for name, tensors in self.server_state.items()},
            "downlink": {} if self.downlink is None else self.downlink.state_dict(),
            "first_buffers": list(self.first_buffers),
            "versions": {number: version.state_dict() for number, version in self.versions.items()},
            "workers": self._worker_states(self._federation),
            "root": {} if self.root is None else self.root.federation.state_dict(round=self.round),
            "global_streams": capture_global_streams(),
            "history": self.history.state_dict(),
        }

    def _worker_states(self, federation: Federation) -> dict[str, Any]:
        states = federation.state_dict(round=self.round, without_lost=self._settings.tolerance.skips("lost"))
        if isinstance(self._lone, PlainTraining):  # the worker's own stream is not read
            return {name: {**state, "stream": self._lone.state_dict()} for name, state in states.items()}
        return states

    def begin_again(self, resume: Mapping[str, Any] | None) -> None:
        """Stand at the first round, or at a checkpoint, with the data where it is and nothing learned there.

        Who tries something out in the midst of a fit, such as a learning-rate finder, undoes it in this way.

        Args:
            resume: The federation's part of a checkpoint; ``None`` for the first round.
        """
        self._begin(self.seed, resume)
        if self._plans is not None and self._federation is not None:
            self._plans.rounds_done = 0
            self._federation.forget()
            if self.root is not None:
                self.root.federation.forget()

    def close(self) -> None:
        """Let go of what is open at the workers."""
        self._resume = None
        if self._lone is not None:
            self._lone.close()
        if self.spread is not None:
            self.spread.close()


def _on_device_of(parameters: Sequence[Tensor], state: ServerState) -> ServerState:
    """Return what a checkpoint has brought, which is read onto the CPU, where the module is."""
    if not parameters:
        return state
    device = parameters[0].device
    return {name: [tensor.to(device) for tensor in tensors] for name, tensors in state.items()}
