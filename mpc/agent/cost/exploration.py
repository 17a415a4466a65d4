"""Exploration by planned disagreement: while learning, plans seek the model's disagreement, which they otherwise avoid.

    cost = -reward - bonus · disagreement        instead of        -reward + weight · disagreement

An agent that avoids disagreement while learning never finds out that a better way is not as bad as predicted. The bonus ends
with the first episode that terminates: where one can fall, most of what is tried ends the experience. While rewards do not
depend on the state, plans follow disagreement alone, without the critic (Pathak et al. 2019; planned for: Sekar et al.
2020). They do not as long as no episode has terminated and rewards depend on actions alone, as where effort costs something
and only a goal that was never reached pays.
"""

import numpy as np

from world_models import data

UNEXPLAINED = 0.1
"""Share of the variance of rewards that actions must leave unexplained."""


def weights(buffer: data.TrajectoryBuffer, bonus: float, only_until_informative: bool) -> dict[str, float]:
    """Return the weights of the cost terms to learn with.

    `bonus` is the reward for disagreement until an episode terminates; with `only_until_informative`, disagreement alone is
    sought while rewards do not depend on the state.
    """
    reward = 1.0
    if has_terminated(buffer):
        bonus = 0.0
    elif only_until_informative and not informative(buffer):
        bonus, reward = 1.0, 0.0
    return {"disagreement": -bonus, "reward": reward, "critic": reward, "cost": reward}


def has_terminated(buffer: data.TrajectoryBuffer) -> bool:
    """Return whether an episode has terminated."""
    return bool(np.asarray(buffer.terminated).any())


def informative(buffer: data.TrajectoryBuffer) -> bool:
    """Return whether rewards depend on the state, by least squares of r on (1, a, a²), or an episode has terminated."""
    if has_terminated(buffer):
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
