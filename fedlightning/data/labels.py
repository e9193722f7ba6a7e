"""Finds the labels, or any other column, of a dataset by the conventions of its library.

How labels decide where samples go lives in `fedlightning.data.partition`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from fedlightning.data.map_style import MapStyle

Values: TypeAlias = npt.NDArray[Any]
Column: TypeAlias = str | int | Values | torch.Tensor | Sequence[Any] | Callable[[Any], Any]

LABEL_NAMES = ("targets", "labels", "label", "y")
_CLASS_KINDS = "iubUSO"  # NumPy kinds: integers, booleans, strings, objects


def find_labels(dataset: MapStyle, labels: Column | None = None) -> Values:
    """Return one class label per sample, without reading samples.

    Looked for, in this order: what the caller gives as ``labels``; the last tensor of a `TensorDataset`; an
    attribute or Hugging Face column called targets, labels, label or y. `Subset` and `ConcatDataset` of
    such datasets are followed.

    Args:
        dataset: A map-style dataset of N samples.
        labels: Where to look instead: an array of shape ``(N,)``, a column's name or the position of a
            tensor in a `TensorDataset`, or a function from the dataset to such an array.

    Returns:
        Integers, booleans or strings of shape ``(N,)``.

    Raises:
        ValueError: If no labels are found, or if they are no classes (floating-point, or not 1-D).

    Example:
        >>> find_labels(TensorDataset(torch.zeros(3, 2), torch.tensor([1, 0, 1])))
        array([1, 0, 1])
    """
    values = _own_labels(dataset) if labels is None else find_column(dataset, labels)
    if values is None:
        raise ValueError(
            f"labels=None, and no labels were found on dataset={type(dataset).__name__}: it is no "
            f"TensorDataset and has none of {', '.join(LABEL_NAMES)}. Give the partitioner labels=: an "
            "array with one label per sample, or a function that makes one from the dataset."
        )
    return _check_classes(values)


def known_labels(dataset: MapStyle) -> Values | None:
    """Return one class label per sample where the dataset shows any by itself, else None.

    Args:
        dataset: A map-style dataset of N samples.

    Returns:
        Integers, booleans or strings of shape ``(N,)``; None for other targets, or none.
    """
    values = _own_labels(dataset)
    return values if values is not None and values.ndim == 1 and values.dtype.kind in _CLASS_KINDS else None


def find_column(dataset: MapStyle, column: Column) -> Values:
    """Return one value per sample of a column that the caller names or gives.

    Args:
        dataset: A map-style dataset of N samples.
        column: The values themselves, shape ``(N,)``; the name of an attribute or Hugging Face column; the
            position of a tensor in a `TensorDataset`; or a function from the dataset to the values.

    Returns:
        An array of shape ``(N,)``.

    Raises:
        ValueError: If there is no such column, or if it does not have one value per sample.
    """
    if isinstance(column, str | int):
        values = _stored(dataset, column)
        if values is None:
            raise ValueError(
                f"column={column!r} was not found on dataset={type(dataset).__name__}. Give the name of "
                "one of its attributes, the position of a tensor in a TensorDataset, or the values "
                "themselves: an array with one value per sample."
            )
    else:
        values = _as_array(column(dataset) if callable(column) else column)
    if values.shape != (len(dataset),):
        raise ValueError(
            f"Expected one value per sample, an array of shape ({len(dataset)},) for "
            f"dataset={type(dataset).__name__}; got shape {values.shape}."
        )
    return values


def _own_labels(dataset: Any) -> Values | None:
    if isinstance(dataset, Subset):
        return _take(_own_labels(dataset.dataset), dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return _join([_own_labels(part) for part in dataset.datasets])
    if isinstance(dataset, TensorDataset):
        return _as_array(dataset.tensors[-1])
    found = (_stored(dataset, name) for name in LABEL_NAMES)
    return next((values for values in found if values is not None and len(values) == len(dataset)), None)


def _stored(dataset: Any, column: str | int) -> Values | None:
    """Read a column off the dataset itself or, for a part of one, off the whole."""
    if isinstance(column, int):
        if isinstance(dataset, TensorDataset) and -len(dataset.tensors) <= column < len(dataset.tensors):
            return _as_array(dataset.tensors[column])
    elif column in (getattr(dataset, "column_names", None) or ()):
        return _as_array(dataset[column])
    elif hasattr(dataset, column) and not callable(getattr(dataset, column)):
        return _as_array(getattr(dataset, column))
    if isinstance(dataset, Subset):
        return _take(_stored(dataset.dataset, column), dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return _join([_stored(part, column) for part in dataset.datasets])
    return None


def _take(values: Values | None, indices: Sequence[int]) -> Values | None:
    return None if values is None else values[np.asarray(indices, dtype=np.int64)]


def _join(parts: Sequence[Values | None]) -> Values | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def _as_array(values: Any) -> Values:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _check_classes(labels: Values) -> Values:
    if labels.ndim != 1:
        raise ValueError(
            f"labels must be one class per sample, shape (N,); got shape {labels.shape}. For one-hot or "
            "several labels per sample give labels= with one class each, such as `one_hot.argmax(1)`."
        )
    if labels.dtype.kind not in _CLASS_KINDS:
        raise ValueError(
            f"labels must be classes (integers, booleans or strings), got {labels.dtype}. For regression "
            "give labels= with bins, such as `numpy.digitize(y, numpy.quantile(y, [0.25, 0.5, 0.75]))`."
        )
    return labels
