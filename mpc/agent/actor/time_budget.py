"""Time budget: Mode 2 plans while its recent decisions fit the budget, else Mode 1 reacts.

Planning is chosen while the median duration of recent plans is within the budget. Afterwards it is tried again now and then:
a machine that was busy may not be any more.

An agent without an actor spends fewer iterations instead: as many as fit the budget at the median duration of one.

Source: LeCun (2022), A Path Towards Autonomous Machine Intelligence, section 3.1.
"""

from collections import defaultdict, deque
from collections.abc import Hashable
from statistics import median
from typing import Literal

Mode = Literal["plan", "react"] | float
"""Manner of a decision: by planning, by the actor alone, or within so many milliseconds by whichever there is time for."""
REMEMBERED, PATIENCE = 9, 100
"""Plans whose durations count, and decisions without one after which planning is tried again."""


class TimeBudget:
    """Chooses between planning and reacting by how long recent plans took, by kind of decision."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._each: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._compiled: set[Hashable] = set()
        self._refused = 0

    def plans(self, mode: Mode, kind: Hashable) -> bool:
        """Return whether to plan in a `mode` of `predict`; plans of one kind take about as long as each other.

        Raises:
            ValueError: If there is no such mode.
        """
        if mode in ("plan", "react"):
            return mode == "plan"
        if isinstance(mode, str | bool) or not mode > 0:
            raise ValueError(f"mode must be 'plan', 'react', or a positive number of milliseconds; got {mode!r}")
        taken = self._taken[kind]
        if not taken or median(taken) <= mode:
            return True
        self._refused += 1
        if self._refused % PATIENCE == 0:
            taken.clear()
        return False

    def iterations(self, kind: Hashable, most: int, milliseconds: float) -> int:
        """Return how many iterations to spend on a plan that may take so long, between 1 and `most`."""
        each = self._each[kind]
        return most if not each else int(min(max(milliseconds / max(median(each), 1e-9), 1), most))

    def spent(self, kind: Hashable, milliseconds: float, iterations: int = 1) -> None:
        """Record how long a plan of so many iterations took; the first of each kind, which compiles, does not count."""
        if kind in self._compiled:
            self._taken[kind].append(milliseconds)
            self._each[kind].append(milliseconds / max(iterations, 1))
        self._compiled.add(kind)
