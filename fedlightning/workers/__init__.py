"""Workers: the places that hold objects, run programs on them, and decide what leaves."""

from fedlightning.pointers.rounds import current_round, in_round
from fedlightning.workers.approval import ApprovalQueue, Ask
from fedlightning.workers.declassify import AtLeast, Mechanism, Through
from fedlightning.workers.errors import RefusedByPolicy, RemoteError, WorkerError, WorkerLost
from fedlightning.workers.hook import TorchHook
from fedlightning.workers.known import check_unique_ids, local_worker
from fedlightning.workers.ledger import Entry, Ledger, Traffic
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import (
    AllowAll,
    Decision,
    Egress,
    EgressKind,
    KeepData,
    Policy,
    ResultShape,
    Source,
)
from fedlightning.workers.programs import Program, program
from fedlightning.workers.remote import HostProcess, Limits, ProcessWorker, UnsendableError
from fedlightning.workers.reply import Reply
from fedlightning.workers.rules import Allow, Deny, Rule, Rules, Scope
from fedlightning.workers.virtual import VirtualWorker
from fedlightning.workers.worker import Capabilities, Worker

__all__ = [
    "Allow",
    "AllowAll",
    "ApprovalQueue",
    "Ask",
    "AtLeast",
    "Capabilities",
    "Decision",
    "Deny",
    "Egress",
    "EgressKind",
    "Entry",
    "HostProcess",
    "KeepData",
    "Ledger",
    "Limits",
    "Mechanism",
    "Policy",
    "ProcessWorker",
    "Program",
    "RefusedByPolicy",
    "RemoteError",
    "Reply",
    "ResultShape",
    "Rule",
    "Rules",
    "Scope",
    "Source",
    "Through",
    "TorchHook",
    "Traffic",
    "UnsendableError",
    "VirtualWorker",
    "Worker",
    "WorkerError",
    "WorkerLost",
    "check_unique_ids",
    "current_round",
    "in_round",
    "local_worker",
    "payload_bytes",
    "program",
]
