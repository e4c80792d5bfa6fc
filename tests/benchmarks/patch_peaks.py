"""Whether explanations look where the answer is: `python tests/benchmarks/patch_peaks.py [NAMES] [--images N]`.

Every hosted CNN (or NAMES, comma-separated), as large as it is hosted, learns 32×32 images of which one patch of 8×8
pixels alone decides the class (tests/patches.py), until it tells 64 others apart. Printed is the share of N new images
(by default 20) whose map has its peak in the patch, for each method; wanted are 95 %. Squares of occlusion are as large
as the patch. One network a CPU at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

WANTED = 0.95


def cnns() -> list[str]:
    """Every hosted network that has maps in space, the one with the most multiply-adds first."""
    from dlkit import registry

    families = ("resnet", "densenet", "vgg", "alexnet", "lenet5", "simple_cnn")
    names = [name for name, entry in registry.entries("models").items() if entry.family in families]
    return sorted(names, key=_multiply_adds, reverse=True)


def _multiply_adds(name: str) -> int:
    from patches import CLASSES, OPTIONS, SIDE

    from dlkit.evaluation.model_summary import natural_spec, summarize

    return summarize(name, natural_spec(3, SIDE, SIDE, CLASSES), OPTIONS.get(name, {})).macs


def measure(name: str, images: int) -> bool:
    """Print a network's shares; returns whether all are as wanted."""
    from patches import OPTIONS, learned, patches, shares_in_patch

    from dlkit.training.memory import keep_freed

    keep_freed()
    begun = time.monotonic()
    model, steps, loss, right = learned(name, OPTIONS.get(name, {}))
    shares = shares_in_patch(model, *patches(images, seed=2))
    told = "  ".join(f"{method} {share:.3f}" for method, share in shares.items())
    seconds = time.monotonic() - begun
    print(f"{name:15} {steps:4} steps  loss {loss:.4f}  {told}  {seconds:5.0f} s", flush=True)
    return right == 1 and min(shares.values()) >= WANTED


def main(names: list[str], images: int) -> int:
    def of_its_own(name: str) -> tuple[str, int]:
        call = [sys.executable, __file__, name, "--images", str(images), "--here"]
        return name, subprocess.run(call, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = [future.result() for future in as_completed(pool.submit(of_its_own, name) for name in names)]
    below = [name for name, code in done if code != 0]
    print(f"\n{len(done) - len(below)} of {len(done)} networks with a peak in the patch for {WANTED:.0%} of images")
    if below:
        print("not:", ", ".join(sorted(below)))
    return 1 if below else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="?", default="")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--here", action="store_true", help="one network, in this process")
    asked = parser.parse_args()
    if asked.here:
        sys.exit(0 if measure(asked.names, asked.images) else 1)
    sys.exit(main(asked.names.split(",") if asked.names else cnns(), asked.images))
