"""`python signal_at.py SIGNALS EVENT ARGUMENTS…`: run dlkit and send it signals at an event, so that no clock decides.

SIGNALS is a number, several joined by "+" (sent one after another), or a file to create, after which the program waits
at the event until a signal comes from outside. An EVENT is import:MODULE, call:MODULE:FUNCTION or point:NAME:COUNT of
atomic writes.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def send(what: str) -> None:
    if "/" not in what:
        for number in what.split("+"):
            signal.raise_signal(int(number))
        return
    from dlkit import signals

    Path(what).touch()
    limit = time.monotonic() + 60
    while not signals.requested() and time.monotonic() < limit:
        time.sleep(0.01)


def arm(event: str, act: Callable[[], None]) -> None:
    kind, target, *more = event.split(":")
    if kind == "import":
        sys.meta_path.insert(0, Finder(target, act))  # type: ignore[arg-type]
    elif kind == "call":
        module = importlib.import_module(target)
        function = getattr(module, more[0])

        def called(*arguments: Any, **options: Any) -> Any:
            act()
            return function(*arguments, **options)

        setattr(module, more[0], called)
    else:
        from dlkit import atomic_io

        counts = iter(range(int(more[0]) - 1, -1, -1))
        atomic_io.hook = lambda name: act() if name == target and next(counts, -1) == 0 else None


class Finder:
    """An importer that finds nothing, and acts once when a module is looked for."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self.name, self.act = name, act

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == self.name:
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            self.act()


if __name__ == "__main__":
    assert os.environ.get("RANK") is None
    what, event, *arguments = sys.argv[1:]
    sys.argv = ["dlkit", *arguments]
    arm(event, lambda: send(what))
    from dlkit_cli.__main__ import main

    main()
