"""craik as one namespace: `craik.mpc`, `craik.world_models` and `craik.envs`, imported when they are first asked for."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import envs
    import mpc
    import world_models

    __version__: str

__all__ = ["__version__", "envs", "mpc", "world_models"]


def __getattr__(name: str) -> ModuleType | str:
    if name == "__version__":
        return importlib.import_module("mpc").__version__
    if name not in __all__:
        raise AttributeError(f"module 'craik' has no attribute {name!r}")
    return importlib.import_module(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
