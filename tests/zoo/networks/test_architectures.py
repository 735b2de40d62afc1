import pytest
import torch
from torch import nn

from zoo.networks.architectures.cnn import CNN
from zoo.networks.architectures.mlp import MLP
from zoo.networks.architectures.resnet import Block, ResNet
from zoo.networks.parameters import ParameterLayout


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (ResNet(), 78_042),
        (ResNet(width=0.875), 59_944),
        (MLP([784, 512, 512, 512, 10]), 935_434),
        (CNN(), 4_970),
    ],
    ids=["ResNet8", "narrow ResNet8", "MLP", "Small CNN Zoo"],
)
def test_networks_have_the_published_number_of_parameters(network, count):
    assert sum(p.numel() for p in network.parameters()) == ParameterLayout.of(network).size == count


@pytest.mark.parametrize(("blocks", "depth"), [(1, 8), (2, 14), (3, 20)])
def test_resnets_have_the_depth_in_their_name(blocks, depth):
    network = ResNet(blocks)
    weights = [weight.name for weight in ParameterLayout.of(network).weights]
    assert len([name for name in weights if "shortcut" not in name]) == depth
    assert len([name for name in weights if "shortcut" in name]) == 2
    assert sum(isinstance(m, Block) for m in network.modules()) == 3 * blocks


def test_blocks_of_a_stage_share_the_axis_of_its_residual_stream():
    layout = ParameterLayout.of(ResNet(blocks=3))
    for stage, units in ((1, 16), (2, 32), (3, 64)):
        writers = [f"layer{stage}.{b}.conv2.weight" for b in range(3)]
        readers = [f"layer{stage}.{b}.conv1.weight" for b in range(1, 3)]
        assert {layout[name].axes[0] for name in writers} == {f"stream{stage}"}
        assert {layout[name].axes[1] for name in readers} == {f"stream{stage}"}
        assert layout.axes[f"stream{stage}"] == units
    assert layout["conv1.weight"].axes[0] == "stream1"
    assert layout["layer2.0.shortcut.0.weight"].axes[:2] == ("stream2", "stream1")
    assert len(layout.hidden_axes) == 3 + 9


def test_a_block_adds_to_its_input():
    block = Block(4, 4, 1, "tanh", "group").double()
    nn.init.zeros_(block.ln2.weight)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x.tanh())


def test_stages_halve_the_image_and_double_the_channels():
    network, shapes = ResNet(), {}
    for stage in (1, 2, 3):
        module = network.get_submodule(f"layer{stage}")
        module.register_forward_hook(lambda m, i, out, stage=stage: shapes.update({stage: tuple(out.shape[1:])}))
    network(torch.zeros(1, 3, 32, 32))
    assert shapes == {1: (16, 32, 32), 2: (32, 16, 16), 3: (64, 8, 8)}
