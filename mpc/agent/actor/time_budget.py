"""Which of two modes acts: Mode 2 plans, Mode 1 reacts; a budget of time decides between them.

Planning is chosen as long as the median of how long recent decisions by planning took is within the budget. Where it is not,
it is tried again after a while: a machine that was busy may not be any more.

Source: LeCun (2022), A Path Towards Autonomous Machine Intelligence, section 3.1.
"""

from collections import defaultdict, deque
from statistics import median
from typing import Literal

Mode = Literal["plan", "react"] | float
"""How to decide: by planning, by the actor alone, or within so many milliseconds by whichever there is time for."""
REMEMBERED, PATIENCE = 9, 100
"""Plans whose durations count, and decisions without one after which planning is tried again."""


class Budget:
    """How long planning has been taking, by kind of decision: how many at once, or an episode's first."""

    def __init__(self) -> None:
        self._taken: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._compiled: set[int] = set()
        self._refused = 0

    def plans(self, mode: Mode, kind: int) -> bool:
        """Whether to plan.

        Args:
            mode: As it was asked for.
            kind: Of decision: plans of one kind take as long as each other.

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

    def spent(self, kind: int, milliseconds: float) -> None:
        """Remember how long a decision by planning took; the first of each kind, which compiles, does not count.

        Args:
            kind: Of decision.
            milliseconds: It took.
        """
        if kind in self._compiled:
            self._taken[kind].append(milliseconds)
        self._compiled.add(kind)
