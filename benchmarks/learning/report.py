"""The report of the learning benchmark: Markdown, JSON, CSV and images."""

import csv
import json
from pathlib import Path
from typing import Any

from benchmarks.learning import drawing
from benchmarks.learning import summary as sums
from benchmarks.learning.tasks import Task
from benchmarks.provenance import provenance

PUBLISHED = Path(__file__).with_name("published.json")
PACKAGES = (
    "craik",
    "jax",
    "flax",
    "optax",
    "gymnasium",
    "mujoco",
    "numpy",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "sbx-rl",
)
BASELINES = {"sac": "SAC", "dqn": "DQN", "dqn-brief": "DQN with an update per step"}
"""Methods that the heading of the report compares with, if there are runs of them."""


def write(folder: Path, raw: list[sums.Raw], tasks: list[Task], command: str) -> list[Path]:
    """Writes `report.md`, `report.json`, `scores.csv` and the images.

    Args:
        folder: Output folder.
        raw: Raw data of all runs.
        tasks: Tasks of the runs.
        command: Command line of the benchmark.

    Returns:
        Paths of the written files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores, reached, relative = sums.scores(raw, tasks), sums.reached(raw, tasks), sums.normalised(raw, tasks)
    published = json.loads(PUBLISHED.read_text())
    pictures = []
    for task in tasks:
        some = [line for line in scores if line.task == task.name]
        if some:
            pictures.append(folder / f"{task.name.replace('/', '-')}.png")
            drawing.curves(pictures[-1], task, some, [p for p in published["scores"] if p["task"] == task.name])
    if relative:
        pictures.append(folder / "profiles.png")
        drawing.profiles(pictures[-1], relative)
    header = provenance(command, PACKAGES)
    failed = [{name: run[name] for name in ("task", "method", "seed", "failed")} for run in raw if run["failed"]]
    aggregate, better = sums.aggregate(relative), sums.improvement(relative)
    machine = header | {"failed": failed, "aggregate": aggregate, "probability_of_improvement": better}
    machine |= {"scores": [line._asdict() for line in scores], "reached": [line._asdict() for line in reached]}
    (folder / "report.json").write_text(json.dumps(_finite(machine), indent=1) + "\n")
    with open(folder / "scores.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(sums.Score._fields)
        table.writerows(scores)
    parts = [_heading(scores, reached, raw), _scores(scores), _reached(reached), _decisions(raw, tasks)]
    parts += [_aggregate(aggregate, better), _failed(failed), _published(published, tasks)]
    parts += ["\n".join(f"![{p.stem}]({p.name})" for p in pictures), _made(header)]
    (folder / "report.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    return [folder / name for name in ("report.md", "report.json", "scores.csv")] + pictures


def _finite(value: Any) -> Any:
    """Replaces non-finite numbers by None for JSON."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _heading(scores: list[sums.Score], reached: list[sums.Reached], raw: list[sums.Raw]) -> str:
    """Returns the heading with a comparison that starts with the cases in which a baseline is better."""
    comparisons = [_compared(baseline, scores, reached, raw) for baseline in BASELINES]
    first = " ".join(sentence for sentence in comparisons if sentence) or "There are no runs of SAC or DQN to compare with."
    return f"# Learning benchmark\n\n{first}"


def _compared(baseline: str, scores: list[sums.Score], reached: list[sums.Reached], raw: list[sums.Raw]) -> str:
    """Returns sentences on where a baseline is better; empty without runs of it."""
    theirs = {(line.task, line.asked): line for line in scores if line.method == baseline}
    ours = {(line.task, line.asked): line for line in scores if line.method == sums.OURS}
    both = [key for key in ours if key in theirs]
    if not both:
        return ""
    cases = [
        f"{task} after {at:,} steps ({theirs[task, at].iqm:.1f} against {ours[task, at].iqm:.1f})"
        for task, at in both
        if theirs[task, at].iqm > ours[task, at].iqm
    ]
    first = f"The return of {BASELINES[baseline]} is higher in {len(cases)} of {len(both)} evaluations"
    first += f": {'; '.join(cases)}." if cases else "."
    sooner = []
    at_goal = {(line.task, line.method): line for line in reached}
    for task in dict.fromkeys(task for task, _ in both):
        pair = [at_goal.get((task, method)) for method in (baseline, sums.OURS)]
        if pair[0] and pair[1] and pair[0].cpu_seconds < pair[1].cpu_seconds:
            sooner.append(f"{task} ({pair[0].cpu_seconds:.0f} CPU s against {pair[1].cpu_seconds:.0f})")
    if any((task, sums.OURS) in at_goal for task, _ in both):
        first += f" It reaches the goal in fewer CPU seconds in: {', '.join(sooner) or 'none of these tasks'}."
    times = [_p50(raw, method) for method in (baseline, sums.OURS)]
    if all(times):
        first += f" A decision takes {times[0]:.2g} ms, with craik {times[1]:.2g} ms (median over runs of their p50)."
    return first


