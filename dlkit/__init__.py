"""dlkit: the classic networks, trained right, from the shell or from Python.

import dlkit
run = dlkit.train("lenet5", dataset="mnist", epochs=3)
print(dlkit.evaluate(run).metrics["top1"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlkit import privacy

if TYPE_CHECKING:
    from dlkit.verbs.evaluate import evaluate as evaluate
    from dlkit.verbs.explain import explain as explain
    from dlkit.verbs.predict import predict as predict
    from dlkit.verbs.train import train as train

__version__ = "0.1.0"
__all__ = ["evaluate", "explain", "predict", "train"]

privacy.apply()


def __getattr__(name: str) -> Any:
    # The verbs import torch; `import dlkit` alone must not.
    if name not in __all__:
        raise AttributeError(f"module 'dlkit' has no attribute {name!r}")
    value = getattr(import_module(f"dlkit.verbs.{name}"), name)
    globals()[name] = value
    return value
