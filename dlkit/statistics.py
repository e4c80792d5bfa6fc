"""Intervals and tests for accuracies, each test with the interval that belongs to it. No torch.

An `Estimate` never contradicts itself: its interval excludes 0 if and only if its p value is below 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
LEVEL = 0.05  # of every test


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate(Interval):
    """A difference, its 95 % interval, and the two-sided p value of "there is no difference"."""

    p_value: float


def wilson(correct: int, total: int) -> Interval:
    """A proportion with its 95 % score interval (Wilson 1927); of nothing, the interval is [0, 1] and the value NaN."""
    if total == 0:
        return Interval(math.nan, 0.0, 1.0)
    p = correct / total
    scale = 1 + Z95**2 / total
    center = (p + Z95**2 / (2 * total)) / scale
    half = Z95 / scale * math.sqrt(p * (1 - p) / total + Z95**2 / (4 * total**2))
    return Interval(p, min(p, max(0.0, center - half)), max(p, min(1.0, center + half)))


def clopper_pearson_upper(errors: int, total: int, alpha: float) -> float:
    """The largest rate with which so few errors occur with a probability of at least alpha: its upper bound.

    Exact (Clopper and Pearson 1934); one-sided, at the level 1 - alpha.
    """
    if errors >= total:
        return 1.0
    low, high = errors / total, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        probability = 1 - _incomplete_beta(errors + 1, total - errors, middle)  # of at most so many errors
        low, high = (middle, high) if probability >= alpha else (low, middle)
    return high


def matched_difference(better: int, worse: int, total: int) -> Estimate:
    """The difference of two proportions over the same samples, (better - worse) / total.

    better counts the samples that only the first got right, worse those that only the second did. The interval is
    Tango's score interval (1998), the p value McNemar's mid-p (Fagerland, Lydersen and Laake 2013). In the rare case
    that one of the two excludes "no difference" and the other does not, neither does: the interval is extended to 0,
    or p is that of the score test.
    """
    low, high = (_score_bound(better, worse, total, z) for z in (Z95, -Z95))
    p_value, value = mcnemar(better, worse), (better - worse) / total
    if p_value >= LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:
        p_value = max(LEVEL, math.erfc(abs(better - worse) / math.sqrt(2 * (better + worse))))
    return Estimate(value, low, high, p_value)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided mid-p value of McNemar's test: how unevenly a fair coin would split the samples that disagree."""
    n, k = only_first + only_second, min(only_first, only_second)
    term, tail = 1, 0
    for i in range(k + 1):  # Σ C(n, i) for i ≤ k, in whole numbers
        tail += 2 * term
        last, term = term, term * (n - i) // (i + 1)
    return min(1.0, _ratio(tail - last, n))


def student(differences: Sequence[float], resolution: float = 0.0) -> Estimate:
    """The mean of two or more differences, one per pair, with Student's t (1908).

    resolution is the step of the measurement, 1 / N for an accuracy over N samples: values that agree may differ by as
    much, so the variance is never taken to be below that of the rounding of both.
    """
    count = len(differences)
    assert count > 1, "one difference has no spread"
    variance = max(_variance(differences), resolution**2 / 6)
    return _t_estimate(math.fsum(differences) / count, variance / count, count - 1)


def welch(first: Sequence[float], second: Sequence[float], resolution: float = 0.0) -> Estimate:
    """The mean of `second` minus the mean of `first`, two or more values each, with Welch's t (1947)."""
    assert min(len(first), len(second)) > 1, "one value has no spread"
    shares = [max(_variance(values), resolution**2 / 12) / len(values) for values in (first, second)]
    error = sum(shares)
    freedoms = sum(share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True))
    difference = math.fsum(second) / len(second) - math.fsum(first) / len(first)
    return _t_estimate(difference, error, error**2 / freedoms if freedoms else len(first) + len(second) - 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for there being several (Holm 1979): below 0.05 still bounds any false claim by 5 %."""
    order, adjusted, highest = sorted(range(len(p_values)), key=p_values.__getitem__), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def expected_maximum(count: int) -> float:
    """The mean of the largest of `count` standard normal draws: 0, 0.564, 0.846, 1.029 …"""

    def tail(x: float) -> float:  # P(max > x) for x > 0, less P(max < -x)
        upper = math.erfc(x / math.sqrt(2)) / 2
        return -math.expm1(count * math.log1p(-upper)) - upper**count

    grid = [step * 0.002 for step in range(5001)]  # to 10 standard deviations
    return math.fsum((tail(a) + tail(b)) / 2 * (b - a) for a, b in pairwise(grid))


def student_t95(freedom: float) -> float:
    """The 97.5 % point of Student's t: 95 % lie within ± it."""
    low, high = 0.0, 2.0
    while t_test(high, freedom) > LEVEL:
        low, high = high, 2 * high
    for _ in range(52):  # to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if t_test(middle, freedom) > LEVEL else (low, middle)
    return low


def t_test(t: float, freedom: float) -> float:
    """The two-sided p value of a t statistic; the degrees of freedom may be a fraction."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _t_estimate(value: float, squared_error: float, freedom: float) -> Estimate:
    error = math.sqrt(squared_error)
    if error == 0:
        return Estimate(value, value, value, float(value == 0))
    half, p_value = student_t95(freedom) * error, t_test(value / error, freedom)
    return Estimate(value, value - half, value + half, p_value)


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _score_bound(better: int, worse: int, total: int, z: float) -> float:
    """The difference at which the score statistic is z, which falls as the difference grows."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(better, worse, total, middle) > z else (low, middle)
    return (low + high) / 2


def _score(better: int, worse: int, total: int, difference: float) -> float:
    """Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, 1998: the observed minus the supposed difference, in its standard errors."""
    b = (2 * total - better + worse) * difference - better - worse
    c = -worse * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 8 * total * c, 0.0)) - b) / (4 * total)  # P(only the second is right)
    variance = total * (2 * q + difference * (1 - difference))
    distance = better - worse - total * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by Lentz's continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny, c, d = 1e-300, 1.0, 0.0
    fraction = 1.0
    for m in range(1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)) if m else 1.0
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for coefficient in (even, odd):
            d = 1 / (1 + coefficient * d or tiny)
            c = 1 + coefficient / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * (fraction - 1)


def _ratio(count: int, flips: int) -> float:
    """count / 2^flips, where both may be larger than a float can hold."""
    excess = max(0, count.bit_length() - 64)
    return float(count >> excess) * 2.0 ** (excess - flips)
