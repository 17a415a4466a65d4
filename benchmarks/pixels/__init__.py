"""Image goals reached by planning in learned latent spaces: data, training, evaluation, ablations, images.

    python -m benchmarks.pixels --task two_rooms --seeds 3                 # collect, train, evaluate, draw
    python -m benchmarks.pixels --task two_rooms --seeds 3 --resume        # evaluate trained models again
    python -m benchmarks.pixels --task two_rooms --ablate all --updates 2000
    python -m benchmarks.pixels --task two_rooms --leaves                  # windy leaves: JEPA and a generative model
    python -m benchmarks.pixels --task two_rooms --action-free             # nine trajectories in ten have no actions

| module | content |
|---|---|
| `recipes` | all numbers: settings of training and planning per task, the compared planners, the ablations |
| `worlds` | tasks with their data, the fixed manifest of starts and goals, true path lengths |
| `episodes` | whole episodes, many in one compiled program; planners have no access to the environment |
| `probes` | information in latents, and accuracy of latent distances |
| `drawing` | paths, distance fields, a film |
| `study` | training and evaluation of one variant with one seed |
| `report` | JSON, CSV and Markdown |

The environment alone decides success: the dot is at the goal at the end of the budget. Two lower bounds accompany every
planner: uniformly random actions, and a greedy planner that minimises the latent distance over a single block.
"""
