"""Files of feature weights are checked, and no code in them is run."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from jobs.evaluation.metrics.feature_weights import WeightsError
from jobs.evaluation.metrics.inception import load_inception
from jobs.evaluation.metrics.lpips import load_lpips
from jobs.evaluation.settings import Weights
from tests.jobs.evaluation.metrics.weight_files import save


@pytest.mark.parametrize("build", [load_inception, load_lpips, partial(load_lpips, trunk="vgg")])
def test_wrong_weights_are_an_error(build, tmp_path):
    weights = save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        build(weights)
    with pytest.raises(WeightsError, match="SHA-256"):
        build(Weights(weights.path, "0" * 64))
    with pytest.raises(WeightsError, match="not a file of tensors"):
        build(save(torch.zeros(1), tmp_path / "tensor.pth"))


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    with pytest.raises(WeightsError, match="not a file of tensors"):
        load_inception(save({"bomb": Bomb()}, tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_the_modules_that_the_report_and_the_parameters_need_load_no_torch():
    heavy = "{'torch', 'torchmetrics', 'matplotlib', 'cv2'}"
    for module in ("pixels", "intervals", "value", "feature_weights"):
        code = f"import sys, jobs.evaluation.metrics.{module}; sys.exit(bool({heavy} & set(sys.modules)))"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4])
