"""Modules cross the wire as blueprint and state; a module that was here before only takes over the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedlightning.workers.remote.codecs.blueprints import after_assembly, build, pack_blueprint
from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register_family
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError
from fedlightning.workers.remote.offers import import_offered

Take: TypeAlias = Callable[[nn.Module], Any]
Give: TypeAlias = Callable[[nn.Module, Any], None]
_COMPANIONS: dict[str, tuple[Take, Give]] = {}


def accompany_modules(name: str, take: Take, give: Give) -> None:
    """Let something that a module has beside its parameters and buffers travel with it.

    Args:
        name: Names it on the wire; ``module:name``, by which the other side finds who registered it.
        take: Returns data of a module that is about to be sent, or None if it has none of this.
        give: Gives such data to a module that has arrived; the data is not trusted.
    """
    _COMPANIONS[name] = (take, give)


def _tensors(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield every parameter, then every buffer, with its holder and name; tied ones once per holder."""
    for table in ("_parameters", "_buffers"):
        for part in module.modules():
            for name, tensor in getattr(part, table).items():
                if tensor is not None:
                    yield part, name, tensor


def _pack(module: nn.Module, packer: Packer) -> list[Any]:
    travellers = packer.surroundings.travellers
    tensors = [packer.pack(_checked(tensor)) for _, _, tensor in _tensors(module)]
    blueprint = None if travellers.is_known_there(module) else pack_blueprint(module, packer)
    training = [part.training for part in module.modules()]
    companions = [
        [name, packer.pack(data)]
        for name, (take, _) in _COMPANIONS.items()
        if (data := take(module)) is not None
    ]
    return [travellers.number(module), blueprint, tensors, training, companions]


def _checked(tensor: Tensor) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        raise UnsendableError("the module is lazy and has no parameters yet: call it once before it is sent")
    return tensor


def _unpack(items: list[Any], unpacker: Unpacker) -> nn.Module:
    number, blueprint, packed, training, companions = items
    tensors = [unpacker.unpack(item) for item in packed]
    travellers = unpacker.surroundings.travellers
    module: nn.Module | None = travellers.find(number, blueprint)
    if module is None:
        module = _build(blueprint, tensors, unpacker)
        if number is not None:
            travellers.arrived(number, blueprint, module)
    else:
        load_state(module, tensors)
    _set_training(module, training)
    for name, data in companions:
        if name not in _COMPANIONS:
            import_offered(name)
        _COMPANIONS[name][1](module, unpacker.unpack(data))
    return module


def _build(blueprint: Any, tensors: list[Any], unpacker: Unpacker) -> nn.Module:
    module = build(blueprint, unpacker)
    if blueprint[0] == "of parts":
        _place(module, tensors)
    else:
        load_state(module, tensors)
    return module


def load_state(module: nn.Module, tensors: list[Any]) -> None:
    """Copy a state into a module's own parameters and buffers, gradients included.

    One without entries, where the module has some, has come without its values: the module's own stay.

    Args:
        module: A module of the same build.
        tensors: As the module was packed: parameters, then buffers.

    Raises:
        MalformedMessageError: They do not fit; nothing is changed then.
    """
    own = list(_tensors(module))
    fits = len(own) == len(tensors) and all(
        isinstance(new, Tensor) and new.dtype == old.dtype and (new.shape == old.shape or not new.numel())
        for (_, _, old), new in zip(own, tensors, strict=True)
    )
    if not fits:
        raise MalformedMessageError(
            f"the state does not fit the {type(module).__name__} that its constructor makes: the module was "
            f"changed after it was made, so save what it takes with save_hyperparameters()"
        )
    with torch.no_grad():
        for (_, _, old), new in zip(own, tensors, strict=True):
            if old is not new and new.numel():
                old.copy_(new)
    for (_, _, old), new in zip(own, tensors, strict=True):
        if old.is_leaf:
            old.requires_grad_(new.requires_grad)
            old.grad = new.grad


def _place(module: nn.Module, tensors: list[Any]) -> None:
    """Put what has arrived in the places of a module that was built of parts, without copying."""
    places = list(_tensors(module))
    if len(places) != len(tensors) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise MalformedMessageError("the state of a module does not fit its parts")
    parameters: dict[int, nn.Parameter] = {}
    for (part, name, old), new in zip(places, tensors, strict=True):
        if isinstance(old, nn.Parameter):
            if id(new) not in parameters:
                parameters[id(new)] = nn.Parameter(new.detach(), new.requires_grad)
                parameters[id(new)].grad = new.grad
            part._parameters[name] = parameters[id(new)]
        else:
            part._buffers[name] = new
    after_assembly(module)


def _set_training(module: nn.Module, training: Any) -> None:
    parts = list(module.modules())
    if type(training) is not list or len(training) != len(parts):
        raise MalformedMessageError(f"the modes of a module with {len(parts)} parts do not fit")
    for part, mode in zip(parts, training, strict=True):
        part.training = mode is True


register_family(nn.Module, "module", _pack, _unpack)
