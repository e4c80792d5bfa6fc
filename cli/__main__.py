"""The program `dlkit`, and `python -m dlkit_cli`: signals are handled before anything slow is imported."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from dlkit import signals


def main() -> None:
    """The console script."""
    signals.guard_process()
    try:
        from .main import main as command_line

        command_line()
    except KeyboardInterrupt as stop:  # while it is imported, or a second one while it ends
        code = getattr(stop, "exit_code", 130)
        signals.end_process(code)
        if sys.stderr is not None:
            with suppress(OSError):
                os.write(2, f"dlkit: {stop}\n".encode())
        sys.exit(code)


if __name__ == "__main__":
    main()
