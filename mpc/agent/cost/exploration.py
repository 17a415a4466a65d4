"""Exploration by planned disagreement: while learning, plans seek the model's disagreement, which they otherwise avoid.

    cost = -(1 - i) reward - (i + (1 - i) bonus) · disagreement        instead of        -reward + weight · disagreement

An agent that avoids disagreement while learning never finds out that a better way is not as bad as predicted. The bonus ends
with the first episode that terminates: where one can fall, most of what is tried ends the experience.

While rewards do not depend on the state, as where effort costs something and only a goal that was never reached pays, plans
follow disagreement alone, without the critic: the intrinsic share i is 1 (Pathak et al. 2019; planned for: Sekar et al.
2020). It ends with the first episode that terminates, it is a half until experience has doubled since rewards were found to
depend on the state, and it falls to 0 with the number of steps in any case.
"""

import numpy as np

from world_models import data

MATERIAL = 0.1
"""Share of a variance that is material: of rewards, what actions leave unexplained; of that, what the state explains."""
NEGLIGIBLE = 1e-6
"""Share of the variance of rewards that is rounding."""
RARE = 10.0
"""Robust standard deviations beyond which what is left of a reward is one of its own, such as that of a goal."""
MOST_ROWS = 2_000
"""Transitions, spread evenly over all, in which the state's part is looked for."""
MOST_NUMBERS = 64
"""Numbers of an observation in which it is looked for, spread evenly over all."""
RIDGES = (1e-2, 1e-1, 1.0)
"""Penalties of the regression on the state, in units of the variance of a feature; the best is taken."""


def weights(
    buffer: data.TrajectoryBuffer, bonus: float, only_until_informative: bool, *, steps: int, most_steps: int
) -> dict[str, float]:
    """Return the weights of the cost terms to learn with.

    Args:
        buffer: Experience.
        bonus: Reward for disagreement until an episode terminates.
        only_until_informative: Whether disagreement alone is sought while rewards do not depend on the state.
        steps: Environment steps so far.
        most_steps: Steps after which rewards count in any case.
    """
    if has_terminated(buffer):
        bonus = intrinsic = 0.0
    else:
        intrinsic = intrinsic_share(buffer, steps, most_steps) if only_until_informative else 0.0
    reward = 1.0 - intrinsic
    return {"disagreement": -(intrinsic + reward * bonus), "reward": reward, "critic": reward, "cost": reward}


def intrinsic_share(buffer: data.TrajectoryBuffer, steps: int, most_steps: int) -> float:
    """Return the share of the intrinsic reward: 1 while rewards are uninformative, less from half of `most_steps` on.

    It is a half while rewards are informative, and were not in the earlier half of experience.
    """
    left = min(max(2.0 - 2.0 * steps / most_steps, 0.0), 1.0)
    if not left or informative(buffer, earlier=True):
        return 0.0
    return left * (0.5 if informative(buffer) else 1.0)


def has_terminated(buffer: data.TrajectoryBuffer) -> bool:
    """Return whether an episode has terminated."""
    return bool(buffer.summary.terminations.any())


def informative(buffer: data.TrajectoryBuffer, *, earlier: bool = False) -> bool:
    """Return whether rewards depend on the state, or an episode has terminated.

    What a regression on (1, a, |a|, a²) leaves of the rewards must be a tenth of their variance, or hold a reward far from
    all others, or be explained by the state to a tenth.

    Args:
        buffer: Experience.
        earlier: Whether to look at the earlier half of it only.
    """
    if has_terminated(buffer):
        return True
    taken = transitions(buffer, earlier)
    rewards = np.asarray(buffer.rewards)[taken].astype(np.float64)
    spread = rewards.std() if len(rewards) else 0.0
    if spread <= 1e-6 * np.abs(rewards).max(initial=0.0):
        return False
    actions = np.asarray(buffer.actions)[taken].reshape(len(rewards), -1).astype(np.float64)
    features = np.concatenate([np.ones((len(rewards), 1)), actions, np.abs(actions), actions**2], axis=1)
    weights, _, rank, _ = np.linalg.lstsq(features, rewards, rcond=None)
    rest = rewards - features @ weights
    free = len(rewards) - int(rank)
    if free < 1:
        return False
    unexplained = np.square(rest).sum() / free / spread**2
    if unexplained <= NEGLIGIBLE or unexplained > MATERIAL:
        return bool(unexplained > MATERIAL)
    some = np.unique(np.linspace(0, len(rest) - 1, min(len(rest), MOST_ROWS)).astype(int))
    seen = np.asarray(buffer.observations)[taken[0][some], taken[1][some]].reshape(len(some), -1)
    return has_rare(rest) or bool(explained(rest[some], seen.astype(np.float64)) > MATERIAL)


def transitions(buffer: data.TrajectoryBuffer, earlier: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return environments and rows of the transitions in a buffer, or of those in its earlier half."""
    follows, capacity = np.asarray(buffer.follows), buffer.follows.shape[1]
    environments, places = [], []
    for environment, (head, filled) in enumerate(zip(np.asarray(buffer.head), np.asarray(buffer.filled), strict=True)):
        rows = (int(head) - int(filled) + np.arange(int(filled) // 2 if earlier else int(filled))) % capacity
        rows = rows[:-1][follows[environment, rows[1:]]]  # a reward belongs to a row that the next one follows
        environments.append(np.full(len(rows), environment))
        places.append(rows)
    return np.concatenate(environments), np.concatenate(places)


def has_rare(rest: np.ndarray) -> bool:
    """Return whether one of the numbers `[N]` lies far from all others."""
    apart = np.abs(rest - np.median(rest))
    return bool(apart.max() > RARE * 1.4826 * np.median(apart))  # 1.4826: of a normal distribution, its standard deviation


def explained(rest: np.ndarray, observations: np.ndarray) -> float:
    """Return the share of the variance of `rest` `[N]` that a quadratic of observations `[N, O]` predicts.

    Every row is predicted from all others (ridge regression, whose predictions without a row have a closed form), so that
    the share is 0 or less where there is nothing but noise.
    """
    rest, seen = rest - rest.mean(), observations[:, :: -(-observations.shape[1] // MOST_NUMBERS)]
    varies = seen.std(axis=0) > 1e-6 * np.abs(seen).max(axis=0, initial=0.0)
    seen = _standardised(seen[:, varies])
    features = _standardised(np.concatenate([seen, seen**2], axis=1))
    if not features.size or not rest.any():
        return 0.0
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    errors = []
    for ridge in RIDGES:
        kept = left * (sizes**2 / (sizes**2 + ridge * len(rest)))
        influence = (kept * left).sum(axis=1) + 1.0 / len(rest)  # of every row on its own prediction; its mean is known
        errors.append(np.square((rest - kept @ (left.T @ rest)) / (1.0 - influence)).mean())
    return 1.0 - min(errors) / np.square(rest).mean()


def _standardised(numbers: np.ndarray) -> np.ndarray:
    spread = numbers.std(axis=0)
    return (numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
