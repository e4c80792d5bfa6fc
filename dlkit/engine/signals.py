"""SIGINT and SIGTERM as a flag that the loop polls; the second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """The first signal that came, or 0. Calling it asks."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> int:
        return self.signal

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)  # durable writes leave whole files whatever the moment
        self.signal = number


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Catch both signals for as long as the block runs. Outside the main thread Python cannot: the flag stays 0."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
