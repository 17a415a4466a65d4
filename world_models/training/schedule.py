"""The schedule of trainings: as often as experience grows, between a most and a least frequency."""

import math


def trainings(steps: int, *, every: int, growth: float, least: float) -> int:
    """Return how many trainings are due after so many environment steps; fewer as experience grows, down to a floor.

        n(t) = t / every  up to  t₀ = every / growth,        n(t) = (1 + ln(t / t₀)) / growth  up to  t₁ = 1 / (growth least)
        n(t) = n(t₁) + (t - t₁) least  from there

    Args:
        steps: Environment steps t.
        every: Fewest of them between two trainings.
        growth: Least growth of experience between two trainings; 0 for as many late as early.
        least: Trainings per step below which growth does not let them fall; 0 for no floor, at most 1 / every.
    """
    turn, least = every / growth if growth else math.inf, min(least, 1 / every)
    late = max(1 / (growth * least), turn) if growth and least else math.inf
    grown = min(steps, late)
    found = grown / every if grown <= turn else (1 + math.log(grown / turn)) / growth
    return int(found + (steps - grown) * least)
