"""Interrupts and progress bars: learning ends between two steps when asked to, and shows how far it is."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

ENDS = 4.0
"""Seconds from SIGTERM to the end of the process: half of them for the step under way, half for a checkpoint."""


@contextmanager
def interruptible(save: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM wait for the step under way; they are raised where what is yielded here is called, or at the end.

    Raised at once, they would be swallowed by a finaliser that happened to run, or leave the buffer whose memory a step has
    given up. A second signal is raised at once all the same. Only the main thread may ask for signals. A step may compile
    for minutes, in which Python hears nothing: a thread hears SIGTERM then, saves, and ends the process within `ENDS`
    seconds.

    Args:
        save: Saves what is there, in another thread; None for nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received: list[int] = []
    heard = threading.Event()

    def stop(number: int, *_: Any) -> None:
        received.append(number)
        if len(received) > 1:
            check()

    def check() -> None:
        if received:
            heard.set()
            raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(143)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _ending(heard, save):
            yield check
        check()  # of what came after the last look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


LINE_PERIOD = 10.0
"""Seconds between two lines of progress, where the output is no terminal."""


@contextmanager
def _ending(heard: threading.Event, save: Callable[[], None] | None) -> Iterator[None]:
    """Context manager in which SIGTERM ends the process in time, unless the main thread hears of it.

    Args:
        heard: Set by the main thread when it raises.
        save: See `interruptible`.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    other = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    if other != -1:  # an event loop's, which goes first
        signal.set_wakeup_fd(other)

    def wait() -> None:
        while number := os.read(ours, 1):
            if number[0] == signal.SIGTERM and not heard.wait(ENDS / 2):
                end = threading.Timer(ENDS / 2, lambda: heard.is_set() or os._exit(143))
                end.daemon = True
                end.start()
                with suppress(Exception):  # a step under way may have given its memory up
                    if save is not None:
                        save()
                if not heard.is_set():
                    os._exit(143)

    thread = threading.Thread(target=wait, name="craik SIGTERM", daemon=True)
    thread.start()
    try:
        yield
    finally:
        heard.set()
        if other == -1:
            signal.set_wakeup_fd(-1)
        os.close(theirs)
        thread.join()
        os.close(ours)


@contextmanager
def bar(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Progress on standard error, or none; the function yielded here advances it.

    A terminal or a notebook is shown a bar. Anything else (a file, a pipe, a job's log) is given a line every `LINE_PERIOD`
    seconds.

    Args:
        total: Steps to take.
        shown: Whether to show progress.
    """
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(total)
        return
    with Bar(console=console, transient=True) as shown_bar:
        task = shown_bar.add_task("learning", total=total)
        yield lambda steps: shown_bar.update(task, advance=steps)


def _lines(total: int) -> Callable[[int], None]:
    """A function that counts steps, and prints a line now and then: how many, of how many, and the time left."""
    begun, done, due = time.monotonic(), 0, time.monotonic() + LINE_PERIOD

    def advance(steps: int) -> None:
        nonlocal done, due
        done, now = done + steps, time.monotonic()
        if now < due and done < total:
            return
        due = now + LINE_PERIOD
        passed = now - begun
        left = passed * max(total - done, 0) / max(done, 1)
        print(f"learning: {done:,} of {total:,}, {passed:.0f} s passed, {left:.0f} s left", file=sys.stderr, flush=True)

    print(f"learning: 0 of {total:,}; the first steps wait for compiling", file=sys.stderr, flush=True)
    return advance
