"""The inside of a process: one resident module that makes visit after visit, one message at a time.

What a visit does is in ``local``; this module only brings together what it works on.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlightning.algorithms import Update
from fedlightning.local.known import known, looked_up_once
from fedlightning.local.lightning_calls import attach, set_precision, set_progress
from fedlightning.local.metrics import put_states
from fedlightning.local.one_by_one.batches import VisitBatches
from fedlightning.local.one_by_one.step_tapes import StepTapes
from fedlightning.local.procedure import LocalProcedure
from fedlightning.local.randomness import isolated_streams
from fedlightning.local.streams import Stream
from fedlightning.local.training import train_locally
from fedlightning.local.vectorised.pooled import PooledErrands
from fedlightning.local.visit import VisitReport
from fedlightning.local.worker_trainer import WorkerTrainer
from fedlightning.strategy.lightning_calls import PassPlansBy
from fedlightning.strategy.optimization import Optimization
from fedlightning.strategy.own_steps import OwnSteps
from fedlightning.strategy.processes import packing
from fedlightning.strategy.processes.claims import Claims
from fedlightning.strategy.processes.cohort_rows import Known
from fedlightning.strategy.processes.columns import InTurnHere, TogetherHere
from fedlightning.strategy.processes.failing import ReshapedBuffer, told
from fedlightning.strategy.processes.line import Line
from fedlightning.strategy.processes.messages import (
    AsForetold,
    Begin,
    Broken,
    Cohort,
    Columns,
    ColumnsDone,
    Data,
    Done,
    Foretold,
    Forget,
    Job,
    LetGo,
    Outcome,
    Portion,
    Prepare,
    Reserve,
    Rows,
    Several,
    apply_torch_settings,
)
from fedlightning.strategy.processes.packing import pack, unpack, unpack_shared
from fedlightning.strategy.processes.shared_memory import mapped
from fedlightning.strategy.processes.slots import Slots
from fedlightning.strategy.processes.watch import ModuleWatch
from fedlightning.strategy.snapshot import ModuleSnapshot
from fedlightning.workers.remote.launching import end_with_starter

_PATIENCE_SECONDS = 300.0
"""How long a process waits for another fit to hire it."""


class Resident:
    """Do what the controller says, for one fit."""

    module: pl.LightningModule
    _trainer: WorkerTrainer
    _begin: Begin
    _snapshot: ModuleSnapshot
    _optimization: Optimization
    _slots: Slots
    _claims: Claims
    _process: int
    _batches: VisitBatches

    def __init__(self) -> None:
        self.optimizers: Sequence[Optimizer] = ()
        self._table: list[Tensor] = []
        self._device = "cpu"
        self._known_data: dict[int, Any] = {}
        self._streams: dict[str, Stream] = {}
        self._procedures: Sequence[LocalProcedure | None] = ()
        self._watch: ModuleWatch | None = None
        self._cohort: Cohort | None = None
        self._foretold: tuple[PooledErrands, VisitBatches] | None = None
        self._in_turn: InTurnHere | None = None
        self._together: TogetherHere | None = None
        self._tapes = StepTapes()
        self._of_round = ExitStack()

    def prepare(self, message: Prepare) -> None:
        """Make a Trainer, before there is a module."""
        self._take_trainer(message.trainer)

    def _take_trainer(self, packed: bytes) -> None:
        settings, precision = unpack(packed, (), self._device)
        self._trainer = WorkerTrainer(settings)
        set_precision(self._trainer, precision)

    def reserve(self, message: Reserve, descriptor: int) -> None:
        """Make room for a module."""
        apply_torch_settings(message.torch_settings)
        layout, self._device = message.layout, message.device
        # The file stays open: claims lock it.
        file = os.fdopen(os.dup(descriptor), "r+b", buffering=0)
        means = layout.nbytes * (1 + message.slots)
        memory = mapped(descriptor, means + Claims.nbytes_for(message.processes, message.slots))
        self._slots = Slots(layout, memory, message.slots)
        self._claims = Claims(file, memory[means:], message.processes)
        self._process = message.process
        self._table = []
        for shape in layout.shapes:
            tensor = torch.empty_strided(shape.size, shape.stride, dtype=shape.dtype, device=self._device)
            tensor.zero_()
            self._table.append(nn.Parameter(tensor, requires_grad=False) if shape.parameter else tensor)

    def learn(self, message: Data, descriptor: int) -> None:
        """Know data sets from here on."""
        memory = mapped(descriptor, message.nbytes, at_once=True)
        found = unpack_shared(message.packed, message.places, memory)
        self._known_data.update(enumerate(found, message.first))

    def expect_changes(self) -> None:
        """Hear that what was compared ahead of a round may have changed."""
        self._tapes.look_no_more()

    def let_go(self, message: LetGo) -> None:
        """Let go of objects."""
        for number in message.numbers:
            del self._known_data[number]

    def learn_rows(self, message: Rows, descriptor: int) -> None:
        """Know where the samples of some cohorts will lie."""
        known = Known.within(mapped(descriptor, message.nbytes), message.shapes)
        self._known_data.update(enumerate(known.objects, message.first))

    def begin(self, message: Begin) -> None:
        """Begin a round."""
        self.leave()
        self._begin = message
        parts = message.parts
        if "module" in parts:
            self.module = unpack(parts["module"], self._table, self._device)
            self._settle()
        if "trainer" in parts:
            self._take_trainer(parts["trainer"])
        if "trainer" in parts or "module" in parts:
            attach(self._trainer, self.module)
        if "optimizers" in parts:
            self._take_optimizers(unpack(parts["optimizers"], self._table, self._device))
        if "module" in parts or [tensor.requires_grad for tensor in self._table] != message.trained:
            self._together = None
            self.expect_changes()
        for tensor, trained in zip(self._table, message.trained, strict=True):
            tensor.requires_grad_(trained)
        set_progress(self._trainer, *message.progress)
        self._procedures = unpack(message.procedures, (), self._device)
        self._snapshot = ModuleSnapshot.kept_elsewhere(self.module, self._slots.start)
        self._snapshot.restore()
        self._optimization = Optimization(self.optimizers, keeps_settings=False)
        self._of_round.enter_context(looked_up_once(self.module))
        self._of_round.enter_context(self._optimization.one_round())

    def _take_optimizers(self, optimizers: Sequence[Optimizer]) -> None:
        """Take over new settings, or new optimizers where more of them is new."""
        if list(map(_kind_of, self.optimizers)) != list(map(_kind_of, optimizers)):
            self.optimizers, self._together = optimizers, None
            return
        for ours, theirs in zip(self.optimizers, optimizers, strict=True):
            for group, settings in zip(ours.param_groups, theirs.param_groups, strict=True):
                group.update({name: value for name, value in settings.items() if name != "params"})
            ours.state = theirs.state

    def leave(self) -> None:
        """End the round, if there is one."""
        self._in_turn = None
        self._of_round.close()

    def _settle(self) -> None:
        # What stands between the controller's module and its Trainer has no business here.
        OwnSteps.remove(self.module)
        PassPlansBy.remove(self.module)
        if str(self.module.device) != self._device:
            self.module.to(self._device)
        self._watch = ModuleWatch(self.module, self._table, self._device)

    def work(self, portion: Portion) -> Done:
        """Make the visits of a portion."""
        assert self._watch is not None
        changed, pieces = "", []
        for slot, jobs in zip(portion.slots, portion.pieces, strict=True):
            mean, weight, outcomes = self._slots.open(slot), 0.0, []
            for job in jobs:
                self._watch.begin_visit()
                outcome, update = self._visit(job)
                outcomes.append(outcome)
                changed = changed or self._watch.changed()
                if update is not None:
                    mean.add(update, job.weight)
                    weight += job.weight
            pieces.append((outcomes, self._slots.put_down(mean, weight, slot)))
        return Done(portion.number, pieces, changed)

    def meet(self, cohort: Cohort) -> None:
        """Know the cohort of the round, of which the controller may tell before the round begins."""
        self._cohort = cohort
        if cohort.way is None:
            self._batches = _drawn_ahead(cohort.errands)  # while the controller packs what else there is

    def foretell(self, message: Foretold) -> None:
        """Get ready for visits to come, while the controller ends a round and begins the next."""
        self._foretold = message.errands, _drawn_ahead(message.errands)
        self._tapes.look_ahead()

    def meet_foretold(self, message: AsForetold) -> None:
        """Know that the visits of the round are those that were foretold."""
        assert self._foretold is not None
        errands, self._batches = self._foretold
        self._cohort, self._foretold = Cohort(errands, message.weights, None, message.skips), None

    def work_in_columns(self, columns: Columns) -> ColumnsDone:
        """Make the visits of a portion to workers of whom nothing is made."""
        assert self._cohort is not None
        way = self._cohort.way
        if way is None:
            self._in_turn = self._in_turn or self._begin_in_turn(self._cohort)
            done = self._in_turn.work(columns, self._slots, self._claims, self._process)
            self.expect_changes()
            return done
        if self._together is None or self._together.way != way:
            self._together = TogetherHere(self.module, self.optimizers[0], way)
        return self._together.work(self._cohort, columns, self._slots)

    def _begin_in_turn(self, cohort: Cohort) -> InTurnHere:
        assert self._watch is not None
        return InTurnHere(
            self.module,
            cohort,
            self._batches,
            self._snapshot,
            self._optimization,
            self._watch,
            self._begin.retries,
            self._tapes,
        )

    def _visit(self, job: Job, failures: int = 0) -> tuple[Outcome, Update | None]:
        start, optimization, stream = self._snapshot, self._optimization, self._stream_of(job)
        try:
            start.restore()
            with optimization.one_visit(job.visit.steps):
                report = train_locally(
                    self.module,
                    self.optimizers,
                    stream,
                    job.memory,
                    job.visit,
                    self._procedures[job.procedure],
                )
                settings = optimization.settings[0] if self._begin.keeps_settings else None
            if reshaped := start.reshaped_buffer():
                raise ReshapedBuffer(reshaped)
        except Exception as error:  # noqa: BLE001  # told to the controller, which raises it or goes on
            if failures < self._begin.retries and not isinstance(error, ReshapedBuffer):
                return self._visit(job, failures + 1)
            put_states(self.module, ())
            start.restore()
            return Outcome(failure=told(error)), None
        return self._outcome(job, report, settings)

    def _outcome(self, job: Job, report: VisitReport, settings: Any) -> tuple[Outcome, Update | None]:
        memory, outgoing = job.memory, job.memory.outgoing
        memory.outgoing = {}
        outline = {name: [(tuple(t.shape), t.dtype) for t in tensors] for name, tensors in outgoing.items()}
        outcome = Outcome(report, memory.left_for_controller(), outline, settings)
        if report.failed:
            return outcome, None
        if self._begin.processed:
            return outcome, Update([], [], [], outgoing)
        tensors = known(self.module)
        return outcome, Update.left_on(tensors.parameters, tensors.buffers, "parameters", outgoing)

    def _stream_of(self, job: Job) -> Stream:
        if job.stream is not None:
            self._streams[job.worker] = unpack(job.stream, self._known_data)
        return self._streams[job.worker]


def _drawn_ahead(errands: PooledErrands) -> VisitBatches:
    batches = VisitBatches(errands)
    batches.draw_ahead()
    return batches


def _kind_of(optimizer: Optimizer) -> Any:
    parameters = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    return type(optimizer), parameters, [set(group) for group in optimizer.param_groups]


def serve(line: Line) -> None:
    """Serve the controller's fits, one after the other.

    Args:
        line: Leads there.
    """
    inbox: queue.SimpleQueue[tuple[bytes, int | None]] = queue.SimpleQueue()
    # Messages are taken in while visits are made, so that the controller need not wait to send them.
    threading.Thread(target=_listen, args=(line, inbox), daemon=True).start()
    resident = Resident()
    patience = None
    while True:
        try:
            data, descriptor = inbox.get(timeout=patience)
        except queue.Empty:
            return
        try:
            for message in _each(data, resident):
                patience = _PATIENCE_SECONDS if isinstance(message, Forget) else None
                if isinstance(message, Forget):
                    resident.leave()
                    resident = Resident()
                    gc.collect()
                elif (answer := _obey(resident, message, descriptor)) is not None:
                    line.send(pack(answer))
        except Exception:  # noqa: BLE001  # the controller is told, and ends the fit
            line.send(pack(Broken(traceback.format_exc())))


def _each(data: bytes, resident: Resident) -> Iterator[Any]:
    """Yield the messages that have come in one; each may need what the one before has told."""
    message = unpack(data, resident._known_data, resident._device)
    if not isinstance(message, Several):
        yield message
        return
    for packed in message.messages:
        yield from _each(packed, resident)


def _obey(resident: Resident, message: Any, descriptor: int | None) -> Done | ColumnsDone | None:
    """Do as a message says, and return the answer, if there is one."""
    if may_change_readings(message):
        resident.expect_changes()
    if isinstance(message, Portion):
        return resident.work(message)
    if isinstance(message, Columns):
        return resident.work_in_columns(message)
    if isinstance(message, Cohort):
        resident.meet(message)
    elif isinstance(message, Foretold):
        resident.foretell(message)
    elif isinstance(message, AsForetold):
        resident.meet_foretold(message)
    elif isinstance(message, LetGo):
        resident.let_go(message)
    elif isinstance(message, Begin):
        resident.begin(message)
    elif isinstance(message, Prepare):
        resident.prepare(message)
    else:
        assert descriptor is not None
        acts: dict[type, Callable[[Any, int], None]]
        acts = {Reserve: resident.reserve, Data: resident.learn, Rows: resident.learn_rows}
        acts[type(message)](message, descriptor)
    return None


def may_change_readings(message: Any) -> bool:
    """Tell whether what a message brings may run code of the user, and so change what steps read.

    What else a round changes, which tensors require gradients, is seen when it begins.

    Args:
        message: Any that comes between `Foretold` and the visits.
    """
    return not isinstance(message, AsForetold | Columns) and not (
        isinstance(message, Begin) and not message.parts
    )


def _listen(line: Line, inbox: queue.SimpleQueue[tuple[bytes, int | None]]) -> None:
    with suppress(EOFError, OSError):
        while True:
            inbox.put(line.receive())
    os._exit(0)


def main(descriptor: int) -> None:
    """Be a process of a simulation.

    Args:
        descriptor: The socket that leads to the controller.
    """
    # An interrupt is for the controller, which then ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    packing.script = vars(sys.modules["__main__"])
    threading.Thread(target=end_with_starter, daemon=True).start()
    gc.freeze()  # torch and the like are here for good: no search for garbage goes through them
    with isolated_streams():  # nothing but visits draws random numbers here
        serve(Line(socket.socket(fileno=descriptor)))
    # There is nothing to tidy up, and torch takes a second for it.
    os._exit(0)
