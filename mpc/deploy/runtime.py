"""Exported policies on a robot: one file, checked, compiled and called, with JAX, NumPy and flatbuffers alone.

    artefact = runtime.load("planner.craik")
    state = artefact.init(observation)
    decision = artefact.step(observation, state)      # decision.action; decision.state for the next one

`mpc.export` writes the file and documents its contents; this module needs nothing of the rest of `mpc`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mpc.deploy.archive import ArtefactError, arrays, unpack
from mpc.deploy.host import on_host
from mpc.deploy.manifest import check_manifest
from mpc.deploy.programs import parse_apart, read_program
from mpc.deploy.specs import InFlight, Signal
from mpc.deploy.untrusted import refusing

OUT_OF_RANGE = "OUT_OF_RANGE"
"""Status of a plan made from an observation that is finite, but outside the range that the artefact declares for it."""


class Decision(NamedTuple):
    """One decision of an artefact.

    `action`: `[...]`, to execute now. `actions`: `[H, ...]`, the whole plan, which begins with it. `cost`: its energy.
    `status`: by name, as `mpc.Status` has it, or `OUT_OF_RANGE`. `state`: for the next decision. With a batch, all but the
    status have a leading axis, and the status is a list.
    """

    action: np.ndarray
    actions: np.ndarray
    cost: np.ndarray
    status: Any
    state: list[jax.Array]


class Artefact:
    """An exported policy, compiled: `init` an episode, then `step` again and again.

    Made by `load`. `manifest` is the file's description of itself; `observation` and `action` are its signals.
    `react(observation, state, in_flight, elapsed)` acts without planning and is called as `step` is; it is None where the
    policy has no actor.

    Args:
        manifest: As `mpc.export` wrote it.
        programs: The entry points for this platform, serialised.
        weights: Parameters by number, as the manifest lists them.

    Raises:
        ArtefactError: If the programs cannot run here, with the reason.
    """

    @on_host
    def __init__(self, manifest: dict[str, Any], programs: dict[str, bytes], weights: list[np.ndarray]) -> None:
        check_manifest(manifest)
        self.manifest = manifest
        self.observation, self.action = (Signal.rebuilt(manifest[name]) for name in ("observation", "action"))
        self.horizon, self.delay, self.period = manifest["horizon"], manifest["delay"], manifest["period"]
        self.batch: int | str | None = manifest["batch"]
        self.x64: bool = manifest.get("x64", False)
        with jax.enable_x64(self.x64):
            exported = {name: read_program(name, programs[name], manifest) for name in manifest["entries"]}
            self.weights = jax.device_put(weights)
        self._run = {name: self._in_its_precision(name, jax.jit(program.call)) for name, program in exported.items()}
        self.exported = exported
        self.react: Callable[..., Decision] | None = partial(self._decide, "react") if "react" in exported else None

    def _in_its_precision(self, name: str, program: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a program that is called as it was exported, with `jax_enable_x64` or without."""
        versions = f"JAX {self.manifest['versions'].get('jax')}, run by JAX {jax.__version__}"

        def called(*arguments: Any) -> Any:
            with jax.enable_x64(self.x64), refusing(ArtefactError, f"{name}, written by {versions}, failed"):
                return program(*arguments)

        return called

    def prepare(self, batch: int | None = None) -> "Artefact":
        """Compiles every entry point by running it once, so that no decision has to.

        Args:
            batch: Observations side by side, where the artefact leaves their number open.
        """
        seen = self.example(batch)
        state = self.init(seen)
        for decide in (self.step, self.react):
            if decide is not None:
                jax.block_until_ready(decide(seen, state).state)
        return self

    def example(self, batch: int | None = None) -> np.ndarray:
        """Returns an observation that is finite and within its bounds.

        Args:
            batch: Observations side by side, where the artefact leaves their number open.
        """
        low = np.where(np.isfinite(self.observation.low), self.observation.low, 0.0)
        shape = (*self._leading(batch), *self.observation.shape)
        return np.broadcast_to(low, shape).astype(self.observation.dtype)

    def _leading(self, batch: int | None) -> tuple[int, ...]:
        if self.batch is None:
            return ()
        if isinstance(self.batch, int):
            return (self.batch,)
        if batch is None:
            raise ArtefactError("the artefact leaves the number of observations open: say how many, prepare(batch=...)")
        return (batch,)

    @on_host
    def init(self, observation: Any, seed: int | np.integer | np.ndarray = 0) -> list[jax.Array]:
        """Begins an episode.

        Args:
            observation: Shaped as the manifest says, with a batch axis in front where it has one.
            seed: Of all randomness in the episode; or the words of a key, `[2]`, behind a batch axis where there is one.

        Returns:
            The state to give to the first `step`.

        Raises:
            ArtefactError: If the observation has another shape or holds no numbers, or the words are of another kind of key.
        """
        seen = self._fitting(observation)
        batch = len(seen) if self.batch is not None else None
        key = self.keys(int(seed), batch) if isinstance(seed, int | np.integer) else np.asarray(seed)
        wanted = (*(() if batch is None else (batch,)), self._key["words"])
        if key.shape != wanted or key.dtype != np.uint32:
            raise ArtefactError(
                f"a key's words must be uint32{list(wanted)}, of jax_default_prng_impl={self._key['implementation']!r}, "
                f"which the artefact was exported with; got {key.dtype}{list(key.shape)}"
            )
        return self._run["init"](self.weights, seen, key)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters by name: all that was learnt, and the goal and the weights of the cost."""
        names = (part["name"] for part in self.manifest["parameters"])
        return {name: np.asarray(value) for name, value in zip(names, self.weights, strict=True)}

    @on_host
    def configure(self, changes: Mapping[str, Any]) -> None:
        """Changes parameters, such as a goal or a weight, from the next decision on; nothing is compiled.

        Args:
            changes: Values by name, as `parameters` has them.

        Raises:
            ArtefactError: If there is no such parameter, or a value has another shape or is not finite; none is changed
                then.
        """
        named = {part["name"]: index for index, part in enumerate(self.manifest["parameters"])}
        after = list(self.weights)
        for name, value in changes.items():
            if name not in named:
                raise ArtefactError(f"the artefact has no parameter {name!r}; it has {', '.join(named) or 'none'}")
            before = after[named[name]]
            with refusing(ArtefactError, f"{name} cannot be {value!r}"), np.errstate(over="ignore"):
                given = np.asarray(value).astype(before.dtype)
                if given.shape != before.shape or not np.isfinite(given).all():
                    raise ArtefactError(f"{name} must be finite {before.dtype}{list(before.shape)}; got {value!r}")
            with jax.enable_x64(self.x64):
                after[named[name]] = jax.device_put(given)
        self.weights = after  # at once: another thread may be deciding

    @property
    def _key(self) -> dict[str, Any]:
        """The implementation of the PRNG keys that the programs take, and the number of their words."""
        return self.manifest.get("key", {"implementation": "threefry2x32", "words": 2})

    @on_host
    def keys(self, seed: int, batch: int | None = None) -> np.ndarray:
        """Returns randomness as the programs take it: a key's words, `[2]`, or `[B, 2]`, which differ between episodes."""
        whole = np.resize(np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32), self._key["words"])
        if batch is None:
            return whole
        key = jax.random.wrap_key_data(jax.numpy.asarray(whole), impl=self._key["implementation"])
        return np.asarray(jax.random.key_data(jax.random.split(key, batch)))

    def step(
        self, observation: Any, state: list[jax.Array], in_flight: InFlight | None = None, elapsed: int = 1
    ) -> Decision:
        """Makes one decision by planning.

        Args:
            observation: As for `init`. One that is not finite gives the next action of the last plan that was.
            state: As `init` or the last decision returned it.
            in_flight: The actions sent last; behind a batch axis `[B, D+1, ...]` where there is one, with one `count` for
                all. None where all of them are in the observation, and the last decision's action was sent.
            elapsed: Steps since the last decision was made.

        Raises:
            ArtefactError: If the observation, the state or the actions have another shape or hold no numbers, or a number is
                impossible.
            ForkedProcessError: In a process forked from one that ran compiled programs; so do all methods.
        """
        return self._decide("step", observation, state, in_flight, elapsed)

    @on_host
    def _decide(
        self, entry: str, observation: Any, state: list[jax.Array], in_flight: InFlight | None = None, elapsed: int = 1
    ) -> Decision:
        seen = self._fitting(observation)
        nothing = self.nothing_sent(len(seen) if self.batch is not None else None)
        actions, count = nothing if in_flight is None else in_flight
        actions = np.asarray(actions, nothing.actions.dtype)
        if actions.shape != nothing.actions.shape:
            raise ArtefactError(
                f"actions in flight must be of shape {list(nothing.actions.shape)}; got {list(actions.shape)}"
            )
        if not 0 <= count <= self.delay or elapsed < 1:
            raise ArtefactError(
                f"count in flight must be 0 to {self.delay} and elapsed at least 1; got {count} and {elapsed}"
            )
        self._check_state(state, len(seen) if self.batch is not None else None)
        numbers = np.int32(count), np.int32(elapsed)
        state, actions, cost, status = self._run[entry](self.weights, seen, state, actions, *numbers)
        actions, cost, code = (np.asarray(x) for x in (actions, cost, status))
        if self.batch is None:
            return Decision(actions[0], actions, cost, self._status(int(code), seen), state)
        statuses = [self._status(int(c), one) for c, one in zip(code, seen, strict=True)]
        return Decision(actions[:, 0], actions, cost, statuses, state)

    def _status(self, code: int, seen: np.ndarray) -> str:
        names = self.manifest["statuses"]
        if not 0 <= code < len(names):
            raise ArtefactError(f"the program returned status {code}, and the manifest names {len(names)}")
        within = ((seen >= self.observation.low) & (seen <= self.observation.high)).all()
        return names[code] if within or names[code] == "NOT_FINITE" else OUT_OF_RANGE

    def _check_state(self, state: list[Any], batch: int | None) -> None:
        shapes = [tuple(batch if isinstance(n, str) else n for n in part["shape"]) for part in self.manifest["state"]]
        if not isinstance(state, list | tuple) or [np.shape(part) for part in state] != shapes:
            many = "" if batch is None else f" for {batch} observations"
            raise ArtefactError(f"the state must be one of this artefact's{many}, as init and the last decision return it")

    def nothing_sent(self, batch: int | None = None) -> InFlight:
        """Returns the actions in flight where none was sent yet."""
        kind = np.dtype(self.action.dtype)
        nothing = np.nan if kind.kind == "f" else self.action.low
        shape = (self.delay + 1, *self.action.shape) if batch is None else (batch, self.delay + 1, *self.action.shape)
        return InFlight(np.broadcast_to(nothing, shape).astype(kind), np.int32(0))

    def _fitting(self, observation: Any) -> np.ndarray:
        try:
            seen = np.asarray(observation, self.observation.dtype)
        except (TypeError, ValueError) as error:
            raise ArtefactError(f"an observation must be numbers; got {type(observation).__name__} ({error})") from error
        wanted = self.observation.shape
        shape = seen.shape if self.batch is None else seen.shape[1:]
        if shape != wanted or (isinstance(self.batch, int) and len(seen) != self.batch):
            leading = "" if self.batch is None else f" behind a batch axis of {self.batch}"
            raise ArtefactError(f"an observation must be of shape {list(wanted)}{leading}; got {list(seen.shape)}")
        return seen


