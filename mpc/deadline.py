"""Deadlines: iterations in chunks, each begun only if it and the conclusion are expected to end in time.

The clock is read between two chunks. A chunk that is under way is not interrupted, so its size follows from the slowest
iteration seen so far and from the time that is left.
"""

import time
from collections.abc import Callable
from typing import Any

import jax

INSTANT = 1e-9  # s, the least an iteration is taken to last, as clocks have a resolution


class Pace:
    """The slowest iteration and the slowest conclusion seen, and the loop that fits iterations into the time left.

    Args:
        clock: Seconds.
        forgetting: Share of the slowest time that is kept from one chunk to the next, so that one hiccup does not cost
            iterations for ever.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, forgetting: float = 0.99) -> None:
        self.clock, self.forgetting = clock, forgetting
        self.iteration = self.conclusion = 0.0  # seconds

    def improve(
        self,
        improve: Callable[[Any, int], tuple[Any, Any]],
        working: Any,
        *,
        end: float,
        iterations: int,
        chunk: int = 1,
        growing: bool = False,
    ) -> tuple[Any, int]:
        """Improves in chunks until the iterations are spent, the search has converged or the time is up.

        Args:
            improve: `(working, count) -> (working, made)`: spends `count` iterations, or fewer where the search converges.
            working: Where to begin.
            end: When the conclusion must have ended, by the clock.
            iterations: Number of iterations to spend at most. At least one chunk of them is spent.
            chunk: Iterations between two looks at the clock.
            growing: Whether chunks may be larger where there is time: each as large as fits into half of the time left, as
                the pace varies and a last chunk that is too long ends too late.

        Returns:
            The improved `working`, and the number of iterations made.
        """
        spent, count, now = 0, chunk, self.clock()
        while count > 0 and spent < iterations:
            count = min(count, iterations - spent)
            working, made = jax.block_until_ready(improve(working, count))
            before, now = now, self.clock()
            made = int(made)
            self.iteration = max((now - before) / max(made, 1), self.forgetting * self.iteration)
            spent += made
            if made < count:
                break
            count = chunk * self._chunks_that_fit(end - now, chunk, growing)
        return working, spent

    def conclude(self, conclude: Callable[[], Any]) -> Any:
        """Calls a function that ends a decision, and measures how long it takes."""
        begun = self.clock()
        made = jax.block_until_ready(conclude())
        self.conclusion = max(self.clock() - begun, self.forgetting * self.conclusion)
        return made

    def _chunks_that_fit(self, left: float, chunk: int, growing: bool) -> int:
        fit = (left - self.conclusion) / (chunk * max(self.iteration, INSTANT))
        if not growing:
            return int(fit >= 1)
        return int(fit) if fit < 2 else int(fit / 2)
