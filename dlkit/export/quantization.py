"""Quantization of an ONNX network to 8-bit weights and activations, by onnxruntime's tools.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018
(1712.05877), after training (static): the ranges of the activations are those of calibration images. Weights have one
scale per output channel; preprocessing and the link function are unchanged.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dlkit.export.formats import onnx as exporter
from dlkit.export_metadata import ExportMetadata
from dlkit.inference.classifier import Pixels

KINDS = ("int8",)
# Operators that compute in 8 bits, and those between them that only move or select values.
OPERATORS = (
    "Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Reshape",
    "Flatten", "Transpose",
)  # fmt: skip
BATCH = 16  # calibration images


def quantize(data: bytes, about: ExportMetadata, images: Pixels, folder: Path) -> bytes:
    """The exported file in int8; `images` (N, C, H, W) are training images. Temporary files are in `folder`."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class CalibrationReader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = _batches(images)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=folder) as name, _silence():
        source, prepared, result = (Path(name) / f"{stage}.onnx" for stage in ("float", "prepared", "int8"))
        source.write_bytes(data)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared, result, CalibrationReader(), op_types_to_quantize=list(OPERATORS), per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        proto = onnx.load_model(result)
    return exporter.serialize(proto, about.with_(precision="int8"))


def _batches(images: Pixels) -> Iterator[dict[str, Any]]:
    for start in range(0, len(images), BATCH):
        yield {"images": np.ascontiguousarray(images[start : start + BATCH].transpose(0, 2, 3, 1))}


@contextmanager
def _silence() -> Iterator[None]:
    """onnxruntime's tools log to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
