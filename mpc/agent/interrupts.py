"""Interrupts and progress bars: learning ends between two steps when asked to, and shows how far it is."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM wait for the step under way; they are raised where what is yielded here is called, or at the end.

    Raised at once, they would be swallowed by a finaliser that happened to run, or leave the buffer whose memory a step has
    given up. A second signal is raised at once all the same. Only the main thread may ask for signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []

    def stop(number: int, *_: Any) -> None:
        received.append(number)
        if len(received) > 1:
            check()

    def check() -> None:
        if received:
            raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(143)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
        check()  # of what came after the last look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, or none; the function yielded here advances it."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import Progress as Bar

    with Bar(transient=True) as shown_bar:
        task = shown_bar.add_task("learning", total=total)
        yield lambda steps: shown_bar.update(task, advance=steps)
