"""The schedule of learning: what is trained, on what, and in which order.

    online    the world model on the replay buffer; then actor and critic in imagination
    offline   the world model on a dataset; then, with the encoder fixed, the distance, long predictions, the decoder and
              slower levels on the latents of whole trajectories

Both train the same parameters, in any order.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpc.agent.components import Components
from mpc.agent.config import AgentConfig
from mpc.agent.memory import safeguards, trajectory_latents
from mpc.agent.world_model import readout
from world_models import data, macro
from world_models.data import Dataset
from world_models.training.finetune import finetune
from world_models.training.trainer import Training

PyTree = Any
Render = Callable[[jax.Array], jax.Array]
Draw = Callable[[], jax.Array]

CHUNK = 100
"""Offline updates between two looks at the callback and at interrupts."""
RESIDENT = 2**30
"""Bytes of observations that are put on the device; windows of larger datasets are read from the disk as they are drawn."""


class Learner:
    """All that an agent has learnt, and the functions that train it.

    Args:
        components: The agent's models and functions.
        config: How much to learn.
        key: Source of initial weights and random windows.
        render: `rows [..., S] -> observations [..., *shape]`, for datasets that store states; None without.
    """

    def __init__(self, components: Components, config: AgentConfig, key: jax.Array, render: Render | None = None) -> None:
        self.components, self.config, self.render = components, config, render
        training_key, actor_critic_key, distance_key, macro_key = (jax.random.fold_in(key, i) for i in range(4))
        self.training: Training = components.trainer(config.scaled(config.learning.updates), render).init(training_key)
        made = components.actor_critic
        self.actor_critic_state = None if made is None else made.init(actor_critic_key)
        self.distance: PyTree = None if components.distance is None else components.distance.init(distance_key)
        self.macro = [m.init(jax.random.fold_in(macro_key, i)) for i, m in enumerate(components.macro_models)]
        self.decoder: PyTree = None
        self.goal_actor: PyTree = None
        self.origin: np.ndarray | None = None
        """`[O]`, what observations are relative to, see `gym_spaces.origin`."""
        self.located = False
        """True once something was learnt from, from which on the origin stays."""
        self.trained = False
        self.reset_at = 0
        """Environment steps after which actor and critic were last reset."""
        self.finetuned_at = -1
        """Gradient steps of the model after which distance and decoder were last fitted; -1 for never."""
        self._error = 1.0  # of the last training that did not diverge

    @property
    def updates(self) -> int:
        """Gradient steps of the world model so far."""
        return int(self.training.updates)

    @property
    def params(self) -> dict[str, PyTree]:
        """Everything learnt that plans depend on."""
        found: dict[str, PyTree] = {"model": self.training.params}
        if self.actor_critic_state is not None:
            found |= {"actor": self.actor_critic_state.deployed_actor, "critic": self.actor_critic_state.target}
        if self.goal_actor is not None:
            found["actor"] = self.goal_actor
        if self.origin is not None:
            found["origin"] = self.origin.astype(np.float32)
        named = {"distance": self.distance, "decoder": self.decoder, "macro": self.macro or None}
        return found | {name: part for name, part in named.items() if part is not None}

    # Online

    def train(
        self, buffer: data.TrajectoryBuffer, times: int, *, params: PyTree, timesteps: int, draw: Draw
    ) -> dict[str, float]:
        """Train on the replay buffer; what diverges is reverted, with a warning.

        Args:
            buffer: Experience.
            times: Trainings in a row.
            params: What else the cost that actor and critic learn depends on.
            timesteps: Environment steps so far.
            draw: Returns a fresh key.

        Returns:
            The metrics of the last trainings that did not diverge.
        """
        metrics: dict[str, float] = {}
        fit = self.components.trainer(self.config.scaled(self.config.learning.updates), None).fit
        for _ in range(times):
            limit = safeguards.EXPLODED * max(self._error, 1.0)
            self.training, found, why = safeguards.fit_or_revert(fit, self.training, buffer, limit=limit)
            _warn("the world model", why, timesteps)
            if why is None:
                metrics, self._error = found, safeguards.error_of(found)
        self.trained = True
        return metrics | self.train_actor_critic(buffer, times, params=params, timesteps=timesteps, draw=draw)

    def train_actor_critic(
        self, buffer: data.TrajectoryBuffer, times: int, *, params: PyTree, timesteps: int, draw: Draw
    ) -> dict[str, float]:
        """Train actor and critic in imagination; begins anew as experience grows. Arguments as for `train`."""
        actor = self.config.actor
        made, metrics = self.components.actor_critic, {}
        if made is None or self.actor_critic_state is None:
            return {}
        # what was learnt in the imagination of a poor model is hard to unlearn (Nikishin et al. 2022)
        again = timesteps >= actor.actor_critic_reset_growth * self.reset_at
        if again:
            self.actor_critic_state = made.init(draw())._replace(deployed_actor=self.actor_critic_state.deployed_actor)
            self.reset_at = timesteps
        for _ in range(actor.actor_critic_reset_rounds if again else times):
            given = (made.fit, self.actor_critic_state, self.params | params, buffer)
            self.actor_critic_state, found, why = safeguards.fit_or_revert(*given)
            _warn("the actor or the critic", why, timesteps)
            metrics |= found
        self.actor_critic_state = made.deploy(self.actor_critic_state, self.params | params, buffer)
        return metrics

    # Offline

    def offline(self, dataset: Dataset) -> Callable[[int], dict[str, float]]:
        """Return a function that takes a number of gradient steps on a dataset and returns their metrics.

        Args:
            dataset: As the model sees it (`agent.memory.recordings`), of observations, or of states to be rendered.
        """
        learning, block = self.config.learning, self.config.world_model.block
        model, render = self.components.model, self.render
        if dataset.observations.nbytes <= RESIDENT:
            source = data.resident(dataset, learning.window * block, render)

            def fit(count: int) -> dict[str, float]:
                self.training, metrics = self.components.trainer(count, render).fit(self.training, source)
                self.trained = True
                return {name: float(value) for name, value in metrics.items()}

            return fit
        params = model.normalise(self.training.params, data.moments(dataset, render))
        self.training = self.training._replace(params=params)
        shape = {"batch": learning.batch, "length": learning.window, "block": block, "updates": CHUNK}
        drawn = data.batches(dataset, seed=self.updates, members=model.members, **shape)

        def fit_drawn(count: int) -> dict[str, float]:
            windows = jax.tree.map(lambda x: x[:count], next(drawn))
            self.training, metrics = self.components.trainer(CHUNK, render).fit_windows(self.training, windows)
            self.trained = True
            return {name: float(value) for name, value in metrics.items()}

        return fit_drawn

    def finetune(self, dataset: Dataset, key: jax.Array, *, rendered: bool = True) -> None:
        """With the encoder fixed, fit distance, long predictions, decoder and slower levels to the latents of trajectories.

        Args:
            dataset: As for `offline`.
            key: Consumed.
            rendered: Whether its rows go through `render`, where there is one.
        """
        learning, made = self.config.learning, self.components
        if self.finetuned_at == self.updates or not learning.finetune_updates:
            return
        block, distance = self.config.world_model.block, made.distance
        dense = distance is not None and distance.dense
        encode = self.encode_rows if rendered else self.encode_observations
        seen = trajectory_latents.embed(dataset, block, learning.finetune_sequences, encode, dense)
        keys = jax.random.split(key, 3)
        if distance is not None and distance.fit is not None:
            rows = seen.dense() if dense else seen
            self.distance, _ = distance.fit(self.distance, keys[0], rows.latents, rows.first, rows.lengths)
        if dataset.actions is not None and jax.tree.leaves(self.training.params["network"]):  # a known model learns nothing
            self._finetune_predictions(dataset, seen, keys[1])
        self.decoder = readout.fit(keys[2], seen.latents, np.asarray(dataset.observations[seen.row]))
        if made.macro_models:
            self._fit_macro(macro.encode_dataset(dataset, encode, block), key)
        self.finetuned_at = self.updates

    def _finetune_predictions(self, dataset: Dataset, seen: trajectory_latents.Sequences, key: jax.Array) -> None:
        learning, made = self.config.learning, self.components
        like = jnp.zeros(made.history.shape, made.observation_dtype)
        # a predictor with a carry is given the beginning of each chain: one observation alone tells no velocity
        blank = jax.eval_shape(made.model.encode, self.training.params, like)
        known = learning.window if jax.tree.leaves(blank.carry) else 1
        steps = min(learning.finetune_steps + known - 1, int(seen.lengths.max()))
        taken = trajectory_latents.blocks(dataset, seen, self.config.world_model.block)
        metric = None if made.distance is None else partial(made.distance.measure, self.distance)
        params, _ = finetune(
            made.model,
            self.training.params,
            key,
            like,
            seen.latents,
            taken,
            trajectory_latents.with_actions(seen.starts(steps), taken, steps),
            steps=steps,
            known=min(known, steps),
            updates=learning.finetune_updates,
            latent_metric=metric,
        )
        self.training = self.training._replace(params=params, network=jax.tree.map(jnp.copy, params["network"]))

    def _fit_macro(self, encoded: Dataset, key: jax.Array) -> None:
        settings = self.config.macro_levels
        for index, (model, stride) in enumerate(zip(self.components.macro_models, settings.strides, strict=True)):
            draw = jax.random.fold_in(key, 7 + index)
            self.macro[index], _ = macro.learn(model, encoded, draw, stride=stride, updates=settings.macro_updates)

    def encode_rows(self, rows: np.ndarray) -> jax.Array:
        """Return the latents `[N, D]` of a dataset's rows."""
        return row_encoder(self.components.model, self.render)(self.training.params, rows)

    def encode_observations(self, rows: np.ndarray) -> jax.Array:
        """Return the latents `[N, D]` of observations as the model sees them, such as the replay buffer's."""
        return row_encoder(self.components.model, None)(self.training.params, rows)


@lru_cache
def row_encoder(model: Any, render: Render | None) -> Callable[[PyTree, Any], jax.Array]:
    """Return a compiled `(params of the model, rows) -> latents`."""

    def encode(params: PyTree, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda o: model.encode(params, o).latent)(rows if render is None else render(rows))

    return jax.jit(encode)


def _warn(what: str, why: str | None, timesteps: int) -> None:
    if why is not None:
        warnings.warn(
            f"after {timesteps} steps, {what} diverged in training ({why}): its last good weights are kept",
            RuntimeWarning,
            stacklevel=4,
        )
