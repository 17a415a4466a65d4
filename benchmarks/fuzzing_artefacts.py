"""Fuzzing of artefacts: damaged ones with hashes repaired must load, or raise `ArtefactError`, and nothing else.

`python -m benchmarks.fuzzing_artefacts` damages the manifest, the programs, the weights or the archive of a small planner,
seals the result as a forger would, and loads it and decides with it in a separate process. It writes
`benchmarks/results/fuzzing_artefacts.json`, and exits with 1 if a process died, hung or raised another error, or took more
memory than twice the artefact and 64 MiB.
"""

import io
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

import mpc
from benchmarks.provenance import invoked, provenance
from mpc.deploy import runtime
from mpc.deploy.archive import fingerprint, sealed

KINDS = ("manifest", "program", "weights", "archive")
WEIGHTS = (35, 45, 10, 10)
SECONDS = 60
"""Time of one case after which it counts as hung."""
ALLOWED = 64 << 20
"""Bytes of memory beyond twice the artefact that refusing one may take."""


@dataclass
class Options:
    """Options of the benchmark."""

    cases: int = 1_000_000
    """Number of damaged artefacts."""
    seed: int = 0
    """Seed of the damage."""
    seconds: float = float("inf")
    """Time after which no further case is begun."""
    out: Path = Path(__file__).parent / "results" / "fuzzing_artefacts.json"
    """File of the results."""


def small() -> bytes:
    """Returns an artefact whose programs compile fast."""
    problem = mpc.Problem(
        lambda params, state, action: state + 0.1 * params["gain"] * action,
        lambda params, state, action, t: state @ state,
        horizon=2,
        action_space=mpc.Box([-1.0], [1.0]),
    )
    policy = mpc.policy(mpc.gradient(problem, starts=1), iterations=1)
    return mpc.export(policy, {"gain": np.float32(1.0)}, np.zeros(1), delay=1, period=0.1, platforms=("cpu",))


def sealed_with(manifest: dict[str, Any], members: dict[str, bytes]) -> bytes:
    """Returns an artefact of a manifest and members, with all hashes right."""
    prints = {name: fingerprint(content) for name, content in members.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        files = {"files": prints} if isinstance(manifest.get("files"), dict) else {}
        for name, content in {"manifest.json": sealed(manifest | files), **members}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def damaged(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Returns the kind of damage, and a damaged artefact whose hashes are right where they can be.

    Args:
        rng: Random number generator.
        data: An artefact.
    """
    kind = rng.choices(KINDS, WEIGHTS)[0]
    if kind == "archive":
        return kind, flipped(rng, data)
    manifest, members = runtime.unpack(data)
    if kind == "manifest":
        for _ in range(rng.randrange(1, 3)):
            change(rng, manifest)
    else:
        names = [name for name in members if (name == "weights.npz") == (kind == "weights")]
        name = rng.choice(names)
        members[name] = flipped(rng, members[name])
    return kind, sealed_with(manifest, members)


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Returns bytes of which a few are others, or a part is missing, doubled or from elsewhere."""
    found, way = bytearray(data), rng.randrange(6)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 40))
    if way == 0:
        del found[start:end]
    elif way == 1:
        found[start:start] = data[start:end]
    elif way == 2:
        other = rng.randrange(len(data))
        found[start:end] = data[other : other + end - start]
    else:
        for _ in range(rng.randrange(1, 4)):
            found[rng.randrange(len(found))] = rng.choice([rng.randrange(256), 0, 255, 1])
    return bytes(found)


