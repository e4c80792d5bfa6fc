"""What several test files share: a tiny trained run, and a cache of the tests' own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlkit.engine.run_folder import RunFolder

# One thread, also in the processes that tests start: tiny models gain nothing from two and lose much on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the person who runs it, or goes to the network."""
    monkeypatch.setenv("DLKIT_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("DLKIT_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """An mlp after one epoch over a few hundred shapes."""
    import dlkit

    runs_dir: Path = tmp_path_factory.mktemp("tiny") / "runs"
    yield dlkit.train(
        "mlp",
        dataset="shapes",
        epochs=1,
        batch_size=32,
        settings={"data.options.train": 320, "data.options.test": 160, "model.options.hidden": "32"},
        name="tiny",
        runs_dir=runs_dir,
    )
