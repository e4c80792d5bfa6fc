"""Axes: where values fall between 0 and 1 along one, and where its ticks stand; for pictures and for terminals."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Where values fall between 0 and 1 along an axis, and where its ticks stand."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(low: float, high: float, count: int = 6) -> Axis:
    """About `count` ticks at 1, 2 or 5 times a power of ten, the ends rounded outwards to them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """Ticks at 1, 2 and 5 times powers of ten, or at the powers alone where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) <= 4 else (1,))]
    first = max(tick for tick in every if tick <= low * 1.0001)
    last = min(tick for tick in every if tick >= high * 0.9999)
    return Axis(first, last, tuple(tick for tick in every if first <= tick <= last), log=True)
