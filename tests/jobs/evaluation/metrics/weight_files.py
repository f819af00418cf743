"""Files of feature weights, and feature networks, made in code."""

import hashlib
import io

import torch
from torch import nn

from jobs.evaluation.settings import Weights


class MeanColour(nn.Module):
    """Three features: the mean of each channel, in levels."""

    num_features = 3

    def forward(self, pictures):
        assert pictures.dtype == torch.uint8
        return pictures.double().mean(dim=(2, 3))


def save(state, path):
    torch.save(state, path)
    return Weights(path, hashlib.sha256(path.read_bytes()).hexdigest())


def random_inception_state():
    from torchmetrics.image.fid import NoTrainInceptionV3

    class Unloaded(NoTrainInceptionV3):
        def load_state_dict(self, state):
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    return Unloaded("inception-v3-compat", ["2048"], empty).state_dict()


def random_alexnet_state():
    from torchvision.models import alexnet

    torch.manual_seed(0)
    return {f"features.{name}": tensor for name, tensor in alexnet().features.state_dict().items()}


def random_vgg16_state():
    """The convolutions of VGG-16. Its dense layers, which LPIPS does not read, would take a gigabyte."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    return {f"features.{name}": tensor for name, tensor in make_layers(cfgs["D"]).state_dict().items()}
