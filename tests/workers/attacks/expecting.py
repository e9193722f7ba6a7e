"""How an attack must end: with an error that names what was asked for, the worker, the policy, the remedy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fedlightning.pointers import new_id
from fedlightning.pointers.messages import Execute
from fedlightning.workers import RefusedByPolicy, RemoteError, Worker
from tests.workers.attacks.conftest import VALUES

REFUSAL = (
    r"^worker 'bob' refuses to let (object \d+|the result of '.+') \(.+, (data|module)\) leave: "
    r"private data stays at its worker\. The policy is KeepData\(\): run a program there .*ask the owner\.$"
)


def stays() -> Any:
    """Expect that the policy refuses, with all that its error must name."""
    return pytest.raises(RefusedByPolicy, match=REFUSAL)


def is_silent() -> Any:
    """Expect an error from the worker that tells where something raised, and no value."""
    return pytest.raises(RemoteError, match="raised at worker 'bob'; what it says is withheld")


def tells_nothing(error: BaseException) -> None:
    """Assert that no value is in an exception's text, arguments, causes and frames' variables."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        assert not re.search(r"\d\.(\D|$)|\d\.0", f"{link}{link.args}"), f"{link!r} quotes values"
        traceback = link.__traceback__
        while traceback is not None:
            assert "fedlightning/workers/host.py" not in traceback.tb_frame.f_code.co_filename
            traceback = traceback.tb_next
        chain += [link.__cause__, link.__context__]


def ask(worker: Worker, operation: str, *args: Any, **kwargs: Any) -> Any:
    """Send an operation as a client would that keeps to no rule of the pointers."""
    return worker.submit(Execute(operation, args, kwargs, (new_id(),))).wait()


__all__ = ["VALUES", "ask", "is_silent", "stays", "tells_nothing"]
