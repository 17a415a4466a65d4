"""World models: perception, prediction, the data they learn from, and how they learn."""

from world_models import data, networks
from world_models.analytic import analytic
from world_models.base import LatentState, WorldModel, initial_state
from world_models.data import Moments
from world_models.ensemble import EnsemblePredictor
from world_models.latent import LatentSettings, latent_world_model
from world_models.latent_variables import LatentVariableSettings, latent_variable_model
from world_models.losses import anticollapse, bottleneck
from world_models.recipes import ensemble_jepa, jepa
from world_models.reconstruction import reconstruction
from world_models.training import action_labels, diagnostics
from world_models.training.trainer import Trainer, Training, trainer

__all__ = [
    "EnsemblePredictor",
    "LatentSettings",
    "LatentState",
    "LatentVariableSettings",
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
    "ensemble_jepa",
    "initial_state",
    "jepa",
    "latent_variable_model",
    "latent_world_model",
    "networks",
    "reconstruction",
    "trainer",
]
