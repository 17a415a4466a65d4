"""The border between a process and what it compiled: forks and transfers."""

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")
_state = {"in use": False, "forked": False}


class ForkedProcessError(RuntimeError):
    """Compiled programs are run in a process forked from one that ran some, where they would wait for ever."""


def check_process() -> None:
    """Notes that this process runs compiled programs.

    Raises:
        ForkedProcessError: If it was forked from one that did: XLA's threads are not forked with it.
    """
    if _state["forked"]:
        raise ForkedProcessError(
            "this process was forked from one that had run compiled programs, whose threads it lacks: start it afresh, with "
            "multiprocessing.get_context('spawn'), and build controllers, agents and artefacts in it"
        )
    _state["in use"] = True


if hasattr(os, "register_at_fork"):  # where processes fork at all
    os.register_at_fork(after_in_child=lambda: _state.update(forked=_state["in use"]))


def on_host(function: Callable[P, R]) -> Callable[P, R]:
    """A function outside of compiled programs that calls them: it refuses forked processes and may transfer arrays.

    Observations and actions pass between host and device by design, whatever `jax.transfer_guard` says of other code.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        check_process()
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return called
