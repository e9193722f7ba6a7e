"""What a module logs to the Trainer is heard, and logged all the same."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch

from fedlightning.local.overhearing import overheard_logs


def test_numbers_are_heard_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(L.LightningModule, "log", lambda self, *args, **kwargs: logged.append((args, kwargs)))
    module, loss = L.LightningModule(), torch.tensor([2.0], requires_grad=True)
    with overheard_logs(module) as heard:
        module.log("loss", loss, prog_bar=True)
        module.log("step", 1)
        module.log("step", 3)
    module.log("later", 4.0)
    loss.data += 1
    assert [(value.name, value.value.item()) for value in heard.values] == [("loss", 2.0), ("step", 3.0)]
    assert heard.values[0].value.shape == ()
    assert not heard.values[0].value.requires_grad
    assert [args[0] for args, _ in logged] == ["loss", "step", "step", "later"]
    assert logged[0][1] == {"prog_bar": True}


def test_what_cannot_be_logged_is_not_heard() -> None:
    def refuse(self: L.LightningModule, name: str, value: Any) -> None:
        raise ValueError(name)

    class Refuses(L.LightningModule):
        log = refuse

    module = Refuses()
    with overheard_logs(module) as heard, pytest.raises(ValueError, match="loss"):
        module.log("loss", 1.0)
    assert heard.values == ()
