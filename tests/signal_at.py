"""`python signal_at.py SIGNALS EVENT ARGUMENTS…`: run dlkit and send it signals at an event, so that no clock decides.

`python signal_at.py --serve` does so for each line of JSON that it reads, in a fork of a process that has imported
torch and started no thread: {"folder": F, "out": FILE, "err": FILE, "words": [SIGNALS, EVENT, ARGUMENTS…]}. It answers
with the exit code. An import: event needs a process of its own.

SIGNALS is a number, several joined by "+" (sent one after another), or a file to create, after which the program waits
at the event until a signal comes from outside. An EVENT is import:MODULE, call:MODULE:FUNCTION or point:NAME:COUNT of
atomic writes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM = ("dlkit_cli.main", "dlkit.training.train", "dlkit.evaluation.evaluate", "matplotlib.backends.backend_agg")


def send(what: str) -> None:
    if "/" not in what:
        for number in what.split("+"):
            signal.raise_signal(int(number))
        return
    from dlkit import signals

    Path(what).touch()
    limit = time.monotonic() + 600
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


def serve() -> list[str]:
    """Fork for each request; returns in the child alone, with its words."""
    for module in WARM:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(request["folder"])
            for descriptor, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), descriptor)
            return list(request["words"])
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit()


if __name__ == "__main__":
    assert os.environ.get("RANK") is None
    what, event, *arguments = serve() if sys.argv[1:] == ["--serve"] else sys.argv[1:]
    sys.argv = ["dlkit", *arguments]
    arm(event, lambda: send(what))
    from dlkit_cli.__main__ import main

    main()
