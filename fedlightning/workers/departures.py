"""The door through which everything leaves a worker: who is asked, what is entered, what comes out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from fedlightning.workers.errors import RefusedByPolicy, RemoteError
from fedlightning.workers.ledger import Ledger
from fedlightning.workers.payload import payload_bytes
from fedlightning.workers.policy import CONTROLLER, Decision, Egress, Policy

logger = logging.getLogger("fedlightning.worker")


def let_out(egress: Egress, policy: Policy, ledger: Ledger) -> Any:
    """Ask everybody concerned whether something may leave, and enter the answer in the ledger.

    Asked are the worker's policy and, for data that came from other workers, theirs, which it brought along.

    Args:
        egress: What is about to leave, with its value.
        policy: The worker's.
        ledger: The worker's.

    Returns:
        What leaves: the value, or what a mechanism made of it.

    Raises:
        RefusedByPolicy: It may not.
        RemoteError: A policy or a mechanism raised; nothing leaves.
    """
    value = egress.value
    try:
        decisions = [(asked, asked.decide(egress)) for asked in _concerned(egress, policy)]
        if all(decision.allowed for _, decision in decisions):
            value = _through_mechanisms(egress, [decision for _, decision in decisions])
    except Exception as error:  # noqa: BLE001  # raised again, as what the controller may know of it
        ledger.record(egress, Decision(False, "the policy raised"))
        raise withheld(egress.worker, "the policy", error) from None
    refused = next(((asked, one) for asked, one in decisions if not one.allowed), None)
    if refused is not None:
        ledger.record(egress, refused[1])
        raise _refusal(egress, *refused)
    ledger.record(_as_it_leaves(egress, value), _joined(decisions))
    return value


def withheld(worker: str, action: str, error: Exception) -> RemoteError:
    """Log an exception at the worker, and make the error that tells the controller no more than that.

    Args:
        worker: Name of the worker.
        action: What it was doing.
        error: What was raised.
    """
    logger.error("worker %r: %s raised", worker, action, exc_info=error)
    return RemoteError(worker, action, None)


def _concerned(egress: Egress, policy: Policy) -> list[Policy]:
    asked = [policy]
    for source in egress.sources:
        if source.worker != egress.worker and source.policy not in asked:
            asked.append(source.policy)
    return asked


def _through_mechanisms(egress: Egress, decisions: list[Decision]) -> Any:
    value = egress.value
    for decision in decisions:
        if decision.mechanism is not None:
            value = decision.mechanism.release(value, egress)
    return value


def _as_it_leaves(egress: Egress, value: Any) -> Egress:
    return egress if value is egress.value else replace(egress, value=value, nbytes=payload_bytes(value))


def _joined(decisions: list[tuple[Policy, Decision]]) -> Decision:
    rules = dict.fromkeys(decision.rule for _, decision in decisions)
    return Decision(True, " and ".join(rules))


def _refusal(egress: Egress, policy: Policy, decision: Decision) -> RefusedByPolicy:
    what = f"object {egress.object_id}" if egress.program is None else f"the result of {egress.program!r}"
    where = "leave" if egress.to == CONTROLLER else f"leave for {egress.to!r}"
    subject = f"to let {what} ({egress.description}, {egress.kind}) {where}"
    advice = egress.advice or _ADVICE
    return RefusedByPolicy(egress.worker, subject, decision.rule, f"The policy is {policy!r}: {advice}.")


_ADVICE = "run a program there that returns metrics, aggregate over several workers, or ask the owner"
