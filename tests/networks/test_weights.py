"""Weights that leave for MONAI, and come back whole or not at all."""

import pytest
import torch
from monai.networks.nets import DynUNet, SwinUNETR
from monai.networks.nets import resnet as monai_resnet
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import nn

from medssl.config import ModelConfig
from medssl.errors import UserError
from medssl.networks.pyramid import build_encoder
from medssl.networks.weights import export_state, load_state, to_dynunet, weights_from


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("dims", [2, 3])
def test_resnets_have_names_and_shapes_of_plain_monai(name, dims):
    with torch.device("meta"):
        ours = build_encoder(ModelConfig(encoder=name, dims=dims)).state_dict()
        theirs = getattr(monai_resnet, name)(spatial_dims=dims, n_input_channels=1, feed_forward=False).state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


@pytest.mark.parametrize("dims", [2, 3])
def test_default_width_resnet_loads_into_plain_monai(dims):
    encoder = build_encoder(ModelConfig(encoder="resnet18", dims=dims))
    state = export_state(encoder.to(memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d))
    assert all(value.is_contiguous() for value in state.values())
    plain = monai_resnet.resnet18(spatial_dims=dims, n_input_channels=1, feed_forward=False)
    plain.load_state_dict(state, strict=True)


@pytest.mark.parametrize("dims", [2, 3])
def test_resnet_activations_equal_monais(dims):
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(dims=dims)).eval()
    kwargs = {"spatial_dims": dims, "n_input_channels": 1, "feed_forward": False, "conv1_t_stride": 2}
    plain = monai_resnet.resnet18(**kwargs).eval()
    plain.load_state_dict(export_state(encoder), strict=True)
    x = torch.randn(1, 1, *(32,) * dims)
    with torch.no_grad():
        assert torch.allclose(plain(x), encoder(x)[-1].flatten(2).mean(2), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_default_width_swin_is_plain_monai(dims):
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(encoder="swin", dims=dims)).eval()
    plain = SwinTransformer(
        1, 48, (7,) * dims, (2,) * dims, depths=(2, 2, 2, 2), num_heads=(3, 6, 12, 24), spatial_dims=dims
    ).eval()
    plain.load_state_dict(export_state(encoder), strict=True)
    x = torch.randn(1, 1, 64, *(32,) * (dims - 1))
    with torch.no_grad():
        for ours, theirs in zip(encoder(x), plain(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_default_width_swin_loads_into_the_encoder_of_swin_unetr():
    encoder = build_encoder(ModelConfig(encoder="swin", dims=3))
    SwinUNETR(1, 2, feature_size=48).swinViT.load_state_dict(export_state(encoder), strict=True)


@pytest.mark.parametrize("name", ["unet", "resunet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_unet_loads_into_dynunet_by_its_key_map(name, dims):
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(encoder=name, dims=dims, width=8)).eval()
    plain = DynUNet(
        dims, 1, 2, [3] * 5, [1, 2, 2, 2, 2], [2] * 4,
        filters=encoder.channels, norm_name="batch", res_block=name == "resunet",
    ).eval()  # fmt: skip
    renamed = to_dynunet(export_state(encoder))
    result = plain.load_state_dict(renamed, strict=False)
    assert not result.unexpected_keys and len(renamed) == len(encoder.state_dict())  # matched share: all
    x = torch.randn(1, 1, *(32,) * dims)
    with torch.no_grad():
        theirs = [plain.input_block(x)]
        for block in [*plain.downsamples, plain.bottleneck]:
            theirs.append(block(theirs[-1]))
        ours = encoder(x)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_there_and_back():
    torch.manual_seed(0)
    one, two = (build_encoder(ModelConfig(width=8)) for _ in range(2))
    load_state(two, export_state(one))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"width": 16}, "another shape"), ({"channels": 3}, "another shape"), ({"dims": 3}, "another shape"),
     ({"norm": "group"}, "missing"), ({"encoder": "resnet34"}, "missing"), ({"encoder": "unet"}, "missing")],
)  # fmt: skip
def test_other_architecture_is_refused_and_nothing_loaded(changes, said):
    other = build_encoder(ModelConfig(**{"width": 8, **changes}))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match="weights") as caught:
        load_state(other, export_state(build_encoder(ModelConfig(width=8))), "run/encoder.safetensors")
    text = str(caught.value)
    assert ("another shape" in text or "missing" in text) and "\n" not in text and "encoder.safetensors" in text
    assert said in text
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_weights_come_from_their_seed_and_the_users_generator_goes_on():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn = []
    for seed in (1, 1, 2):
        with weights_from(seed):
            drawn.append(nn.Linear(3, 3).weight)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
