"""Find the operations of the forward passes that do not keep channels innermost, with `train.channels_last`.

    python -m benchmarks.layout            the table, for every generator at its paper's scale

Steps run on the device "meta", see benchmarks/calculated.py, whose operations choose the order of their results in
memory as those of a GPU do. Convolutions do not, and follow cuDNN's rule here: channels are innermost if they are so in
the input or in the weight. Nothing is measured. The backward passes are left out: "meta" does not know the order of
their results.

GB: of feature maps, (N, C, H, W) with more than one channel and pixel, that the forward passes of the heaviest step
    write.
lost: share of them that operations write with pixels innermost although an input has channels innermost. The next
    convolution copies them.
operations: those that write most of the lost bytes.
"""

from __future__ import annotations

import argparse
import collections
from typing import Any

import torch
from torch import Tensor

from benchmarks.calculated import Meter, take_steps
from benchmarks.generators import SIZE, paper_config
from jobs.generators import names
from jobs.training.settings import TrainConfig

aten = torch.ops.aten


class LayoutMeter(Meter):
    """Add up the bytes of feature maps by the order of their dimensions in memory."""

    def reset(self) -> None:
        super().reset()
        self.map_bytes = 0
        self.lost: collections.Counter[str] = collections.Counter()
        """Operation -> bytes of results with pixels innermost, of inputs with channels innermost."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is aten.convolution.default and any(map(_has_channels_innermost, args[:2])):
            return torch.empty_like(result, memory_format=torch.channels_last)
        return result

    def _count(self, func: Any, args: tuple, kwargs: dict, given: list, returned: list, result: Any) -> None:
        super()._count(func, args, kwargs, given, returned, result)
        if torch._C._current_autograd_node() is not None:
            return  # a backward pass
        was_innermost = any(_is_map(tensor) and _has_channels_innermost(tensor) for tensor in given)
        for tensor in filter(_is_map, returned):
            num_bytes = tensor.numel() * tensor.element_size()
            self.map_bytes += num_bytes
            if was_innermost and func is not aten.convolution.default and not _has_channels_innermost(tensor):
                self.lost[func._overloadpacket.__name__] += num_bytes


def _is_map(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.shape[1] > 1 and tensor.shape[2] * tensor.shape[3] > 1


def _has_channels_innermost(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def measure_layout(name: str, config: Any, side: int) -> dict[str, Any]:
    """Return the figures of the step of a generator that writes most feature maps.

    name, config, side: see `benchmarks.calculated.calculate`.
    """
    meter = LayoutMeter()
    rows = [
        {"what": what, "gigabytes": meter.map_bytes / 1e9, "lost": meter.lost}
        for what, _ in take_steps(name, config, side, TrainConfig(channels_last=True), meter)
    ]
    return max(rows, key=lambda row: row["gigabytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=None, metavar="GENERATOR")
    print("step                                              GB   lost  operations")
    for name in parser.parse_args().only or names():
        config = paper_config(name)
        row = measure_layout(name, config, getattr(config, "image_size", SIZE))
        share = sum(row["lost"].values()) / 1e9 / row["gigabytes"]
        most = ", ".join(f"{operation} {count / 1e9:.2g}" for operation, count in row["lost"].most_common(4))
        print(f"{row['what']:44}{row['gigabytes']:8.3g}{share:7.0%}  {most}", flush=True)


if __name__ == "__main__":
    main()
