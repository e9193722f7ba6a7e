"""Processed updates turned back into parameters, where they are combined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedlightning.algorithms.combining import Combiner
from fedlightning.algorithms.postprocessing.chain import Postprocessing
from fedlightning.algorithms.postprocessing.visit import SENT
from fedlightning.algorithms.update import Update


class DecodingCombiner:
    """Decode updates before they are combined.

    Args:
        inner: Combines them.
        chain: How they were processed.
        start: The parameters that all workers started from; copied.
        trained: Positions of those that were trained.

    Example:
        >>> from fedlightning.algorithms import UpdateMean
        >>> from fedlightning.algorithms.postprocessing import Clip
        >>> combiner = DecodingCombiner(UpdateMean(), Postprocessing([Clip(norm=1.0)]), [torch.ones(1)], [0])
        >>> sent = {"update/payload": [torch.ones(1)], "update/along 0": [], "update/buffers": []}
        >>> sent |= {"update/positions": [torch.zeros(0)], "update/written": []}
        >>> combiner.add(Update([], [], [], sent), weight=1.0)
        >>> combiner.result().tensors
        [tensor([2.])]
    """

    def __init__(
        self, inner: Combiner, chain: Postprocessing, start: Sequence[Tensor], trained: Sequence[int]
    ) -> None:
        self._inner = inner
        self._chain = chain
        self._start = [tensor.detach().clone() for tensor in start]
        self._trained = trained

    def add(self, update: Update, weight: float, block: int = 0) -> None:
        """Take an update; see `Combiner`."""
        ours = {
            name.removeprefix(SENT): list(t) for name, t in update.extras.items() if name.startswith(SENT)
        }
        others = {name: t for name, t in update.extras.items() if not name.startswith(SENT)}
        tensors = self._decoded(ours)
        decoded = Update(tensors, [True] * len(tensors), ours["buffers"], others)
        self._inner.add(decoded, weight, block)

    @torch.no_grad()
    def _decoded(self, sent: dict[str, list[Tensor]]) -> list[Tensor]:
        tensors = list(self._start)
        shapes = [tuple(tensors[position].shape) for position in self._trained]
        for position, way in zip(self._trained, self._chain.decode(sent, shapes), strict=True):
            tensors[position] = tensors[position] + way.to(tensors[position].dtype)
        for position, value in zip(sent["positions"][0].int().tolist(), sent["written"], strict=True):
            tensors[position] = value
        return tensors

    def result(self) -> Update | None:
        """Return what stands for all of them; see `Combiner`."""
        return self._inner.result()
