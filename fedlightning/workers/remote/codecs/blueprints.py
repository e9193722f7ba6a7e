"""How a module is built, apart from its state: by its class and what it was constructed with, never by code.

A module that knows its constructor arguments (Lightning's ``save_hyperparameters``) is built by them. Any
other is built of its parts: class, plain attributes and children, as torch's own layers can be.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError

# What nn.Module keeps for itself. Parameters and buffers are state, and hooks are code.
_INTERNAL = frozenset(vars(nn.Module())) - {"training"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Rebuilt by the layer itself from its parameters.
_REBUILT = frozenset({"_flat_weights", "_flat_weight_refs"})


def pack_blueprint(module: nn.Module, packer: Packer, seen: dict[int, int] | None = None) -> list[Any]:
    """Make plain items of how a module is built.

    Args:
        module: The module.
        packer: Of the message.
        seen: Numbers of the parts that are packed already, for a part that is used twice.

    Raises:
        UnsendableError: It cannot be built elsewhere; says what to do.
    """
    seen = {} if seen is None else seen
    if id(module) in seen:
        return ["again", seen[id(module)]]
    seen[id(module)] = len(seen)
    for name in _HOOKS:
        if getattr(module, name):
            raise UnsendableError(
                f"this {type(module).__name__} has hooks, which are code and do not travel: remove them, or "
                f"run it at the worker by pointers (module.send(worker))"
            )
    path = _path(module, packer)
    arguments = saved_arguments(module)
    if arguments is not None:
        return ["constructed", path, packer.pack(arguments)]
    return ["of parts", path, *_pack_parts(module, packer, seen)]


def build(item: Any, unpacker: Unpacker, built: list[nn.Module] | None = None) -> nn.Module:
    """Build a module by plain items that have arrived. Its state is to be loaded after.

    Args:
        item: The blueprint; not trusted.
        unpacker: Of the message.
        built: The parts that are built already, in order.

    Raises:
        MalformedMessageError: It cannot be built.
    """
    built = [] if built is None else built
    if type(item) is list and item[:1] == ["again"]:
        return built[item[1]]
    if type(item) is not list or len(item) < 3:
        raise MalformedMessageError("the blueprint of a module has at least three items")
    how, path, *rest = item
    kind = unpacker.surroundings.names.find(path)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise MalformedMessageError(f"{path!r} is no module class")
    if how == "constructed":
        module = _construct(kind, unpacker.unpack(*rest))
        built.append(module)
        return module
    return _assemble(kind, rest, unpacker, built)


def saved_arguments(module: nn.Module) -> dict[str, Any] | None:
    """Return what a module was constructed with, if it keeps a record of it.

    Args:
        module: Any module; one with a mapping ``hparams`` keeps one, or needs none.

    Returns:
        Arguments by name; None if it keeps no record.

    Raises:
        UnsendableError: The record lacks arguments.
    """
    saved = getattr(module, "hparams", None)
    if not isinstance(saved, Mapping):
        return None
    parameters = inspect.signature(type(module)).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [name for name in names if name not in saved]
    if missing or any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        raise UnsendableError(
            f"{type(module).__name__} does not know what it was constructed with ({', '.join(missing)}), so "
            f"it cannot be built elsewhere: call self.save_hyperparameters() in its __init__"
        )
    return {name: value for name, value in saved.items() if takes_any or name in names}


def _path(module: nn.Module, packer: Packer) -> str:
    try:
        return packer.surroundings.names.name(type(module))
    except UnsendableError as error:
        raise UnsendableError(f"a module of class {type(module).__name__} cannot be sent: {error}") from None


def _pack_parts(module: nn.Module, packer: Packer, seen: dict[int, int]) -> list[Any]:
    attributes = {
        name: value for name, value in vars(module).items() if name not in _INTERNAL and name not in _REBUILT
    }
    packed = [[name, _pack_attribute(module, name, value, packer)] for name, value in attributes.items()]
    persistent = [
        [name, name not in module._non_persistent_buffers_set, buffer is not None]
        for name, buffer in module._buffers.items()
    ]
    parameters = [[name, parameter is not None] for name, parameter in module._parameters.items()]
    children = [
        [name, None if child is None else pack_blueprint(child, packer, seen)]
        for name, child in module._modules.items()
    ]
    return [packed, parameters, persistent, children]


def _pack_attribute(module: nn.Module, name: str, value: Any, packer: Packer) -> Any:
    try:
        return packer.pack(value)
    except UnsendableError as error:
        raise UnsendableError(
            f"{type(module).__name__}.{name} cannot be sent ({error}). Make the module a LightningModule "
            f"that calls self.save_hyperparameters(), build it at the worker by a program, or run it op by "
            f"op with module.send(worker)"
        ) from error


def _construct(kind: type[nn.Module], arguments: Any) -> nn.Module:
    if not hasattr(kind, "hparams"):
        raise MalformedMessageError(f"{kind.__name__} keeps no record of its arguments: it is built of parts")
    try:
        return kind(**arguments)
    except Exception as error:
        raise MalformedMessageError(
            f"{kind.__name__} cannot be constructed here: {type(error).__name__}: {error}"
        ) from error


def _assemble(
    kind: type[nn.Module], parts: list[Any], unpacker: Unpacker, built: list[nn.Module]
) -> nn.Module:
    attributes, parameters, buffers, children = parts
    module: nn.Module = kind.__new__(kind)
    nn.Module.__init__(module)
    built.append(module)
    for name, item in attributes:
        if type(name) is not str or name in _INTERNAL or name.startswith("__"):
            raise MalformedMessageError(f"{name!r:.80} is no attribute of a module that may be sent")
        vars(module)[name] = unpacker.unpack(item)
    for name, present in parameters:
        module.register_parameter(name, nn.Parameter(_placeholder()) if present else None)
    for name, persistent, present in buffers:
        module.register_buffer(name, _placeholder() if present else None, persistent=persistent is True)
    for name, item in children:
        module.add_module(name, None if item is None else build(item, unpacker, built))
    return module


def _placeholder() -> Tensor:
    # Replaced when the state is loaded: a blueprint says which tensors there are, not how large.
    return Tensor()


def after_assembly(module: nn.Module) -> None:
    """Let layers find their parameters again, once these are in place.

    Recurrent layers keep a list of their own; they are asked by a private method, here and nowhere else.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part._init_flat_weights()
