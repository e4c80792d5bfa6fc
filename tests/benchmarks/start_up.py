"""Start-up times of whole processes, side by side: `python tests/benchmarks/start_up.py [ROUNDS]`.

    dlkit --help              against  python -c "import typer, rich, yaml"    at most 1.5 times
    a misspelt setting        against  the same                               at most 2 times
    dlkit predict one.png     against  python -c "import torch"               at most 1 s more
    … --model one.onnx        against  dlkit predict one.png                  at most a third

Each pair runs in turn, ROUNDS times; what counts is the median of the ratios (or differences) within a round. predict
uses a run of its own, an mlp trained for one epoch on shapes, and its ONNX export.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = [sys.executable, "-c", "import typer, rich, yaml"]
TORCH = [sys.executable, "-c", "import torch"]
DLKIT = str(Path(sys.executable).with_name("dlkit"))


def seconds(command: list[str], folder: str, codes: tuple[int, ...] = (0,)) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert done.returncode in codes, done.stderr
    return time.perf_counter() - begun


def pairs(ours: list[str], theirs: list[str], folder: str, rounds: int) -> list[tuple[float, float]]:
    """Both times of each round, after one round that warms the disk's cache."""
    found = [(seconds(ours, folder, (0, 2)), seconds(theirs, folder)) for _ in range(rounds + 1)]
    return found[1:]


def tell(name: str, found: list[tuple[float, float]], bound: str) -> None:
    ratios, extra = [one / other for one, other in found], [one - other for one, other in found]
    ours, theirs = (statistics.median(column) for column in zip(*found, strict=True))
    print(
        f"{name:22} {ours:6.3f} s against {theirs:6.3f} s: {statistics.median(ratios):.2f} × "
        f"({min(ratios):.2f} to {max(ratios):.2f}), {statistics.median(extra):+.2f} s   bound: {bound}"
    )


def make_run(folder: str) -> None:
    from PIL import Image

    import dlkit
    from dlkit.export.export import export

    Image.new("RGB", (28, 28), "white").save(f"{folder}/one.png")
    run = dlkit.train("mlp", dataset="shapes", epochs=1, name="a", runs_dir=f"{folder}/runs")
    export(run, output=f"{folder}/one.onnx")


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_run(folder)
        misspelt = [DLKIT, "train", "lenet5", "--dataset", "mnist", "--set", "optimizer.lrr=1"]
        tell("dlkit --help", pairs([DLKIT, "--help"], PACKAGES, folder, rounds), "1.5 ×")
        tell("a misspelt setting", pairs(misspelt, PACKAGES, folder, rounds), "2 ×")
        predict = [DLKIT, "predict", "one.png"]
        tell("dlkit predict one.png", pairs(predict, TORCH, folder, rounds), "+1 s")
        tell("… --model one.onnx", pairs([*predict, "--model", "one.onnx"], predict, folder, rounds), "0.33 ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
