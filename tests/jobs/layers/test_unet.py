import pytest
import torch
from torch import nn

from jobs.layers.unet import UNet


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("in_channels", "arguments", "expected"),
    [(4, {}, 54_420_483), (3, {}, 54_419_459), (4, {"join_channels": {3: 256}}, 54_944_771)],
)
def test_parameters_are_those_of_the_published_network(in_channels, arguments, expected):
    with torch.device("meta"):
        assert count(UNet(in_channels, 3, **arguments)) == expected


def test_skips_halve_and_widen_up_to_eight_times():
    with torch.device("meta"):
        unet, image = UNet(4, 3), torch.zeros(2, 4, 256, 512)
        skips = unet.encode(image)
        assert unet(image).shape == (2, 3, 256, 512)
    widths = (64, 128, 256, 512, 512, 512, 512, 512)
    assert [skip.shape for skip in skips] == [
        (2, width, 256 // 2**level, 512 // 2**level) for level, width in enumerate(widths, 1)
    ]


def test_encoding_stops_where_it_is_told():
    torch.manual_seed(0)
    unet, image = UNet(3, 3, width=4, levels=5), torch.randn(1, 3, 32, 32)
    first = unet.encode(image, levels=3)
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, unet.encode(image), strict=False))


def test_norms_are_at_all_layers_but_the_first_the_deepest_and_the_last():
    unet = UNet(3, 3, width=4, levels=5)
    downs = [[type(layer).__name__ for layer in stage] for stage in unet.downs]
    ups = [[type(layer).__name__ for layer in stage] for stage in unet.ups]
    assert downs == [
        ["Conv2d"],
        *[["LeakyReLU", "Conv2d", "InstanceNorm2d"]] * 3,
        ["LeakyReLU", "Conv2d"],
    ]
    assert ups == [*[["ConvTranspose2d", "InstanceNorm2d"]] * 4, ["ConvTranspose2d"]]
    assert all(layer.affine for layer in unet.modules() if isinstance(layer, nn.InstanceNorm2d))
    assert count(UNet(3, 3, width=4, levels=5, affine=False)) == count(unet) - 2 * (8 + 16 + 32 + 32 + 16 + 8 + 4)


def test_what_a_paper_inserts_reaches_the_level_above_alone():
    torch.manual_seed(0)
    unet = UNet(3, 3, width=4, levels=4, join_channels={2: 5})
    skips = unet.encode(torch.randn(1, 3, 16, 16))
    seen = []

    def insert(joined):
        seen.append(joined)
        return torch.cat((joined, torch.ones(1, 5, 4, 4)), dim=1)

    output = unet.decode(skips, {2: insert})
    assert output.shape == (1, 3, 16, 16)
    assert seen[0].shape == (1, 16, 4, 4)  # 8 decoded, 8 of the skip
    assert torch.equal(seen[0][:, 8:], skips[1].relu())
    decoded = None
    for level in unet.upwards:
        joined = unet.join(level, decoded, skips)
        decoded = unet.up(level, insert(joined) if level == 2 else joined)
    assert torch.equal(decoded, output)
