"""The three ways in which a worker fails its controller. Misuse of pointers has errors of its own."""

from __future__ import annotations


class WorkerError(RuntimeError):
    """Tell that a worker did not do what it was asked.

    Args:
        worker: Name of the worker.
        message: What happened.
    """

    def __init__(self, worker: str, message: str) -> None:
        super().__init__(message)
        self.worker = worker


class WorkerLost(WorkerError):
    """Tell that a worker is gone, and with it everything it held."""


class RemoteError(WorkerError):
    """Tell that something raised at a worker; the original exception is the ``__cause__``, traceback and all.

    Where private data took part, the original is withheld: its text may quote values, and its traceback holds
    them. The worker's own log has it.

    Args:
        worker: Name of the worker.
        action: What it was doing, such as the name of a program or an operation.
        original: What was raised there; None if it is withheld.
    """

    def __init__(self, worker: str, action: str, original: Exception | None) -> None:
        if original is None:
            said = f"{action} raised at worker {worker!r}; what it says is withheld, because private data "
            said += "took part: the worker's own log has it"
        else:
            said = f"{action} raised {type(original).__name__} at worker {worker!r}: {original}"
        super().__init__(worker, said)
        self.action = action
        self.__cause__ = original


class RefusedByPolicy(WorkerError):
    """Tell that a worker's policy forbids what was asked.

    Args:
        worker: Name of the worker.
        subject: What was to leave, or to be done.
        rule: The rule that forbids it.
        remedy: What can be done instead.
    """

    def __init__(self, worker: str, subject: str, rule: str, remedy: str) -> None:
        super().__init__(worker, f"worker {worker!r} refuses {subject}: {rule}. {remedy}")
        self.subject = subject
        self.rule = rule
