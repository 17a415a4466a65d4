"""Goals given as images, reached by planning in learned latent spaces: data, training, evaluation, ablations, pictures.

    python -m benchmarks.pixels --task two_rooms --seeds 3                 # collect, train, evaluate, draw
    python -m benchmarks.pixels --task two_rooms --seeds 3 --resume        # evaluate what was trained, once more
    python -m benchmarks.pixels --task two_rooms --ablate all --updates 2000
    python -m benchmarks.pixels --task two_rooms --leaves                  # windy leaves: JEPA beside its generative twin
    python -m benchmarks.pixels --task two_rooms --watching                # nine trajectories in ten tell no actions

| module | what it does |
|---|---|
| `recipes` | every number: what each task is trained and planned with, the planners compared, the ablations |
| `worlds` | tasks as the benchmark needs them: data, the fixed manifest of starts and goals, true lengths of ways |
| `episodes` | whole episodes, many at once in one compiled program; planners never touch the environment |
| `probes` | what latents tell, and how true distances in them are |
| `drawing` | paths, distance fields, a film |
| `study` | trains and evaluates one variant with one seed |
| `report` | JSON, CSV and Markdown |

Success is judged by the environment alone, where the dot is at the end of the budget. Beside every planner stand two floors:
uniformly random actions, and greed, the descent of the latent distance over a single block.
"""
