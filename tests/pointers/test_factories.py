"""Modules that are not watched when they are sent make no tensor in their forward: by torch's own samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.testing._internal.common_modules import ModuleInfo, module_db
from typing_extensions import override

from fedlightning.pointers.factories import WITHOUT_FACTORIES
from fedlightning.pointers.operations import FACTORIES

_CALLS: dict[type[nn.Module], tuple[nn.Module, tuple[int, ...]]] = {
    # Those of which torch's database has no samples.
    nn.Sequential: (nn.Sequential(nn.ReLU()), (2,)),
    nn.Identity: (nn.Identity(), (2,)),
    nn.Flatten: (nn.Flatten(), (2, 3, 4)),
    nn.Unflatten: (nn.Unflatten(1, (2, 2)), (3, 4)),
    nn.Dropout: (nn.Dropout(), (2, 3)),
    nn.Dropout1d: (nn.Dropout1d(), (2, 3, 4)),
    nn.Dropout2d: (nn.Dropout2d(), (2, 3, 4, 4)),
    nn.Dropout3d: (nn.Dropout3d(), (2, 3, 4, 4, 4)),
}


class Recorder(TorchFunctionMode):
    """Remember which factories are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[Callable[..., Any]] = set()

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in FACTORIES.values():
            self.called.add(func)
        return func(*args, **(kwargs or {}))


def factories_called_by_samples(info: ModuleInfo, training: bool) -> tuple[int, set[Callable[..., Any]]]:
    recorder, count = Recorder(), 0
    samples = info.module_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=training
    )
    for sample in samples:
        make, call = sample.constructor_input, sample.forward_input
        module = info.module_cls(*make.args, **make.kwargs).train(training)
        with recorder:
            module(*call.args, **call.kwargs)
        count += 1
    return count, recorder.called


@pytest.mark.parametrize("training", [True, False])
def test_they_call_no_factory(training: bool) -> None:
    samples = {info.module_cls: info for info in module_db}
    for kind in WITHOUT_FACTORIES - _CALLS.keys():
        count, called = factories_called_by_samples(samples[kind], training)
        assert count > 0, kind
        assert not called, kind


@pytest.mark.parametrize("training", [True, False])
def test_those_without_samples_call_no_factory_either(training: bool) -> None:
    assert _CALLS.keys() <= WITHOUT_FACTORIES
    for module, shape in _CALLS.values():
        module.train(training)
        x = torch.empty(shape)
        with Recorder() as recorder:
            module(x)
        assert not recorder.called, module


def test_an_lstm_does_and_is_watched() -> None:
    samples = {info.module_cls: info for info in module_db}
    assert torch.zeros in factories_called_by_samples(samples[nn.LSTM], training=True)[1]
    assert nn.LSTM not in WITHOUT_FACTORIES
