"""Run one form of an operator here and on pointers, and judge: the same bits, refused, or wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fedlightning.pointers import PointerError, PointerTensor
from fedlightning.workers import RefusedByPolicy, RemoteError, VirtualWorker
from tests.pointers.opinfo.forms import Form, Sample, form_of

Verdict = Literal["equal", "close", "refused", "wrong", "not there"]

# What they return is whatever was in memory: shape and type are compared, values cannot be.
UNDEFINED_VALUES = frozenset(
    ("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "empty_permuted")
)


@dataclass(frozen=True)
class Outcome:
    """Say how one form of one operator fared on pointers.

    Args:
        verdict: ``not there`` if the operator does not have this form, or torch raises locally as well;
            ``close`` if its local result varies from run to run with the place of its arguments in memory,
            and the worker's is within torch's tolerance of it.
        reason: Why it was refused, or what is wrong.
    """

    verdict: Verdict
    reason: str = ""


def judge(operator: Any, form_name: str, sample: Sample) -> Outcome:
    """Compare one form of an operator on pointers with the same call here.

    Args:
        operator: An entry of torch's database.
        form_name: One of `forms.FORMS`.
        sample: Local arguments.
    """
    plain = form_of(operator, "forward", None)
    assert plain is not None
    expected, error = _run(plain, operator, _twin(sample))
    form = None if error is not None else form_of(operator, form_name, expected)
    if form is None:
        return Outcome("not there")
    local, remote = _twin(sample), _sent(sample, VirtualWorker(id="bob"))
    expected, local_error = _run(form, operator, local)
    result, remote_error = _run(form, operator, remote)
    if local_error is not None:
        return _judge_errors(local_error, remote_error)
    if remote_error is not None:
        return _judge_refusal(remote_error)
    outcome = _judge_values(result, expected, values=operator.name not in UNDEFINED_VALUES)
    if outcome.verdict == "wrong" and _varies_here(form, operator, sample):
        return _judge_values(result, expected, values=True, exact=False)
    return outcome


def _varies_here(form: Form, operator: Any, sample: Sample) -> bool:
    """Tell whether the local result changes when it is computed again, from copies elsewhere in memory."""
    kept = [_twin(sample) for _ in range(200)]
    results = (tree_leaves(_run(form, operator, twin)[0]) for twin in kept)
    first = next(results)
    pairs = (pair for other in results for pair in zip(first, other, strict=True))
    return any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in pairs)


def _run(form: Form, operator: Any, sample: Sample) -> tuple[Any, Exception | None]:
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the database exercises deprecated and experimental operators too
        try:
            return form(operator, sample), None
        except Exception as error:  # noqa: BLE001 - each is judged
            return None, error


def _judge_errors(local: Exception, remote: Exception | None) -> Outcome:
    if remote is None:
        return Outcome("wrong", f"no error, where torch raises {type(local).__name__}: {local}")
    return Outcome("not there")


def _judge_refusal(error: Exception) -> Outcome:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, (PointerError, RefusedByPolicy)):
        return Outcome("refused", text)
    if isinstance(error, RemoteError) and isinstance(error.__cause__, NotImplementedError):
        return Outcome("refused", text)
    return Outcome("wrong", text)


def _judge_values(result: Any, expected: Any, *, values: bool, exact: bool = True) -> Outcome:
    got, want = tree_leaves(result), tree_leaves(expected)
    if len(got) != len(want):
        return Outcome("wrong", f"{len(got)} results instead of {len(want)}")
    try:
        for a, b in zip(got, want, strict=True):
            _assert_alike(a, b, values, exact)
    except AssertionError as error:
        return Outcome("wrong", str(error))
    return Outcome("equal" if exact else "close")


def _assert_alike(got: Any, want: Any, values: bool, exact: bool) -> None:
    if not isinstance(want, Tensor):
        assert type(got) is type(want), f"{got!r} instead of {want!r}"
        assert got == want or (got != got and want != want), f"{got!r} instead of {want!r}"
        return
    assert isinstance(got, PointerTensor), f"a {type(got).__name__} instead of a pointer"
    known = [(t.shape, t.dtype, t.layout, t.requires_grad, t.is_leaf) for t in (got, want)]
    assert known[0] == known[1], f"{known[0]} instead of {known[1]}"
    if want.layout is torch.strided:
        assert got.stride() == want.stride(), f"strides {got.stride()} instead of {want.stride()}"
    if values:
        dense = [_dense(tensor) for tensor in (got.detach().clone().get(), want)]
        tolerance = 0 if exact else None  # None: torch's own for the type
        torch.testing.assert_close(*dense, rtol=tolerance, atol=tolerance, equal_nan=True)


def _dense(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _twin(sample: Sample) -> Sample:
    twin: Sample = tree_map(
        lambda leaf: (
            leaf.detach().clone().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf
        ),
        sample,
    )
    return twin


def _sent(sample: Sample, worker: VirtualWorker) -> Sample:
    sent: Sample = tree_map(lambda leaf: worker.send(leaf) if isinstance(leaf, Tensor) else leaf, sample)
    return sent
