"""World models: perception, prediction, the data they learn from, and how they learn."""

from world_models import data, networks
from world_models.analytic import analytic
from world_models.base import Imagined, WorldModel
from world_models.data import Moments
from world_models.jepa import jepa
from world_models.latent_variables import latent_variable_model
from world_models.losses import anticollapse, bottleneck
from world_models.pixels import Latent, pixel_jepa
from world_models.reconstruction import reconstruction
from world_models.training import action_labels, diagnostics
from world_models.training.trainer import Trainer, Training, trainer

__all__ = [
    "Imagined",
    "Latent",
    "Moments",
    "Trainer",
    "Training",
    "WorldModel",
    "action_labels",
    "analytic",
    "anticollapse",
    "bottleneck",
    "data",
    "diagnostics",
    "jepa",
    "latent_variable_model",
    "networks",
    "pixel_jepa",
    "reconstruction",
    "trainer",
]
