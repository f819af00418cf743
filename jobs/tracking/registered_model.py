"""What MLflow runs to load a registered generator; it stands beside a copy of the code that trained it."""

from __future__ import annotations

from jobs.evaluation.inference import load_registered
from jobs.tracking.mlflow_runs import RegisteredModel, serve

serve(RegisteredModel(load_registered))
