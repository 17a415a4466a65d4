"""The structure of the sources: rooms, file and function lengths, and names of the glossary."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("mpc", "world_models") for path in sorted((ROOT / folder).rglob("*.py"))]
EVERYTHING = SOURCES + [path for folder in ("envs", "benchmarks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
MOST_LINES, MOST_FUNCTION_LINES, MOST_ROOMS = 400, 60, 20

PRIVATE_NAMES = [
    "Loop",
    "settle",
    "concluded",
    "choose",
    "unscored",
    "restart",
    "propose",
    "foresee",
    "minds",
    "Practice",
    "steady",
    "acting",
    "careful",
    "Watch",
    "machinery",
    "reacting",
    "Eyes",
    "Lessons",
    "teacher",
    "Pursuer",
    "Pursuit",
    "Underway",
    "Ongoing",
    "Course",
    "recent",
    "recall",
    "doubt",
    "alive",
    "perceived",
    "explain",
    "infer",
    "recollection",
    "Recollection",
    "ways",
    "Detour",
    "steps_to_go",
    "ways_to_go",
    "refine",
    "settling",
    "watching",
    "slower",
    "represented",
    "hierarchy",
    "effort_scale",
    "optimism",
    "curious",
    "Standing",
    "standing",
    "ready",
    "chosen",
    "_race",
    "Stretched",
    "Arrived",
    "nudges",
    "Worlds",
    "Share",
    "adjustable",
    "jointly",
    "against",
    "REACH",
    "hope",
    "leap",
    "reflex",
    "downhill",
    "attempt",
    "blamed",
    "room_for",
    "LESSONS",
    "SURE",
    "dearer",
    "deadly",
    "dying",
    "strangeness",
    "Unfamiliar",
    "Limit",
    "school",
    "MLPExplainer",
    "HeadingPredictor",
    "bend",
    "sight",
    "fitted",
    "Alarm",
    "matters",
    "told",
    "shown",
    "Imagined",
    "Latent",
    "pixel_jepa",
    "GoalAgent",
    "HierarchicalAgent",
    "MultistartMemory",
    "ChainMemory",
    "GradientMemory",
    "CemMemory",
    "IlqrMemory",
    "album",
    "fitting",
    "exploring",
]
"""Names that only readers of this repository would know; the glossary of CHANGELOG.md has the terms that replaced them."""
QUESTIONS = ("What ", "Whether ", "How ", "Who ", "Whose ", "Where ", "Which ", "When ", "Why ")


def defined(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines at its top level."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines and texts of the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def test_the_agent_has_few_rooms():
    rooms = [path for path in (ROOT / "mpc" / "agent").iterdir() if path.name != "__pycache__"]
    assert len(rooms) <= MOST_ROOMS, sorted(path.name for path in rooms)


def test_files_are_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in EVERYTHING}
    assert not {path: count for path, count in lines.items() if count > MOST_LINES}


def test_docstrings_say_what_things_do():
    asking = {}
    for path in EVERYTHING:
        found = [line for line, text in docstrings(ast.parse(path.read_text())) if text.startswith(QUESTIONS)]
        if found:
            asking[str(path.relative_to(ROOT))] = found
    assert not asking


def test_functions_fit_a_screen():
    long = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_those_of_the_field(path):
    tree = ast.parse(path.read_text())
    assert not {path.stem, *defined(tree)} & set(PRIVATE_NAMES)
