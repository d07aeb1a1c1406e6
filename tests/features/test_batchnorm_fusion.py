"""Batch normalization fusion: a network with the same outputs, or the network itself."""

from types import SimpleNamespace

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from likely.features.backbone import Backbone
from likely.features.batchnorm_fusion import fuse_batchnorm


class Network(nn.Module):
    """Convolution and normalization with the outputs of a transformers network."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.convolution, self.normalization = kind, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.again = nn.BatchNorm2d(4)

    def forward(self, x, output_hidden_states=False):
        h = self.convolution(x)
        out = self.normalization(h.relu() if self.kind == "apart" else h)
        if self.kind == "used elsewhere":
            out = out + h
        if self.kind == "used twice":
            out = self.normalization(out)
        return SimpleNamespace(last_hidden_state=out, hidden_states=(h,) if self.kind == "shown" else ())


def shaken(network):
    """The network with random weights and statistics."""
    torch.manual_seed(0)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return network.eval()


def normalizations(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("kind", "is_folded"),
    [("plain", True), ("apart", False), ("used elsewhere", False), ("used twice", False), ("shown", False)],
)
def test_fused_network_has_the_same_outputs(kind, is_folded):
    network, x = shaken(Network(kind)), torch.rand(2, 3, 8, 8)
    quick = fuse_batchnorm(network, x)
    assert normalizations(quick) == (1 if is_folded else 2)
    assert normalizations(network) == 2
    assert_allclose(quick(x).last_hidden_state.detach(), network(x).last_hidden_state.detach(), rtol=1e-4)


def test_backbone_fuses_batchnorm_in_inference_mode_after_every_weight_change(backbone):
    f, x, calls = Backbone.pretrained(str(backbone)), torch.rand(2, 3, 32, 32), []
    names = set(f.state_dict())
    for module in f.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        with torch.inference_mode():
            f(x)  # fuses a copy of the network
            calls.clear()
            fused = f(x)
            assert not calls
        assert_allclose(fused, f(x).detach(), rtol=1e-3, atol=1e-4)
        shaken(f.network)
        for tensor in f.network.parameters():
            with torch.no_grad():
                tensor.mul_(0.3)
    assert set(f.state_dict()) == names
