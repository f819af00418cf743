"""Label maps: k-means against scikit-learn's own labels, fitting as images are fitted, a segmenter from a file."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from benchmarks.photographs import photograph
from datasets.maps.semantics import SemanticsConfig, fit_clusters, fit_labels, pixel_features, segment
from files.errors import UserError
from files.pictures import fit

CONFIG = SemanticsConfig(num_clusters=4)


def test_equal_images_give_equal_clusters_and_the_largest_comes_first():
    images = [photograph(n, 32) for n in range(6)]
    clusters = fit_clusters(images, CONFIG, 7)
    assert clusters == fit_clusters(images, CONFIG, 7)
    assert clusters != fit_clusters(images[:3], CONFIG, 7)
    counts = np.bincount(np.concatenate([clusters.label(image).ravel() for image in images]), minlength=4)
    assert len(counts) == 4
    assert counts[0] > 0.8 * counts.max()  # ordered by the sample of pixels, not by all


def test_every_pixel_belongs_to_its_nearest_centre():
    image = photograph(3, 16)
    clusters = fit_clusters([photograph(n, 32) for n in range(6)], CONFIG, 7)
    features = (pixel_features(image) - clusters.mean) * clusters.scale
    expected = [min(range(4), key=lambda k, f=f: sum((f - np.array(clusters.centres[k])) ** 2)) for f in features]
    assert clusters.label(image).ravel().tolist() == expected


def test_clusters_separate_colours_that_differ():
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, :12], image[:, 12:] = (200, 30, 30), (30, 30, 200)
    clusters = fit_clusters([image], SemanticsConfig(num_clusters=2, position_weight=0.0), 1)
    labels = clusters.label(image)
    assert len(np.unique(labels[:, :12])) == len(np.unique(labels[:, 12:])) == 1
    assert labels[0, 0] != labels[0, -1]


@pytest.mark.parametrize(
    ("rule", "there"), [("crop", {0, 1}), ("squash", {0, 1, 2}), ("shorter", {0, 1, 2}), ("cut", {1})]
)
def test_labels_land_where_their_pixels_land(rule, there):
    """A map of half the image's size, drawn as the image is: labels must follow the picture's squares."""
    labels = np.zeros((60, 100), np.uint8)
    labels[20:40, 30:60], labels[:, 90:] = 1, 2
    image = np.repeat(np.repeat(np.repeat(100 * labels[..., None], 3, axis=2), 2, axis=0), 2, axis=1)
    fitted = fit(image, 20, rule)[..., 0] / 100
    found = fit_labels(labels, image.shape[:2], fitted.shape, rule)
    assert np.mean(np.abs(fitted - found) > 0.5) < 0.05
    assert set(np.unique(found)) == there


def test_a_segmenter_is_read_from_a_file_and_named_when_wrong(tmp_path):
    name = "lraspp_mobilenet_v3_large"
    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=21).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = SemanticsConfig(source="segmenter", segmenter=name, segmenter_weights=str(tmp_path / "weights.pth"))
    image = photograph(4, 64)
    labels = segment(image, config)
    assert labels.dtype == np.uint8
    scaled = torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    with torch.no_grad():
        expected = model((scaled / torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1))[None])["out"][0].argmax(0)
    assert np.mean(labels == expected.numpy()) > 0.999
    with pytest.raises(ValueError, match=r"torchvision has no segmenter 'unet'; there are deeplabv3|did you mean"):
        segment(image, dataclasses.replace(config, segmenter="unet"))
    with pytest.raises(UserError, match=r"absent\.pth .*segmenter_weights"):
        segment(image, dataclasses.replace(config, segmenter_weights=str(tmp_path / "absent.pth")))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"not the weights of {name}"):
        segment(image, dataclasses.replace(config, segmenter_weights=str(tmp_path / "other.pth")))


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="num_clusters"):
        SemanticsConfig(num_clusters=1)
    with pytest.raises(ValueError, match="position_weight"):
        SemanticsConfig(position_weight=-1.0)
    with pytest.raises(ValueError, match="at least one image"):
        fit_clusters([], CONFIG, 1)
