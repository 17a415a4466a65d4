"""World models: perception, prediction, the data they learn from, and how they learn."""

from world_models.analytic import analytic
from world_models.base import Imagined, Moments, WorldModel
from world_models.jepa import jepa
from world_models.training import Trainer, Training, trainer

__all__ = ["Imagined", "Moments", "Trainer", "Training", "WorldModel", "analytic", "jepa", "trainer"]
