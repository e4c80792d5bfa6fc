"""dlkit: the classic networks, trained right, from the shell or from Python.

import dlkit
run = dlkit.train("lenet5", dataset="mnist", epochs=3)
print(dlkit.evaluate(run).metrics["top1"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlkit import privacy
from dlkit.version import __version__ as __version__

if TYPE_CHECKING:
    from dlkit.evaluation.evaluate import evaluate as evaluate
    from dlkit.evaluation.load import load as load
    from dlkit.evaluation.predict import predict as predict
    from dlkit.explanation.explain import explain as explain
    from dlkit.training.train import train as train

MODULES = {
    "evaluate": "dlkit.evaluation.evaluate",
    "explain": "dlkit.explanation.explain",
    "load": "dlkit.evaluation.load",
    "predict": "dlkit.evaluation.predict",
    "train": "dlkit.training.train",
}
__all__ = ["evaluate", "explain", "load", "predict", "train"]

privacy.apply()


def __getattr__(name: str) -> Any:
    # These modules import torch; `import dlkit` alone must not.
    if name not in __all__:
        raise AttributeError(f"module 'dlkit' has no attribute {name!r}")
    value = getattr(import_module(MODULES[name]), name)
    globals()[name] = value
    return value
