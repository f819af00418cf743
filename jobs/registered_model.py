"""What MLflow runs to load a registered generator; it stands beside a copy of the code that trained it."""

from __future__ import annotations

from jobs.tracking import RegisteredModel, serve
from jobs.trained import load_registered

serve(RegisteredModel(load_registered))
