"""Components: models and compiled functions that agents of one kind share, without anything learnt.

Agents are of one kind where their spaces, settings, cost and model are the same, as a loaded agent is of the kind of the one
that was saved. The second of them in a process need not be compiled anew.
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mpc
from mpc.agent.actor import goal_actor as goal_actors
from mpc.agent.actor.actor_critic import ActorCritic, Hyperparameters, Imagination, actor_critic
from mpc.agent.actor.macro_planning import several_levels
from mpc.agent.actor.policy import Act, Parts, agent_policy, single_level
from mpc.agent.actor.programs import Program
from mpc.agent.config import AgentConfig
from mpc.agent.cost import terms
from mpc.agent.cost.terms import CostParts, ObservationTerm, Shape
from mpc.agent.perception import gym_spaces
from mpc.agent.perception.action_space import action_spaces
from mpc.agent.perception.history import History
from mpc.agent.world_model import build, readout
from world_models import WorldModel
from world_models.base import LatentState
from world_models.distances.temporal import Distance
from world_models.training.diagnostics import effective_rank
from world_models.training.trainer import Trainer, trainer

PyTree = Any
Render = Callable[[jax.Array], jax.Array]
KINDS = 2
"""Kinds that are kept, the last used ones: a kind holds on to its compiled programs, some 2,600 mappings of memory, and a
process may have 65,530 on Linux."""
LEAST_RATE = 0.03
"""Share of the learning rate that is left at the end of an offline training, and beyond it."""
FUTURES = 8
"""Draws of the latent variable that plans are evaluated on, where the model has one."""


class Given(NamedTuple):
    """Parts that a user gives an agent in place of learnt or built ones."""

    cost: ObservationTerm | None = None
    limits: tuple[tuple[str, ObservationTerm], ...] = ()
    model: WorldModel | None = None
    distance: Distance | None = None


class Components:
    """Models and compiled functions of one kind of agent; made by `components`, which tells the arguments.

    `action` is the space of one action, as `gym_spaces.describe` stores it.

    Raises:
        ValueError: If settings do not fit the spaces.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, action: str, config: AgentConfig, given: Given) -> None:
        single = gym_spaces.planner_space(gym_spaces.rebuild(json.loads(action)))
        self.config, self.observation_dtype = config, np.dtype(dtype)
        self.history = History(config.perception.history, shape, single.size)
        self.model = given.model or build.world_model(config, self.history.token, single.size, config.perception.history)
        count, limit = config.world_model.block, config.actor.action_limit
        self.spaces = action_spaces(single, count, limit=limit, normalised=self.model.normalised_actions)
        example = jnp.zeros(self.history.shape, self.observation_dtype)
        self.params_like = jax.eval_shape(self.model.init, jax.random.key(0))
        self.latent: int = jax.eval_shape(self.model.encode, self.params_like, example).latent.shape[0]
        self.distance = given.distance or build.distance(config, self.latent)
        self.macro_models = build.macro_models(config, self.latent)
        self._cost = given.cost
        self._limits: Mapping[str, ObservationTerm] = dict(given.limits)
        self.trainer = lru_cache(partial(make_trainer, self.model, config))
        """`(updates, render) -> Trainer`."""
        self.encode = jax.jit(self.model.encode)
        self.rank = jax.jit(
            lambda params, rows: effective_rank(jax.vmap(lambda o: self.model.encode(params, o).latent)(rows))
        )
        self._programs: dict[tuple[Shape, bool], Program] = {}

    @cached_property
    def parts(self) -> CostParts:
        """Parts of the cost."""
        value = None if self.actor_critic is None else self._value
        return CostParts(self.model, self.spaces, self.distance, value, self.decode, self._cost, self._limits)

    @cached_property
    def actor_critic(self) -> ActorCritic | None:
        """Actor and critic for rewards or a known cost; None where there is neither, or no updates of them."""
        updates = self.config.scaled(self.config.actor.actor_critic_updates)
        rewarding = self.model.has_reward or self._cost is not None
        if not updates or not rewarding or self.model.latents is not None or self.spaces.count > 1:
            return None
        how = Hyperparameters(self.config.world_model.hidden, self.config.actor.imagination_horizon, updates=updates)
        return actor_critic(self._imagination(), how)

    def _imagination(self) -> Imagination:
        bare = CostParts(self.model, self.spaces, self.distance, None, self.decode, self._cost, {})
        (stage, _), known = terms.term_functions(bare), self._cost
        named = [name for name in ("reward", "disagreement") if name in stage]

        def weight(params: PyTree, name: str) -> Any:
            return params["cost"]["weights"].get(name, 0.0)

        def step_cost(params: PyTree, state: LatentState, action: jax.Array, later: LatentState) -> jax.Array:
            time = jnp.asarray(0)
            total = sum((weight(params, name) * stage[name](params, later, action, time) for name in named), jnp.zeros(()))
            return total if known is None else total + weight(params, "cost") * stage["cost"](params, state, action, time)

        def value_floor(params: PyTree) -> jax.Array:
            scales = params["model"].get("scales")
            best = getattr(scales, "reward_best", None)
            if known is not None or best is None:
                return jnp.asarray(-jnp.inf)
            # no future is better than the best reward seen, at every step; an episode may end before a bad one
            discount = self.config.world_model.discount
            return -jnp.maximum(best, 0.0) / scales.reward_std / max(1.0 - discount, 1e-3)

        return Imagination(
            terms.dynamics(bare),
            step_cost,
            value_floor,
            lambda params, observation: self.model.encode(params["model"], observation),
            self.spaces.block,
            self.latent,
        )

    def _value(self, params: PyTree, latent: jax.Array) -> jax.Array:
        assert self.actor_critic is not None
        return self.actor_critic.value(params, params["critic"], latent)

    def decode(self, params: PyTree, state: LatentState) -> jax.Array:
        """Return the observation, or the recorded state, that a latent state stands for.

        Raises:
            ValueError: When traced, if the model has no decoder and nothing was learnt from recordings yet.
        """
        if self.model.decode is not None:
            decoded = self.model.decode(params["model"], state)
            steps, size = self.history.steps, self.history.observation[0]
            return decoded if steps == 1 else decoded.reshape(steps, -1)[0, :size]  # the newest observation of a history
        if "decoder" not in params:
            raise ValueError("observations are decoded by a decoder head (decoder=True), or once recordings are learnt from")
        return readout.read(params["decoder"], state.latent)

    @cached_property
    def goal_actor(self) -> goal_actors.GoalActor | None:
        """Actor for goals; None where there is no distance, or where actor and critic learn."""
        if self.distance is None or self.actor_critic is not None or not self.spaces.single.exact:
            return None
        return goal_actors.goal_actor(self.latent, self.spaces.block)

    def act(self, with_actor: bool) -> Act | None:
        """Return `(params, belief) -> planner variables` of the actor, or None without one."""
        if self.actor_critic is not None:
            made = self.actor_critic
            return lambda params, state: made.act(params["actor"], state.latent)
        if not with_actor or self.goal_actor is None:
            return None
        goals = self.goal_actor
        return lambda params, state: goals.act(params["actor"], self.goal_features(params, state))

    def goal_features(self, params: PyTree, state: LatentState) -> jax.Array:
        """Return the goal actor's input: the latent, the goal's, and the step that would end at the goal."""
        advance = terms.mean_dynamics(self.parts)

        def after(variables: jax.Array) -> jax.Array:
            return terms.to_goal(self.parts, params, advance(params, state, self.spaces.block.relax(variables)))

        step = goal_actors.polyak_step(after, self.spaces.block.size)
        return jnp.concatenate([state.latent, params["cost"]["goal"], step])

    def program(self, shape: Shape, with_actor: bool) -> Program:
        """Return the compiled functions of tasks of one shape, perhaps with a distilled goal actor; made once."""
        key = (shape, with_actor)
        if key not in self._programs:
            self._programs[key] = self._make_program(shape, with_actor)
        return self._programs[key]

    @property
    def shapes(self) -> list[tuple[Shape, bool]]:
        """Shapes of the programs made so far."""
        return list(self._programs)

    def _make_program(self, shape: Shape, with_actor: bool) -> Program:
        config, problem = self.config, terms.problem(self.parts, shape)
        actor = config.actor
        planner = mpc.make_planner(problem, config.planner(actor.iterations, shape.starts))
        if self.macro_models and self.distance is not None and "goal_at_end" in shape.terms:
            planning = several_levels(planner, config, self.macro_models, self.distance)
        else:
            starts = max(actor.first_starts, shape.starts)
            wide = mpc.make_planner(problem, config.planner(max(actor.first_iterations, 1), starts))
            planning = single_level(wide, planner, actor.first_iterations)
        memory = config.memory.correction_memory
        advance = terms.mean_dynamics(self.parts)
        parts = Parts(self.model, advance, self.spaces, self.history, self.act(with_actor), memory, config.every)
        return Program(agent_policy(parts, planning), planner, actor.noise)


