"""Datasets of tensors cross the wire as their tensors; a subset as its own rows, and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from fedlightning.workers.remote.codecs.packing import Packer, Unpacker
from fedlightning.workers.remote.codecs.registry import register, register_family
from fedlightning.workers.remote.errors import MalformedMessageError, UnsendableError


def rows_of(dataset: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a `TensorDataset`, or of a `Subset` of one: only its own rows, copied.

    Args:
        dataset: Of exactly these types, since a subclass may transform its samples.

    Returns:
        Tensors of the same first dimension, in the order of the samples.

    Raises:
        UnsendableError: It is another dataset.
    """
    if type(dataset) is TensorDataset:
        return dataset.tensors
    if type(dataset) is Subset:
        rows = torch.as_tensor(dataset.indices, dtype=torch.int64)
        return tuple(tensor[rows] for tensor in rows_of(dataset.dataset))
    raise UnsendableError(
        f"a dataset of class {type(dataset).__name__} cannot be sent: copy it into a "
        f"torch.utils.data.TensorDataset, or load it at the worker by a program (worker.start)"
    )


def _pack(value: Any, packer: Packer) -> list[Any]:
    return [packer.pack(tensor) for tensor in rows_of(value)]


def _unpack(items: list[Any], unpacker: Unpacker) -> TensorDataset:
    tensors = [unpacker.unpack(item) for item in items]
    if not tensors or not all(isinstance(tensor, Tensor) and tensor.dim() for tensor in tensors):
        raise MalformedMessageError("a dataset of tensors consists of tensors with a first dimension")
    if len({len(tensor) for tensor in tensors}) != 1:
        raise MalformedMessageError("the tensors of a dataset differ in their number of samples")
    return TensorDataset(*tensors)


register(TensorDataset, "dataset", _pack, _unpack)
register_family(Dataset, "subset", _pack, _unpack)
