import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jobs.layers.convolution import GatedConv2d, NarrowConv2d


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


@pytest.mark.parametrize(("kernel_size", "reflect"), [(7, 3), (5, 0), (1, 0)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_narrow_convolution_is_pytorchs_with_its_gradients(kernel_size, reflect, layout):
    torch.manual_seed(0)
    ours = NarrowConv2d(4, 3, kernel_size, reflect=reflect).double()
    torch.manual_seed(0)
    theirs = nn.Conv2d(4, 3, kernel_size, padding=reflect, padding_mode="reflect").double()
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 4, 9, 12, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    found = [layer(x) for layer in (ours, theirs)]
    torch.testing.assert_close(*found)
    weights = torch.randn_like(found[0])
    gradients = [
        torch.autograd.grad((output * weights).sum(), (x, *layer.parameters()))
        for output, layer in zip(found, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients)
