"""A tape of any of torch's operators gives what the operator gives, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

from fedlightning.local.tapes.overloads import call_into
from fedlightning.local.tapes.recorder import Recorder

aten = torch.ops.aten

# fmt: off
OPERATORS = [
    "abs", "add", "addmm", "baddbmm", "bmm", "cat", "chunk", "clamp", "clone", "cumsum", "div",
    "einsum", "exp", "expand", "flatten", "gather", "index_select", "linalg.vector_norm",
    "log_softmax", "logsumexp", "masked_fill", "matmul", "max", "mean", "mul", "narrow",
    "nn.functional.avg_pool2d", "nn.functional.conv2d", "nn.functional.cosine_similarity",
    "nn.functional.cross_entropy", "nn.functional.elu", "nn.functional.gelu",
    "nn.functional.group_norm", "nn.functional.hardswish", "nn.functional.huber_loss",
    "nn.functional.interpolate", "nn.functional.layer_norm", "nn.functional.linear",
    "nn.functional.max_pool2d", "nn.functional.mse_loss", "nn.functional.pad", "nn.functional.relu",
    "nn.functional.silu", "nn.functional.unfold", "permute", "pow", "prod", "reshape", "roll",
    "select", "sigmoid", "softmax", "sort", "split", "squeeze", "stack", "std", "sum", "t", "tanh",
    "topk", "transpose", "tril", "unbind", "unsqueeze", "var", "where",
]
# fmt: on


def _sample(name: str) -> tuple[Any, Any]:
    operator = next(op for op in op_db if op.name == name)
    sample = next(
        sample
        for sample in operator.sample_inputs("cpu", torch.float32, requires_grad=True)
        if (isinstance(sample.input, Tensor) and sample.input.dim()) or isinstance(sample.input, list | tuple)
    )
    return operator, sample


@pytest.mark.parametrize("name", OPERATORS)
def test_a_tape_gives_what_the_operator_gives(name: str) -> None:
    operator, sample = _sample(name)
    given = [sample.input] if isinstance(sample.input, Tensor) else [*sample.input]

    def step(*inputs: Tensor) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        taken = leaves[0] if isinstance(sample.input, Tensor) else type(sample.input)(leaves)
        result = operator(taken, *sample.args, **sample.kwargs)
        results = [result] if isinstance(result, Tensor) else [*result]
        sums = [tensor.square().sum() for tensor in results if tensor.requires_grad]
        found = torch.autograd.grad(sum(sums[1:], sums[0]), leaves, allow_unused=True)
        return [*(tensor.detach() for tensor in results), *(each for each in found if each is not None)]

    inputs = [tensor.detach().clone() for tensor in given]
    with Recorder(inputs, []) as recorder:
        outputs = step(*inputs)
    tape = recorder.tape(outputs)
    assert tape is not None, recorder.why_not
    for _ in range(2):
        others = [torch.rand_like(tensor) + 0.1 for tensor in given]
        for place, tensor in zip(tape.inputs, others, strict=True):
            place.copy_(tensor)
        tape.play()
        for played, expected in zip(tape.outputs, step(*others), strict=True):
            assert torch.equal(played, expected)


def test_relu_keeps_what_is_not_a_number_and_the_sign_of_zero() -> None:
    x = torch.tensor([-1.0, -0.0, 0.0, 2.0, torch.nan, -torch.inf, torch.inf])
    place = torch.empty_like(x)
    call_into(aten.relu.default, [x], {}, [place])()
    assert torch.equal(place.view(torch.int32), x.relu().view(torch.int32))


@pytest.mark.parametrize(
    "name", ["bmm.default", "baddbmm.default", "sum.dim_IntList", "threshold_backward.default"]
)
def test_operators_that_take_most_of_a_step_write_where_they_are_told(name: str) -> None:
    packet, overload = name.split(".")
    operator = getattr(getattr(aten, packet), overload)
    taken = [argument.name for argument in operator._schema.arguments]
    place = torch.empty(0)
    call: Any = call_into(operator, [None] * len(taken), {}, [place])
    assert place in call.keywords.values(), f"torch has no {name} any more that is told where to write"
