"""What keeping freed memory saves: `python tests/benchmarks/kept_memory.py [MODEL] [BATCH] [ROUNDS]`.

Steps of a network on made-up images of 3 × 32 × 32 on the CPU, ResNet-20 at batch 128 unless told, with and without
memory.keep_freed. Each is a process of its own, the two in turn, ROUNDS times; the median of the ratios within a
round is what counts.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

SKIPPED, STEPS = 4, 25


def measured(model_name: str, batch: int, kept: bool) -> dict[str, float]:
    import torch
    from torch.nn.functional import cross_entropy

    from dlkit.specs import ImageSpec
    from dlkit.training import memory
    from dlkit.training.restore import build

    if kept:
        memory.keep_freed()
    spec = ImageSpec(3, 32, 32, tuple("0123456789"), (0.5,) * 3, (0.5,) * 3)
    model = build(model_name, spec, {}).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (batch,))
    for step in range(SKIPPED + STEPS):
        if step == SKIPPED:
            begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), targets).backward()
        optimizer.step()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_s": STEPS * batch / (time.perf_counter() - begun),
        "faults": (usage.ru_minflt - before) / STEPS,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def main(model_name: str, batch: int, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(rounds):
        for way in found:
            command = [sys.executable, __file__, model_name, str(batch), "--way", way]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[way].append(json.loads(done.stdout))
    for way, rows in found.items():
        speed, faults, peak = (statistics.median(row[key] for row in rows) for key in rows[0])
        print(
            f"{model_name}  {way:10}  {speed:7,.0f} images/s  {faults:7,.0f} page faults a step  peak {peak:,.0f} MiB"
        )
    ratios = [a["images_per_s"] / b["images_per_s"] for a, b in zip(found["kept"], found["given back"], strict=True)]
    print(f"kept / given back: {statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if "--way" in sys.argv:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), sys.argv[-1] == "kept")))
    else:
        given = [*sys.argv[1:], *("resnet20", "128", "5")[len(sys.argv) - 1 :]]
        main(given[0], int(given[1]), int(given[2]))
