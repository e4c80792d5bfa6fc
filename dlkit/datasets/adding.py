"""adding: the sum of the two marked numbers in a long sequence; generated, no download.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, in the form of Le, Jaitly and
Hinton, 2015 (1504.00941): each step is a number from 0 to 1 and a mark, which is 1 at one step in each half, else 0.
The target is the sum of the two marked numbers. steps is the length. The constant prediction 1 has a mean squared error
of 1/6; the best possible is 0.
"""

from __future__ import annotations

import numpy as np

from dlkit.data.splits import About, SequenceSamples, Splits
from dlkit.data.text.ragged import row_starts
from dlkit.errors import UsageError
from dlkit.specs import SequenceSpec

GIVES = ("sequences",)
NUMBERS = True

ABOUT = About(
    title="The adding problem, generated; the target is a number",
    classes=0,
    sizes={"train": 20_000, "test": 2000},
    licence="none needed: the numbers are computed",
    citation="Hochreiter and Schmidhuber, Neural Computation 9(8), 1997",
)


def load(folder: object = None, *, train: int = 20000, test: int = 2000, steps: int = 200, seed: int = 0) -> Splits:
    """Generate both splits from `seed`; the test sequences do not depend on the size of train."""
    if not 2 <= steps <= 100_000 or min(train, test) < 1 or seed < 0:
        raise UsageError(
            "data set 'adding' takes steps from 2 to 100000, train and test ≥ 1 and seed ≥ 0; "
            f"not steps={steps}, train={train}, test={test}, seed={seed}."
        )
    spec = SequenceSpec((), features=2)
    return Splits(
        spec,
        train=draw(train, steps, np.random.default_rng([seed, 0])),
        test=draw(test, steps, np.random.default_rng([seed, 1])),
    )


def draw(count: int, steps: int, rng: np.random.Generator) -> SequenceSamples:
    """Generate `count` sequences (steps, 2): a number and its mark."""
    values = np.zeros((count, steps, 2), np.float32)
    values[:, :, 0] = rng.random((count, steps), np.float32)
    rows = np.arange(count)
    for first, last in ((0, steps // 2), (steps // 2, steps)):
        values[rows, rng.integers(first, last, count), 1] = 1
    targets = (values[:, :, 0] * values[:, :, 1]).sum(axis=1)
    return SequenceSamples(values.reshape(-1, 2), row_starts([steps] * count), targets)
