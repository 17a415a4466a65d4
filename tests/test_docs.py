"""Every Python example in README and docs runs, as a reader would run it, one document after the other from the top."""

import re
from pathlib import Path
from typing import Any

import pytest

from mpc.agent.config import AgentConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
BRIEF_GOALS: dict[str, Any] = {
    "encoder_options": {"levels": [[8, 8], [8, 8]], "dense": [16]},
    "predictor_options": {"hidden": [16]},
    "distance_options": {"size": 8, "parts": 2, "hidden": [16], "updates": 10},
    "starts": 2,
    "first_starts": 2,
}


@pytest.mark.filterwarnings("ignore::mpc.agent.configurator.configurator.OutOfDistributionGoal")  # hardly anything is learnt
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes, it writes here
    defaults = AgentConfig.of

    def brief(changes: Any = None, *, goals: bool = False, image: bool = False) -> AgentConfig:
        """The same code, with hardly any learning."""
        chosen = defaults(changes, goals=goals, image=image)
        return chosen.changed(BRIEF_GOALS if goals else BRIEF)

    monkeypatch.setattr(AgentConfig, "of", brief)
    examples = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    assert examples
    scope: dict = {"__name__": document.stem}
    for example in examples:
        exec(compile(example, str(document), "exec"), scope)
