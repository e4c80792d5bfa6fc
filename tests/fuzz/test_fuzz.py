"""Fuzzing: mutated files of every kind that dlkit reads give an answer or one line of error with its own exit code.

`make fuzz N=5000` runs more examples; its seed is printed, and SEED=… repeats it. The tiers of `make test` and
`make test-all` are the same examples each time.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from fuzz_data import DATA
from fuzz_models import MODELS
from hypothesis import HealthCheck, Phase, given, settings
from law import Target, memory, obey

MORE = os.environ.get("DLKIT_FUZZ_EXAMPLES")  # set by `make fuzz`
FEW, MANY = 5, 200
both_tiers = pytest.mark.parametrize(
    "examples", [FEW, pytest.param(int(MORE or MANY), marks=pytest.mark.slow)], ids=["few", "many"]
)


def check(target: Target, examples: int) -> None:
    outcomes: Counter[bool] = Counter()

    @settings(
        max_examples=examples, derandomize=MORE is None, database=None, deadline=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(target.mutants)
    def read(data: bytes) -> None:
        outcomes[obey(target.read, data)] += 1

    assert all(obey(target.read, data) for data in target.valid)
    with memory():
        read()
    print(f"{outcomes.total()} examples: {outcomes[True]} accepted, {outcomes[False]} refused")


@pytest.mark.parametrize("name", DATA)
@both_tiers
def test_bytes_that_describe_data_are_read_or_refused(name: str, examples: int, tmp_path: Path) -> None:
    check(DATA[name](tmp_path), examples)


@pytest.mark.parametrize("name", MODELS)
@both_tiers
def test_bytes_of_models_and_runs_are_read_or_refused(
    name: str, examples: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    check(MODELS[name](tmp_path, request.getfixturevalue), examples)
