"""Learning speed of the agent compared with reinforcement learning, on the same seeds and episodes.

    python -m benchmarks.learning                                             # Pendulum: craik, random actions, true model
    python -m benchmarks.learning Pendulum-v1 --against sac ppo --seeds 5     # or: craik bench Pendulum-v1 ...
    python -m benchmarks.learning Pendulum-v1 CartPole-v1 --against sac dqn   # methods skip tasks that they cannot play
    python -m benchmarks.learning --suite --against sac ppo tqc dqn --seeds 5 --cores 8
    python -m benchmarks.learning Hopper-v5 --at 5000 20000 --goal 1000       # any Gymnasium task

| module | content |
|---|---|
| `tasks` | evaluation steps, goals and true models of tasks; other tasks need only their id |
| `methods` | the table of methods; a new method is a new row |
| `run` | one task, method and seed in its own process on one core; writes raw data to one file |
| `sweep` | all runs in parallel; skips finished runs and records failures |
| `summary` | interquartile means with stratified bootstrap intervals, steps to the goal, probability of improvement |
| `report`, `drawing` | Markdown, JSON, CSV; curves over steps and CPU seconds, performance profiles |

A score is the return of whole episodes without exploration, at fixed numbers of environment steps. Evaluation counts
neither as steps nor as time. Every run has its own core. `published.json` has published results on the same tasks.
"""
