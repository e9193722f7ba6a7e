"""Optimizers cross the wire as class, settings and state; their parameters by where the module was sent."""

from __future__ import annotations

import inspect
from typing import Any

from torch.optim import Optimizer

from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register_family
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError


def parameters_of(module: Any) -> list[Any]:
    """Return the parameters of a module in the order in which messages count them."""
    return list(module.parameters())


def _pack(optimizer: Optimizer, packer: Packer) -> list[Any]:
    surroundings = packer.surroundings
    path = surroundings.names.name(type(optimizer))
    groups, parameters = [], []
    for group in optimizer.param_groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        groups.append([len(group["params"]), packer.pack(settings)])
        parameters += group["params"]
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    unknown = [key for key in optimizer.state if id(key) not in numbers]
    if unknown:
        raise UnsendableError("the optimizer keeps state of parameters that it does not hold: make it anew")
    state = [[numbers[id(key)], packer.pack(dict(value))] for key, value in optimizer.state.items()]
    travellers = surroundings.travellers
    places = None if travellers.is_known_there(optimizer) else [_place(p, packer) for p in parameters]
    return [travellers.number(optimizer), path, packer.pack(dict(optimizer.defaults)), groups, places, state]


def _place(parameter: Any, packer: Packer) -> list[int]:
    place = packer.surroundings.place_of(parameter)
    if place is None:
        raise UnsendableError(
            f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that is not at the worker: "
            f"send its module first, with worker.send(module)"
        )
    return list(place)


def _unpack(items: list[Any], unpacker: Unpacker) -> Optimizer:
    number, path, defaults, groups, places, state = items
    sizes = [size for size, _ in groups]
    settings = [unpacker.unpack(item) for _, item in groups]
    travellers = unpacker.surroundings.travellers
    optimizer = travellers.find(number, None) if places is None else None
    if optimizer is None:
        parameters = [_find(place, unpacker) for place in _checked_places(places)]
        optimizer = _make(path, unpacker.unpack(defaults), sizes, settings, parameters, unpacker)
        if number is not None:
            travellers.arrived(number, None, optimizer)
    else:
        # It has stepped elsewhere, which schedulers would else warn of.
        optimizer._opt_called = True
    _load(optimizer, settings, [[number, unpacker.unpack(item)] for number, item in state])
    return optimizer


def _checked_places(places: Any) -> list[Any]:
    if type(places) is not list:
        raise MalformedMessageError("an optimizer that was made elsewhere cannot come without its parameters")
    return places


def _find(place: Any, unpacker: Unpacker) -> Any:
    object_id, position = place
    parameters = parameters_of(unpacker.surroundings.find(object_id))
    if type(position) is not int or not 0 <= position < len(parameters):
        raise MalformedMessageError(f"object {object_id} has no parameter {position!r:.40}")
    return parameters[position]


def _make(
    path: Any,
    defaults: Any,
    sizes: list[Any],
    settings: list[Any],
    parameters: list[Any],
    unpacker: Unpacker,
) -> Optimizer:
    kind = unpacker.surroundings.names.find(path)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)) or kind is Optimizer:
        raise MalformedMessageError(f"{path!r} is no optimizer class")
    rest = iter(parameters)
    groups = [
        {**group, "params": [next(rest) for _ in range(size)]}
        for size, group in zip(sizes, settings, strict=True)
    ]
    accepted = inspect.signature(kind).parameters
    # Some classes keep settings among their defaults that their constructor does not take.
    made: Optimizer = kind(groups, **{name: value for name, value in defaults.items() if name in accepted})
    return made


def _load(optimizer: Optimizer, settings: list[Any], state: list[Any]) -> None:
    if len(settings) != len(optimizer.param_groups):
        raise MalformedMessageError(f"the optimizer has {len(optimizer.param_groups)} groups of parameters")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group, new in zip(optimizer.param_groups, settings, strict=True):
        group.update({name: value for name, value in new.items() if name != "params"})
    optimizer.state.clear()
    for number, values in state:
        if type(number) is not int or not 0 <= number < len(parameters) or type(values) is not dict:
            raise MalformedMessageError(f"the optimizer has no parameter {number!r:.40} to keep state of")
        optimizer.state[parameters[number]] = values


register_family(Optimizer, "optimizer", _pack, _unpack)
