"""Load a registered generator. MLflow runs this file beside a copy of the code that trained the generator."""

from __future__ import annotations

from jobs.evaluation.inference import load_registered
from jobs.tracking.mlflow_runs import RegisteredModel, serve

serve(RegisteredModel(load_registered))
