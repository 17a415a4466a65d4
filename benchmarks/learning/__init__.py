"""How fast agents learn: ours beside reinforcement learning, on the same seeds and the same episodes.

    python -m benchmarks.learning                                             # Pendulum: ours, random floor, truth
    python -m benchmarks.learning Pendulum-v1 --against sac ppo --seeds 5     # or: craik bench Pendulum-v1 ...
    python -m benchmarks.learning Pendulum-v1 CartPole-v1 --against sac dqn   # methods that cannot play a task are left out
    python -m benchmarks.learning --suite --against sac ppo tqc dqn --seeds 5 --cores 8
    python -m benchmarks.learning Hopper-v5 --at 5000 20000 --goal 1000       # any task of Gymnasium

| module | what it does |
|---|---|
| `tasks` | what is known of tasks: budgets, goals, true models; others need only their id |
| `methods` | one table of who learns: a new method is a new row |
| `run` | one task, method and seed in a process of its own, on one core; its raw figures in one file |
| `sweep` | all of them, side by side; what is there already is not done again, what fails is recorded |
| `summary` | interquartile means with stratified bootstrap intervals, steps to the goal, probability of improvement |
| `report`, `drawing` | Markdown, JSON, CSV; curves against steps and CPU seconds, performance profiles |

Scores are returns of whole episodes without exploration, at fixed numbers of environment steps; scoring costs neither. Every
run has one core to itself. `published.json` has what others measured on the same tasks, with sources.
"""
