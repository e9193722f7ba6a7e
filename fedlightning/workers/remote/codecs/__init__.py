"""What crosses the wire and as what: plain values, tensors, modules, optimizers, exceptions, policies.

How a message is cut into bytes is in `frames`. Importing this registers all that the workers' layer sends;
layers above register more.
"""

from __future__ import annotations

from fedlightning.workers.remote.codecs import (
    datasets,
    exceptions,
    modules,
    optimizers,
    policies,
    values,
)

__all__ = ["datasets", "exceptions", "modules", "optimizers", "policies", "values"]