def load(path: str | os.PathLike[str], *, sha256: str | None = None, prepare: bool = True) -> Artefact:
    """Reads an artefact, checks every byte of it, and compiles it for this machine.

    Machine code is kept in the user's folder of compiled programs (`CRAIK_CACHE`), so that later processes need not compile.

    Args:
        path: The file that `mpc.export` or `craik export` wrote.
        sha256: Of the whole file, where it is known from elsewhere; hashes within the file reveal damage, not forgery.
            Without it, programs are parsed in another process first, which takes a second: forged ones may crash the parser.
        prepare: Whether to compile now, where the number of observations is known; else the first calls do.

    Raises:
        ArtefactError: If the file is missing, foreign, damaged, of another format, platform, or not the one expected.
    """
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read: {error}") from error
    return loads(data, name=str(path), sha256=sha256, prepare=prepare)


def here(manifest: dict[str, Any]) -> str:
    """Returns the platform of this process, by its name in artefacts.

    Raises:
        ArtefactError: If the artefact is not for it.
    """
    name = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if name not in manifest["platforms"]:
        raise ArtefactError(f"the artefact is for {', '.join(manifest['platforms'])}; this process runs on {name}")
    return name


def loads(data: bytes, *, name: str = "the artefact", sha256: str | None = None, prepare: bool = True) -> Artefact:
    """Loads an artefact as `load` does, from bytes."""
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256.lower():
        raise ArtefactError(f"{name} has SHA-256 {hashlib.sha256(data).hexdigest()}, and {sha256} was expected")
    manifest, members = unpack(data, name)
    check_manifest(manifest)
    platform = here(manifest)
    names = {entry: f"{platform}/{entry}" for entry in manifest["entries"]}
    if missing := {"weights.npz", *names.values()} - set(members):
        raise ArtefactError(f"{name} lacks {', '.join(sorted(missing))}")
    weights = arrays(members["weights.npz"], manifest["parameters"])
    if sha256 is None:  # or else nobody can have changed it
        parse_apart(members[member] for member in names.values())
    made = Artefact(manifest, {entry: members[member] for entry, member in names.items()}, weights)
    return made.prepare() if prepare and not isinstance(made.batch, str) else made
