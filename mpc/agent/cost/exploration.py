"""Exploration by planned disagreement: while learning, plans like what they otherwise avoid, that the model is unsure.

    cost = -reward - optimism · doubt        instead of        -reward + weight · doubt

Who avoids it in learning, too, never hears that a better way is not as bad as it is feared to be. Optimism ends with the
first episode that terminates: where one can fall, most of what is tried ends what could be learnt from. While rewards tell
nothing about places, plans go by doubt alone, without the critic (Pathak et al. 2019; planned for: Sekar et al. 2020). They
tell nothing as long as no episode has terminated and what was paid depends on the action alone, as where effort costs
something and only a goal never reached pays.
"""

from typing import Any

import numpy as np

from world_models import data

UNEXPLAINED = 0.1
"""Share of the variance of rewards that actions have to leave unexplained."""


def exploring(
    buffer: data.TrajectoryBuffer, exploration_bonus: float, intrinsic_only_until_informative: bool
) -> dict[str, Any]:
    """Parameters of the cost to learn with.

    Args:
        buffer: What was experienced.
        optimism: Reward of the ensemble's disagreement, until an episode has terminated.
        curious: Whether to go by disagreement alone while rewards tell nothing about places.
    """
    reward = 1.0
    if ended(buffer):
        exploration_bonus = 0.0
    elif intrinsic_only_until_informative and not informative(buffer):
        exploration_bonus, reward = 1.0, 0.0
    return {"disagreement": np.float32(-exploration_bonus), "reward": np.float32(reward)}


def ended(buffer: data.TrajectoryBuffer) -> bool:
    """Whether an episode has terminated.

    Args:
        buffer: What was experienced.
    """
    return bool(np.asarray(buffer.terminated).any())


def informative(buffer: data.TrajectoryBuffer) -> bool:
    """Whether rewards tell good places from bad ones, by least squares of r on (1, a, a²), or an episode has terminated.

    Args:
        buffer: What was experienced.
    """
    if ended(buffer):
        return True
    paid = np.roll(np.asarray(buffer.follows), -1, axis=1)  # a reward belongs to a row that the next one follows
    rewards = np.asarray(buffer.rewards)[paid].astype(np.float64)
    spread = rewards.std() if len(rewards) else 0.0
    if spread <= 1e-6 * np.abs(rewards).max(initial=0.0):
        return False
    actions = np.asarray(buffer.actions)[paid].reshape(len(rewards), -1).astype(np.float64)
    features = np.concatenate([np.ones((len(rewards), 1)), actions, actions**2], axis=1)
    weights, *_ = np.linalg.lstsq(features, rewards, rcond=None)
    return bool((rewards - features @ weights).std() > UNEXPLAINED**0.5 * spread)
