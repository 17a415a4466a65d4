"""What an agent learns with: a world model in training, and an actor and a critic that practise in what it imagines."""

import warnings
from collections.abc import Callable
from typing import Any

import jax

from mpc.agent.actor.actor_critic import ActorCritic
from mpc.agent.config import Settings
from mpc.agent.memory import safeguards
from world_models import Trainer, data

PyTree = Any


class Learner:
    """A world model, an actor and a critic, with all that they have learnt so far.

    Args:
        trainer: Of the model.
        minds: To practise in it.
        settings: How much.
        training_key: Of the model's weights and windows.
        practice_key: Of the actor's and the critic's.
    """

    def __init__(
        self,
        trainer: Trainer,
        actor_critic: ActorCritic,
        settings: Settings,
        training_key: jax.Array,
        practice_key: jax.Array,
    ):
        self.trainer, self.actor_critic, self.settings = trainer, actor_critic, settings
        self.training, self.practice = self.trainer.init(training_key), actor_critic.init(practice_key)
        self.trained = False
        self.actor_critic_reset_at = 0
        """Environment steps after which actor and critic began anew."""
        self._error = 1.0  # of the last good training

    @property
    def learnt(self) -> dict[str, PyTree]:
        """The parameters that plans depend on."""
        return {"model": self.training.params, "actor": self.practice.deployed_actor, "critic": self.practice.target}

    def train(
        self, buffer: data.TrajectoryBuffer, times: int, *, cost: PyTree, timesteps: int, draw: Callable[[], jax.Array]
    ) -> dict[str, float]:
        """Train the model, then let actor and critic practise; what diverges steps back, with a warning.

        Args:
            buffer: What was experienced.
            times: Trainings in a row.
            cost: Parameters of the cost that is practised for.
            timesteps: Environment steps so far.
            draw: Gives a fresh key, where actor and critic begin anew.

        Returns:
            The metrics of the last good training and practice.
        """
        metrics: dict[str, float] = {}
        for _ in range(times):
            limit = safeguards.EXPLODED * max(self._error, 1.0)
            self.training, found, astray = safeguards.fit_or_revert(self.trainer.fit, self.training, buffer, limit=limit)
            _tell("the world model", astray, timesteps)
            if astray is None:
                metrics, self._error = found, safeguards.error_of(found)
        # what was learnt in the dreams of a poor model is hard to unlearn (Nikishin et al. 2022): begin again now and then
        again = timesteps >= self.settings.actor_critic_reset_growth * self.actor_critic_reset_at
        if again:
            self.practice = self.actor_critic.init(draw())._replace(deployed_actor=self.practice.deployed_actor)
            self.actor_critic_reset_at = timesteps
        if self.settings.actor_critic_updates:
            for _ in range(self.settings.actor_critic_reset_rounds if again else times):
                given = (self.actor_critic.fit, self.practice, self.learnt | {"cost": cost}, buffer)
                self.practice, practised, astray = safeguards.fit_or_revert(*given)
                _tell("the actor or the critic", astray, timesteps)
                metrics |= practised
            self.practice = self.actor_critic.choose(self.practice, self.learnt | {"cost": cost}, buffer)
        self.trained = True
        return metrics


def _tell(what: str, astray: str | None, timesteps: int) -> None:
    if astray is not None:
        warnings.warn(
            f"after {timesteps} steps, {what} diverged in training ({astray}): its last good weights are kept",
            RuntimeWarning,
            stacklevel=3,
        )
