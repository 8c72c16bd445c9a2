"""What every encoder promises: one suite over the rows of ENCODERS."""

import pytest
import torch

from medssl.config import ModelConfig
from medssl.errors import UserError
from medssl.networks.pyramid import ENCODERS, build_encoder, check_patch

ALL = [(name, dims) for name in ENCODERS for dims in (2, 3)]


def make(name, dims, **options):
    torch.manual_seed(0)
    return build_encoder(ModelConfig(encoder=name, dims=dims, **{"width": 8, **options}))


def two_positions(encoder):
    """A crop that leaves two positions of the coarsest map."""
    return tuple(n * s for n, s in zip((2, 1, 1), encoder.strides[-1], strict=False))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_maps_are_what_channels_and_strides_say(name, dims):
    encoder = make(name, dims, channels=2)
    size = tuple(2 * s for s in encoder.strides[-1])
    maps = encoder(torch.randn(2, 2, *size))
    assert encoder.dims == dims and len(maps) == len(encoder.channels) == len(encoder.strides)
    for level, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert level.shape == (2, channels, *(n // s for n, s in zip(size, stride, strict=True)))
    assert all(a <= b for fine, coarse in zip(encoder.strides, encoder.strides[1:], strict=False)
               for a, b in zip(fine, coarse, strict=True))  # fmt: skip


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_every_parameter_gets_a_gradient_and_two_seeds_differ(name, dims):
    encoder = make(name, dims)
    size = two_positions(encoder)
    sum(level.square().mean() for level in encoder(torch.randn(2, 1, *size))).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in encoder.parameters())
    torch.manual_seed(1)
    other = build_encoder(ModelConfig(encoder=name, dims=dims, width=8))
    assert not torch.equal(next(encoder.parameters()), next(other.parameters()))


@pytest.mark.parametrize(("name", "dims"), ALL)
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norm_is_exchanged_everywhere(name, dims, norm):
    encoder = make(name, dims, norm=norm)
    kinds = [type(m).__name__ for m in encoder.modules() if "Norm" in type(m).__name__]
    wanted = "Laye" if name == "swin" else "Inst" if norm == "instance" else "Grou"  # tokens have norms of their own
    assert kinds and {kind[:4] for kind in kinds} == {wanted}
    one = torch.randn(1, 1, *two_positions(encoder), dtype=torch.float64)
    many = torch.cat([one, torch.randn_like(one)])
    encoder = encoder.double()
    assert torch.allclose(encoder(many)[-1][:1], encoder(one)[-1], atol=1e-8)  # neighbours do not matter


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_a_crop_may_be_longer_along_one_axis(name, dims):
    encoder = make(name, dims)
    size = tuple(n * s for n, s in zip((3, 1, 2), encoder.strides[-1], strict=False))
    check_patch(encoder, size)
    assert encoder(torch.randn(2, 1, *size))[-1].shape[2:] == (3, 1, 2)[:dims]


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_masked_channels_are_zero_at_every_position_and_nothing_passes_them_by(name, dims):
    encoder = make(name, dims).eval()
    size = two_positions(encoder)
    x, other = torch.randn(2, 2, 1, *size).unbind()
    keep = torch.arange(8).repeat(2, 1) % 3 == torch.tensor([[0], [1]])  # other channels for each sample
    plain, maps = encoder(x), encoder(x, keep)
    assert torch.equal(maps[0].flatten(2).abs().amax(2) > 0, keep)
    for axis in range(2, dims + 2):  # every slab of every axis still has values: what is masked are channels
        assert bool((maps[0].abs().movedim(axis, 1).flatten(2).amax(2) > 0).all())
    if name != "swin":  # it normalises each token over the channels that are left
        assert torch.equal(maps[0], plain[0] * keep.view(2, 8, *(1,) * dims))
    for level, channels in zip(maps, encoder.channels, strict=True):
        assert level.shape[1] == channels
    assert not torch.allclose(maps[-1], plain[-1])
    nothing = torch.zeros_like(keep)
    assert all(torch.equal(a, b) for a, b in zip(encoder(x, nothing), encoder(other, nothing), strict=True))
    everything = encoder(x, torch.ones_like(keep))
    assert all(torch.equal(a, b) for a, b in zip(plain, everything, strict=True))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_width_scales_every_level(name, dims):
    narrow, wide = make(name, dims), make(name, dims, width=16)
    assert tuple(2 * c for c in narrow.channels) == wide.channels


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_bfloat16_gradients_follow_float32_at_the_smallest_crop(name, dims):
    encoder = make(name, dims, width=16).eval()  # at one position batch statistics would amplify rounding without end
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    encoder = encoder.to(memory_format=layout)
    x = torch.randn(4, 1, *encoder.strides[-1]).contiguous(memory_format=layout)
    with torch.no_grad():
        probes = [torch.randn_like(level) for level in encoder(x)]

    def gradient(autocast):
        encoder.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            maps = encoder(x)
        sum((level.float() * probe).mean() for level, probe in zip(maps, probes, strict=True)).backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters()])

    exact, rounded = gradient(False), gradient(True)
    # Rounding through 50 layers costs up to a third; a wrong kernel costs more than all (1.8 and infinity were seen).
    assert float((rounded - exact).norm() / exact.norm()) < 0.4


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_a_patch_that_does_not_divide_is_named_with_one_that_does(name, dims):
    encoder = make(name, dims)
    good = tuple(2 * s for s in encoder.strides[-1])
    check_patch(encoder, good)
    with pytest.raises(UserError, match="no multiple") as caught:
        check_patch(encoder, tuple(n + 1 for n in good))
    assert str(good) in str(caught.value)
    with pytest.raises(UserError, match="axes"):
        check_patch(encoder, (*good, 64))


@pytest.mark.parametrize(("name", "dims"), ALL)
def test_shape_is_known_without_memory_for_weights(name, dims):
    with torch.device("meta"):
        bare = make(name, dims)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert (bare.channels, bare.strides) == (make(name, dims).channels, make(name, dims).strides)


def test_instance_norm_needs_more_than_one_position():
    encoder = make("resnet18", 2, norm="instance")
    with pytest.raises(UserError, match="instance norm"):
        check_patch(encoder, (32, 32))


def test_unknown_encoder_is_told_the_known_ones():
    with pytest.raises(UserError, match="no encoder 'resnet19': choose one of resnet18"):
        build_encoder(ModelConfig(encoder="resnet19"))