def change(rng: random.Random, document: Any) -> None:
    """Changes one value somewhere in a JSON document, in place."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = rng.choice(keys)
        inner = document[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
            break
        document = inner
    if isinstance(document, dict) and rng.random() < 0.2:
        del document[key]
    else:
        texts = ["", "nan", "inf", "float64", "int32", "bfloat16", "O", "cuda", "step", "-1", "x" * 1000]
        numbers = [-1, 0, 1, 2, 3, 10**6, 2**31, 2**63, 10**400, 0.5, -1e308, 1e308]
        document[key] = rng.choice([None, True, False, [], {}, [1], {"a": 1}, [[]], [10**12], *texts, *numbers])


def use(data: bytes) -> None:
    """Loads an artefact and decides with it."""
    artefact = runtime.loads(data)
    seen = artefact.example(1 if isinstance(artefact.batch, str) else None)
    artefact.step(seen, artefact.init(seen))


class Target(NamedTuple):
    """Something to fuzz: `damaged(rng, data) -> kind, data`, `use(data)`, and the one error that `use` may raise."""

    damaged: Callable[[random.Random, bytes], tuple[str, bytes]]
    use: Callable[[bytes], None]
    refusal: type[Exception]

    def attempt(self, data: bytes) -> str:
        """Uses what may be damaged; returns what came of it."""
        try:
            self.use(data)
        except self.refusal:
            return "refused"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__} at {Path(place.filename).name}:{place.name}: {str(error)[:80]}"
        return "loaded"

    def case(self, data: bytes, seed: int, index: int) -> tuple[str, bytes]:
        """Returns a case by its number."""
        return self.damaged(random.Random(f"{seed} {index}"), data)


ARTEFACTS = Target(damaged, use, runtime.ArtefactError)


def _run(target: Target, data: bytes, seed: int, first: int, last: int, report: int) -> None:
    """Runs cases in this process, each announced before and reported after on a pipe."""
    target.attempt(data)  # whatever compiling takes for the first time, it takes now
    for index in range(first, last):
        kind, bad = target.case(data, seed, index)
        os.write(report, f"begun {index} {kind}\n".encode())
        signal.alarm(SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = target.attempt(bad)
        signal.alarm(0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        fat = outcome == "refused" and grown > 2 * len(bad) + ALLOWED
        os.write(report, (json.dumps([index, "too much memory" if fat else outcome]) + "\n").encode())


def campaign(
    target: Target, data: bytes, cases: int, seed: int, seconds: float = float("inf"), chunk: int = 50
) -> dict[str, Any]:
    """Runs cases in child processes, and counts what came of them.

    Args:
        target: What is fuzzed.
        data: What is damaged. This process must not have run compiled programs, for it forks.
        cases: How many.
        seed: Of the damage.
        seconds: After which no further chunk is begun.
        chunk: Cases per child.

    Returns:
        Cases by kind, outcomes, and the numbers of cases whose process died, hung or raised another error.
    """
    kinds, outcomes, bad, index, begun = Counter(), Counter(), {}, 0, time.monotonic()
    while index < cases and time.monotonic() - begun < seconds:
        before = index
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            try:
                _run(target, data, seed, index, min(index + chunk, cases), theirs)
            finally:
                os._exit(0)
        os.close(theirs)
        running = None
        with open(ours) as lines:
            for line in lines:
                if line.startswith("begun"):
                    _, number, kind = line.split()
                    running = int(number)
                    kinds[kind] += 1
                    continue
                number, outcome = json.loads(line)
                index, running = number + 1, None
                outcomes[outcome] += 1
                if outcome not in ("refused", "loaded"):
                    bad[number] = outcome
        _, status = os.waitpid(child, 0)
        if running is not None:
            name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
            outcomes[f"died: {name}"] += 1
            bad[running] = f"died: {name}"
            index = running + 1
        if index == before:
            raise RuntimeError("a child process ended before its first case")
    return {"cases": index, "kinds": dict(kinds), "outcomes": dict(outcomes.most_common()), "bad": bad}


def main() -> None:
    """Runs the benchmark and writes results."""
    run("benchmarks.fuzzing_artefacts", ARTEFACTS, small, tyro.cli(Options, description=__doc__))


def run(name: str, target: Target, make: Callable[[], bytes], options: Any) -> None:
    """Runs a campaign from the command line, writes its results, and exits.

    Args:
        name: Module after `python -m`.
        target: What is fuzzed.
        make: Returns what is damaged.
        options: `cases`, `seed`, `seconds` and `out`.
    """
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:  # making it runs compiled programs, after which a process must not fork
        with open(theirs, "wb") as stream:
            stream.write(make())
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    report = campaign(target, data, options.cases, options.seed, options.seconds)
    header = provenance(invoked(name), ("craik", "jax", "numpy"))
    options.out.write_text(json.dumps(header | {"seed": options.seed} | report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    sys.exit(1 if report["bad"] else 0)


if __name__ == "__main__":
    main()
