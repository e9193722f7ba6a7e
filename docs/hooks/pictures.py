"""Draw the pages' pictures while the site is built, with the library's own plots; none is kept in git.

MkDocs calls `on_files`. The pages themselves are Markdown, one folder up.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import BytesIO, StringIO

from matplotlib.figure import Figure
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fedlightning.data import (
    IID,
    ClassesPerWorker,
    Dirichlet,
    FeatureNoise,
    FeatureRotation,
    Partitioner,
    PowerLaw,
    TwoShards,
)
from fedlightning.data.datasets import load_digits
from fedlightning.data.plots import count_labels, plot_label_bars, plot_label_heatmap

WORKERS = 10
PARTITIONS: dict[str, Partitioner] = {
    "IID()": IID(),
    "Dirichlet(alpha=1.0)": Dirichlet(alpha=1.0),
    "Dirichlet(alpha=0.1)": Dirichlet(alpha=0.1),
    "Dirichlet(alpha=0.1, balanced=True)": Dirichlet(alpha=0.1, balanced=True),
    "TwoShards()": TwoShards(),
    "PowerLaw(exponent=1.0)": PowerLaw(exponent=1.0),
}


def draw_partitions() -> Figure:
    """Draw six ways to divide the same digits over ten workers, side by side."""
    digits = load_digits().train
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(3, 2).flat
    for axis, (name, partitioner) in zip(axes, PARTITIONS.items(), strict=True):
        plot_label_bars(count_labels(digits, partitioner.split(digits, WORKERS)), axis)
        axis.set_title(name)
        legend = axis.get_legend()
        # One legend is enough for all.
        if axis is not figure.axes[1] and legend is not None:
            legend.remove()
    return figure


def draw_heatmap() -> Figure:
    """Draw who has how many of which digit, where each worker has exactly three classes."""
    digits = load_digits().train
    figure, _ = plot_label_heatmap(count_labels(digits, ClassesPerWorker(3).split(digits, WORKERS)))
    return figure


def draw_features() -> Figure:
    """Draw the first digit of eight workers: with noise that grows, and turned by quarters."""
    digits = load_digits().train
    skews = {"FeatureNoise(0.3)": FeatureNoise(0.3), "FeatureRotation()": FeatureRotation()}
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for row, (name, skew) in zip(figure.subplots(2, 8), skews.items(), strict=True):
        partition = skew.split(digits, 8)
        for worker, axis in enumerate(row):
            image, _ = partition.part(digits, worker)[0]
            axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[], title=f"worker {worker}")
        row[0].set_ylabel(name, fontsize=8)
    return figure


def draw_leakage() -> Figure:
    """Draw what the script on leakage draws."""
    with redirect_stdout(StringIO()):
        figure: Figure = runpy.run_path("examples/gradient_leakage.py", run_name="gradient_leakage")["draw"]()
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "pictures/partitions.svg": draw_partitions,
    "pictures/classes.svg": draw_heatmap,
    "pictures/features.svg": draw_features,
    "pictures/leakage.svg": draw_leakage,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures to the files of the site."""
    for file in _drawn(config):
        files.append(file)
    return files


def _drawn(config: MkDocsConfig) -> Iterator[File]:
    for path, draw in PICTURES.items():
        buffer = BytesIO()
        # No date: the same sources make the same site.
        draw().savefig(buffer, format="svg", metadata={"Date": None})
        yield File.generated(config, path, content=buffer.getvalue())
