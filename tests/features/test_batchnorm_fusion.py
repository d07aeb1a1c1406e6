"""Folding: a network that comes to the same with less to do, or the network as it was."""

from types import SimpleNamespace

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from likely.features.backbone import Backbone
from likely.features.batchnorm_fusion import fuse_batchnorm


class Network(nn.Module):
    """Convolution and normalization, in the way that networks of transformers answer."""

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
    """With statistics and weights that are not those of the beginning."""
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
def test_what_is_folded_comes_to_the_same(kind, is_folded):
    network, x = shaken(Network(kind)), torch.rand(2, 3, 8, 8)
    quick = fuse_batchnorm(network, x)
    assert normalizations(quick) == (1 if is_folded else 2)
    assert normalizations(network) == 2
    assert_allclose(quick(x).last_hidden_state.detach(), network(x).last_hidden_state.detach(), rtol=1e-4)


def test_a_backbone_sees_the_same_with_gradients_and_without_whatever_it_has_learned(backbone):
    found, x = Backbone.pretrained(str(backbone)), torch.rand(2, 3, 32, 32)
    for _ in range(2):
        with torch.inference_mode():
            quick = found(x)
            assert normalizations(found._inference_network()) == 0
        assert_allclose(quick, found(x).detach(), rtol=1e-3, atol=1e-4)
        shaken(found.network)
        for tensor in found.network.parameters():
            with torch.no_grad():
                tensor.mul_(0.3)
    assert not any("quick" in name for name in found.state_dict())
