"""What a researcher writes by hand with `torch.func` for the workloads: steps of many workers in one call.

The second baseline of `benchmarks.simulation`; the first is the loop in `workloads`. No Lightning, plain SGD.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from benchmarks.workloads import LEARNING_RATE, Mean, Orders, Workload

# The whole cohort of W1, W3 and W4: smaller chunks took longer. Convolutions gain nothing from company.
NUMBERS_PER_CHUNK = 10_000_000

Stack = dict[str, Tensor]


def by_vmap(
    work: Workload, net: nn.Module, dataset: TensorDataset, orders: Orders, *, compiles: bool = False
) -> None:
    """Train as a researcher would by hand with `torch.func`, in place.

    Args:
        work: What is trained; its workers have equally many samples.
        net: The network.
        dataset: Its samples.
        orders: Which samples each visit sees, in which order.
        compiles: Whether a step, update included, is compiled.
    """

    def loss(parameters: Stack, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, parameters, (x,)), y)

    def step(parameters: Stack, x: Tensor, y: Tensor) -> Stack:
        gradients = vmap(grad(loss))(parameters, x, y)
        return {name: value.sub_(gradients[name], alpha=LEARNING_RATE) for name, value in parameters.items()}

    taken = step
    if compiles:
        # Graphs belong to the code, of which there is one: those of a few trainings before would be too many.
        torch.compiler.reset()
        taken = torch.compile(step)
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    for visits in orders.rounds:
        mean = Mean()
        for chunk in torch.split(torch.stack(visits), chunk_size(net)):
            stack = {
                name: value.expand(len(chunk), *value.shape).clone() for name, value in parameters.items()
            }
            for x, y in _batches(chunk, work, dataset):
                stack = taken(stack, x, y)
            mean.add([value.mean(0) for value in stack.values()], len(chunk))
        torch._foreach_copy_(list(parameters.values()), mean.tensors)


def chunk_size(net: nn.Module) -> int:
    """Return how many workers take a step together."""
    if any(isinstance(layer, nn.Conv2d) for layer in net.modules()):
        return 1
    return max(1, NUMBERS_PER_CHUNK // sum(parameter.numel() for parameter in net.parameters()))


def _batches(chunk: Tensor, work: Workload, dataset: TensorDataset) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = (torch.split(values[chunk], work.batch_size, dim=1) for values in dataset.tensors)
    return zip(x, y, strict=True)