def components(shape: tuple[int, ...], dtype: Any, action: Any, config: AgentConfig, given: Given) -> Components:
    """Return the components of a kind of agent, made now or taken from an earlier agent of that kind.

    Args:
        shape, dtype: Of an observation.
        action: Gymnasium space of one action.
        config: Of the agent.
        given: What the user gave in place of what an agent learns or builds.
    """
    text = json.dumps(gym_spaces.describe(action))
    wide = bool(jax.config.read("jax_enable_x64"))
    return _components(tuple(shape), np.dtype(dtype).str, text, json.dumps(config.as_dict()), given, wide)


@lru_cache(maxsize=KINDS)
def _components(shape: tuple[int, ...], dtype: str, action: str, config: str, given: Given, wide: bool) -> Components:
    return Components(shape, np.dtype(dtype), action, AgentConfig().changed(json.loads(config)), given)


def make_trainer(model: Any, config: AgentConfig, updates: int, render: Render | None) -> Trainer:
    """Return the trainer of an agent's world model, for so many updates in one call; `render` as for `Learner`."""
    learning, optimizer = config.learning, model.optimizer
    if learning.learning_rate_decays:
        fall = optax.cosine_decay_schedule(1.0, learning.offline_updates, alpha=LEAST_RATE)
        optimizer = optax.chain(optimizer, optax.scale_by_schedule(fall))
    return trainer(
        model,
        optimizer=optimizer,
        batch=learning.batch,
        length=learning.window,
        updates=updates,
        averaging=config.world_model.averaging,
        block=config.world_model.block,
        render=render,
    )
