"""The tables that `dlkit models list` reads instead of importing torch: `python tests/network_tables.py` writes them.

dlkit/networks.csv has the sizes of dlkit's own networks and torchvision's, dlkit/published_weights.csv the weights that
torchvision publishes. tests/models/test_torchvision_family.py compares both with their sources.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from torchvision import models as torchvisions

import dlkit
from dlkit import published, registry
from dlkit.evaluation.model_summary import ModelSummary, summarize

ROOT = Path(dlkit.__file__).parent
SIZES = ROOT / "networks.csv"


def architectures() -> list[str]:
    """The names of torchvision's networks for classification."""
    return sorted(torchvisions.list_models(module=torchvisions))


def published_rows() -> list[list[str]]:
    rows = [["architecture", "weights", "file", "resize", "crop", "interpolation", "mean", "std", "top1", "top5"]]
    for name in architectures():
        every = torchvisions.get_model_weights(name)
        default = every.DEFAULT  # type: ignore[attr-defined]
        classifiers = [weights for weights in every if weights.meta["categories"]]  # VGG-16 has one of features alone
        for weights in sorted(classifiers, key=lambda one: one.name != default.name):
            preset, accuracy = weights.transforms(), weights.meta["_metrics"]["ImageNet-1K"]
            rows.append([
                name, weights.name, weights.url.rpartition("/")[2], str(preset.resize_size[0]),
                str(preset.crop_size[0]), preset.interpolation.value, " ".join(map(str, preset.mean)),
                " ".join(map(str, preset.std)), f"{accuracy['acc@1'] / 100:.5f}", f"{accuracy['acc@5'] / 100:.5f}",
            ])  # fmt: skip
    return rows


def size_row(summary: ModelSummary) -> list[str]:
    return [summary.name, str(summary.parameters), str(summary.macs), "×".join(map(str, summary.input))]


def trained_networks() -> list[str]:
    """Every network that is trained by gradients, torchvision's after dlkit's own."""
    own = [name for name in registry.entries("models") if not hasattr(registry.load("models", name), "fit")]
    return [*own, *(f"torchvision/{name}" for name in architectures())]


def as_csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    published.TABLE.write_text(as_csv(published_rows()), encoding="utf-8")
    sizes = [["name", "parameters", "macs", "input"], *(size_row(summarize(name)) for name in trained_networks())]
    SIZES.write_text(as_csv(sizes), encoding="utf-8")
