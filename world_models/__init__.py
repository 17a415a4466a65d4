"""World models: perception, prediction, the data they learn from, and how they learn."""

from world_models import anticollapse, datasets, diagnostics, information, networks, watching
from world_models.analytic import analytic
from world_models.base import Imagined, Moments, WorldModel
from world_models.jepa import jepa
from world_models.latent_variables import latent_variable_model
from world_models.pixels import Latent, pixel_jepa
from world_models.reconstruction import reconstruction
from world_models.training import Trainer, Training, trainer

__all__ = [
    "Imagined",
    "Latent",
    "Moments",
    "Trainer",
    "Training",
    "WorldModel",
    "analytic",
    "anticollapse",
    "datasets",
    "diagnostics",
    "information",
    "jepa",
    "latent_variable_model",
    "networks",
    "pixel_jepa",
    "reconstruction",
    "trainer",
    "watching",
]