def _p50(raw: list[sums.Raw], method: str) -> float | None:
    times = sorted(run["decision_ms"]["p50"] for run in raw if run["method"] == method and "decision_ms" in run)
    return times[len(times) // 2] if times else None


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(row) for row in rows)]
    return f"## {title}\n\n" + "\n".join(f"| {line} |" for line in lines)


def _scores(scores: list[sums.Score]) -> str:
    rows = []
    last = {(line.task, line.method): line for line in scores}
    for line in scores:
        if line.steps == 0 and line is not last[line.task, line.method]:
            continue  # a method without learning has one score
        steps = f"{line.asked:,}" if line.steps == line.asked else f"{line.asked:,} (took {line.steps:,})"
        steps = steps if line.steps else "any"
        one = "one seed" if line.seeds == 1 else f"[{line.low:.1f}, {line.high:.1f}]"
        cost = "" if line.steps == 0 else f"{line.cpu_seconds:.0f}"
        rows.append((line.task, line.method, steps, f"{line.iqm:.1f}", one, f"{line.worst:.1f}", cost, str(line.seeds)))
    columns = ("task", "method", "steps", "return (IQM)", "95%", "worst seed", "CPU s", "seeds")
    return _table("Returns", columns, rows)


def _reached(reached: list[sums.Reached]) -> str:
    rows = []
    for line in reached:
        middle = f"{line.steps:,.0f}" if line.steps < float("inf") else "not reached"
        seconds = f"{line.cpu_seconds:.0f}" if line.steps < float("inf") else ""
        rows.append((line.task, f"{line.goal:g}", line.method, f"{line.reached} of {line.runs}", middle, seconds))
    columns = ("task", "goal", "method", "runs at the goal", "steps (median run)", "CPU s")
    return _table("Steps to the goal", columns, rows)


def _decisions(raw: list[sums.Raw], tasks: list[Task]) -> str:
    rows = []
    for task in tasks:
        for method in sums.methods(raw):
            runs = [run for run in sums.of(raw, task.name, method) if "decision_ms" in run]
            if runs:
                each = [sorted(run["decision_ms"][name] for run in runs)[len(runs) // 2] for name in ("p50", "p95", "p99")]
                peak = max(run["peak_mib"] for run in runs)
                rows.append((task.name, method, *(f"{value:.2f}" for value in each), _pace(runs), f"{peak:,}"))
    columns = ("task", "method", "p50", "p95", "p99", "wall s per 1,000 steps", "peak MiB")
    return _table("Milliseconds per decision without compilation, and seconds of learning (median run)", columns, rows)


def _pace(runs: list[sums.Raw]) -> str:
    """Returns wall seconds per 1,000 steps of learning, with compilation; empty for a method without learning."""
    last = [run["rows"][-1] for run in runs if run["rows"]]
    pace = sorted(1000 * row["wall_seconds"] / row["steps"] for row in last if row["steps"])
    return f"{pace[len(pace) // 2]:.0f}" if pace else ""


def _aggregate(aggregate: dict[str, Any], better: dict[str, Any]) -> str:
    rows = []
    for method, (iqm, low, high, tasks) in aggregate.items():
        odds = "" if method not in better else "{:.2f} [{:.2f}, {:.2f}], {} tasks".format(*better[method])
        rows.append((method, f"{iqm:.3f}", f"[{low:.3f}, {high:.3f}]", str(tasks), odds))
    columns = ("method", "IQM", "95%", "tasks", f"probability that {sums.OURS} scores higher")
    return _table("All tasks, scaled to 0 for random actions and 1 for the goal", columns, rows)


def _failed(failed: list[dict[str, Any]]) -> str:
    rows = [(run["task"], run["method"], str(run["seed"]), run["failed"].replace("|", "/")[:200]) for run in failed]
    return _table("Failed runs", ("task", "method", "seed", "reason"), rows)


def _published(published: dict[str, Any], tasks: list[Task]) -> str:
    names, source = {task.name for task in tasks}, published["source"]
    found = [entry for entry in published["scores"] if entry["task"] in names]
    rows = [(entry["task"], entry["method"], f"{entry['steps']:,}", f"{entry['score']:g}") for entry in found]
    return _table(f"Published results ({source})", ("task", "method", "steps", "return"), rows)


def _made(header: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in header["packages"].items() if version != "not installed")
    return (
        f"Measured by `{header['command']}` on {header['machine']}, Python {header['python']}, {packages}. All methods use "
        "the default settings of their libraries, the same for all tasks. Raw data of every run are in `raw/`."
    )
