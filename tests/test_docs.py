"""Every Python example in README and docs runs, as a reader would run it, one document after the other from the top; every
link leads somewhere; the site builds without a warning, and has every public name."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpc.agent.config import AgentConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BRIEF: dict[str, Any] = {
    "updates": 2,
    "first_trainings": 1,
    "actor_critic_reset_rounds": 1,
    "actor_critic_updates": 0,
    "first_iterations": 1,
    "iterations": 1,
    "random_steps": 290,
    "hidden": 8,
    "members": 2,
    "starts": 2,
    "first_starts": 2,
}
BRIEF_IMAGES: dict[str, Any] = {"encoder_options": {"levels": [[8, 8], [8, 8]], "dense": [16]}}
BRIEF_GOALS: dict[str, Any] = {
    "predictor_options": {"hidden": [16]},
    "distance_options": {"size": 8, "parts": 2, "hidden": [16], "updates": 10},
    "starts": 2,
    "first_starts": 2,
}


@pytest.mark.filterwarnings("ignore::mpc.agent.configurator.configurator.OutOfDistributionGoal")  # hardly anything is learnt
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if EXAMPLE.search(d.read_text())], ids=lambda path: path.stem)
def test_examples_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes, it writes here
    defaults = AgentConfig.of

    def brief(changes: Any = None, *, goals: bool = False, image: bool = False) -> AgentConfig:
        """The same code, with hardly any learning."""
        chosen = defaults(changes, goals=goals, image=image)
        return chosen.changed((BRIEF_GOALS | (BRIEF_IMAGES if image else {})) if goals else BRIEF)

    monkeypatch.setattr(AgentConfig, "of", brief)
    scope: dict = {"__name__": document.stem}
    for example in EXAMPLE.findall(document.read_text()):
        exec(compile(example, str(document), "exec"), scope)


@pytest.mark.parametrize("document", LINKING, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    targets = [target for target in LINK.findall(document.read_text()) if "://" not in target]
    assert not [target for target in targets if not (document.parent / target).exists()]


@pytest.fixture(scope="module")
def hooks() -> Any:
    """The module that the site is made with."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_reference_has_every_public_name(hooks):
    for name in hooks.MODULES:
        module = importlib.import_module(name)
        listed, page = hooks.public(name), hooks.page(name)
        assert set(getattr(module, "__all__", listed)) <= set(listed)
        for public in listed:
            assert f"::: {name}.{public}\n" in page or f"{name}.{public}" in hooks.MODULES or public.startswith("_")
            assert hasattr(module, public)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs the extra 'docs'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "mpc" / "index.html").exists()
