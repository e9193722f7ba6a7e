"""Survey operations with hostile arguments: ``python -m tests.workers.hostile [part of a name]``."""

from __future__ import annotations

import sys
from collections import Counter

import torch
from torch.utils._pytree import tree_map

from fedlightning.workers.blank_memory import WORKER_OPERATIONS
from tests.workers.hostile import fence
from tests.workers.hostile.mutations import mutated
from tests.workers.hostile.samples import Call, record
from tests.workers.hostile.schemas import made_up
from tests.workers.hostile.trial import try_all


def main() -> None:
    """Begin again behind the fence, and print what was found."""
    if not fence.is_up():
        raise SystemExit(fence.run_behind("-m", "tests.workers.hostile", *sys.argv[1:]))
    survey(sys.argv[1] if len(sys.argv) > 1 else "")


def survey(part: str) -> None:
    """Print each operation that does harm, with one call that does it, and how many were tried."""
    recorded, tried, harm = record(), Counter[str](), 0
    for operation in sorted(WORKER_OPERATIONS):
        # A method and a function of one name are one kernel.
        twin = operation.replace("torch.Tensor.", "torch.")
        if part not in operation or (twin != operation and twin in WORKER_OPERATIONS):
            continue
        groups = [list(mutated(call)) for call in recorded.get(operation, ())]
        groups.append([("made up", call) for call in made_up(operation)])
        for variants in groups:
            tried[operation] += len(variants)
            harm += _try(variants)
    untried = sorted(operation for operation, count in tried.items() if not count)
    print(f"{len(tried) - len(untried)} operations, {sum(tried.values())} calls, {harm} kinds of harm")
    print(f"not tried, for want of samples: {' '.join(untried) or 'none'}")


def _try(variants: list[tuple[str, Call]]) -> int:
    """Make calls, print what harm they do, and return how many kinds of it."""
    found = try_all([call for _, call in variants])
    for word in sorted(set(found.values())):
        numbers = [number for number, said in found.items() if said == word]
        said, call = variants[numbers[0]]
        print(f"{call.operation}: {word}, {len(numbers)} times, such as {said}")
        print(f"    {_shown(call)}", flush=True)
    return len(set(found.values()))


def _shown(call: Call) -> str:
    def short(leaf: object) -> object:
        return f"<{leaf.dtype} {list(leaf.shape)}>" if isinstance(leaf, torch.Tensor) else leaf

    args, kwargs = tree_map(short, (call.args, call.kwargs))
    return f"{args} {kwargs}"


if __name__ == "__main__":
    main()
