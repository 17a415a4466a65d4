"""Checkpoints of agents: what they learnt, what they remember, and what an agent must be like to go on from there."""

import os
from pathlib import Path
from typing import Any

import gymnasium

from mpc.agent.config import Settings
from mpc.agent.perception import gym_spaces
from world_models.io import checkpoint

PARTS = ("training", "practice", "buffer", "key")


def save(agent: Any, path: str | os.PathLike) -> Path:
    """Write a checkpoint of an agent.

    Args:
        agent: An `Agent`.
        path: The folder of checkpoints.
    """
    about = {
        "env": agent.env_id,
        "observation_space": gym_spaces.describe(agent.observation_space),
        "action_space": gym_spaces.describe(agent.action_space),
        "environments": agent.buffer.follows.shape[0],
        "settings": agent.settings.asdict(),
        "state": {
            "timesteps": agent.num_timesteps,
            "trained": agent.learner.trained,
            "actor_critic_reset_at": agent.learner.actor_critic_reset_at,
            "seed": agent.seed,
        },
    }
    return checkpoint.save(path, _tree(agent), about, step=agent.num_timesteps)


def load(kind: Any, path: str | os.PathLike, env: Any, *, changes: dict[str, Any], **how: Any) -> Any:
    """Make the agent that a checkpoint is of.

    Args:
        kind: `Agent`.
        path: The folder of checkpoints, or one of them.
        env: To learn on in, its id, a vector environment, or None.
        changes: Of its settings.
        **how: What else the agent was made with.

    Raises:
        CheckpointError: If the checkpoint is foreign, damaged, of another format, or of another environment.
    """
    kept = checkpoint.describe(path)["metadata"]
    if not {"observation_space", "action_space", "settings", "state", "environments"} <= set(kept):
        raise checkpoint.CheckpointError(f"{path} is a checkpoint, but not of an agent")
    spaces: dict[str, Any] = {n: gym_spaces.rebuild(kept[n]) for n in ("observation_space", "action_space")}
    settings = Settings(**(kept["settings"] | changes))
    vector = None if env is None else gym_spaces.vectorise(env, settings.repeat)
    if vector is not None:
        _compare(path, kept, spaces, vector)
    agent = kind(vector, settings=settings, seed=kept["state"]["seed"], **how, **spaces)
    agent.buffer = agent.room(kept["environments"])
    tree, _ = checkpoint.load(path, _tree(agent))
    learner = agent.learner
    learner.training, learner.practice, agent.buffer, agent.key = (tree[name] for name in PARTS)
    agent.env_id = agent.env_id or kept["env"]
    agent.num_timesteps, learner.trained = kept["state"]["timesteps"], kept["state"]["trained"]
    learner.actor_critic_reset_at = kept["state"]["actor_critic_reset_at"]
    return agent


def _tree(agent: Any) -> dict[str, Any]:
    values = (agent.learner.training, agent.learner.practice, agent.buffer, agent.key)
    return dict(zip(PARTS, values, strict=True))


def _compare(path: Any, kept: dict[str, Any], spaces: dict[str, Any], vector: gymnasium.vector.VectorEnv) -> None:
    """Make sure that a checkpoint is of an environment like this one."""
    for name in ("observation_space", "action_space"):
        got = getattr(vector, f"single_{name}")
        if got != spaces[name]:
            raise checkpoint.CheckpointError(
                f"{path} is of another environment: it was learnt with {name} {spaces[name]}, this one has {got}"
            )
    if vector.num_envs != kept["environments"]:
        raise checkpoint.CheckpointError(
            f"{path} was learnt in {kept['environments']} environments at once; this vector has {vector.num_envs}"
        )
