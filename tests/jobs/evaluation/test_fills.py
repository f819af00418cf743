"""A guided row sees the true edges inside the hole, and only generators that follow lines have one."""

import numpy as np

from benchmarks.photographs import photograph
from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.fills import Holes, open_fills
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.settings import EvaluateConfig, RowsConfig
from tests.jobs.tracking.models import write_model

IMAGE = photograph(3, 48)
MASKS = np.zeros((2, 48, 48), np.uint8)
MASKS[0, 10:40, 8:30] = MASKS[1, 30:, :] = 1
HOLES = Holes("key", IMAGE, MASKS)
TRUTHS = HOLES.images


def fills_of(folder, generator, *, guided):
    write_model(folder, generator)
    config = EvaluateConfig(rows=RowsConfig(guided=guided))
    return open_fills(EvaluationJob(name=generator, images="", masks="", model=str(folder), config=config))


def test_a_guided_row_sees_the_true_edges_and_the_others_do_not(tmp_path):
    fills = fills_of(tmp_path / "model", "edge_connect", guided=True)
    assert set(fills) == {"edge_connect", "edge_connect_guided"}
    plain, guided = (fill.fill([HOLES], [fill.prepare(HOLES)])[0].pictures for fill in fills.values())
    recipe, receipt = load_trained(tmp_path / "model")
    lines = np.stack([canny_edges(IMAGE, EdgeConfig())] * 2)
    assert (lines * MASKS).any()
    expected = inpaint_images(recipe, receipt.edges, TRUTHS, MASKS, lines)["composite"]
    assert np.array_equal(guided["composite"], expected)
    assert not np.array_equal(guided["composite"], plain["composite"])
    assert np.array_equal(guided["composite"][MASKS == 0], TRUTHS[MASKS == 0])
    assert "edge" not in guided  # they would score as predicted edges


def test_a_generator_without_lines_has_no_guided_row(tmp_path):
    assert set(fills_of(tmp_path / "unet", "unet", guided=True)) == {"unet"}
    assert set(fills_of(tmp_path / "lines", "edge_connect", guided=False)) == {"edge_connect"}
