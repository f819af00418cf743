import pytest
import torch
from torch.nn import functional as F

from jobs.layers.convolution import GatedConv2d


def test_the_first_half_is_the_feature_and_the_second_the_gate():
    layer = GatedConv2d(3, 5, 3, dilation=2)
    x = torch.randn(2, 3, 9, 11)
    weight, bias = layer.conv.weight, layer.conv.bias
    feature = F.conv2d(x, weight[:5], bias[:5], padding=2, dilation=2)
    gate = F.conv2d(x, weight[5:], bias[5:], padding=2, dilation=2)
    torch.testing.assert_close(layer(x), F.elu(feature) * torch.sigmoid(gate))


def test_a_shut_gate_gives_zero_and_an_open_gate_the_feature():
    layer = GatedConv2d(3, 4, 5)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        layer.conv.bias[4:] = -1e4
        assert torch.equal(layer(x), torch.zeros(1, 4, 8, 8))
        layer.conv.bias[4:] = 1e4
        feature = F.conv2d(x, layer.conv.weight[:4], layer.conv.bias[:4], padding=2)
        torch.testing.assert_close(layer(x), F.elu(feature))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation"), [(3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 16)]
)
def test_padding_keeps_the_size_up_to_the_stride(kernel_size, stride, dilation):
    layer = GatedConv2d(2, 3, kernel_size, stride=stride, dilation=dilation)
    assert layer(torch.randn(1, 2, 40, 24)).shape == (1, 3, 40 // stride, 24 // stride)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        GatedConv2d(2, 3, 4)
