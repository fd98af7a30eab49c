"""The Python interface of the service: load a published model and predict, without a server and without torch."""

from serving.python.loading import load
from serving.python.model import LoadedModel
from serving.python.predictions import Numbers, Prediction, Predictions

__all__ = ["LoadedModel", "Numbers", "Prediction", "Predictions", "load"]
