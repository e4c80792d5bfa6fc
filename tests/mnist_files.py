"""MNIST's files: made up, or the local copy beside the project where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dlkit.data.download import idx

MNIST_HERE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def made_up_mnist(place: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (60, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 60).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (10, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 10).astype(np.uint8),
    }
    for name, values in arrays.items():
        (place / name).write_bytes(idx.encode(values))
    return arrays
