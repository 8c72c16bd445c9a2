"""TransAtt of PCRL: a transformation code gates features, so that the decoder knows which view to rebuild."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TransformAttention(nn.Module):
    """Gate a feature map by the code of a transformation.

    ``form="channel"``: g = σ(FC_C(ReLU(FC_{C/2}(t)))), F' = F ⊙ g, one weight a channel.
    ``form="outer"``: F' = F ⊙ (g ⊗ s), with s = σ(FC_1(ReLU(FC_{C/2}([t, position])))) one weight a position,
    positions in [-1, 1] along each axis: a rank-one gate over channels × positions, for maps of any size.
    """

    # Paper: outer-product attention, without an equation. Published code: the channel-wise product, "for stability".
    # Ours: the channel-wise product by default, a rank-one gate as the outer form.

    def __init__(self, code: int, channels: int, dims: int, form: Literal["channel", "outer"] = "channel") -> None:
        super().__init__()
        self.dims = dims
        self.channel = _gate(code, channels // 2, channels)
        self.position = _gate(code + dims, channels // 2, 1) if form == "outer" else None

    def forward(self, x: Float[Tensor, "b c *s"], code: Float[Tensor, "b k"]) -> Float[Tensor, "b c *s"]:
        shape = x.shape[2:]
        gate = self.channel(code).view(*x.shape[:2], *(1 for _ in shape))  # (b, c, 1…)
        if self.position is not None:
            axes = [torch.linspace(-1, 1, n, device=x.device) if n > 1 else x.new_zeros(1).float() for n in shape]
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)  # (p, dims)
            pairs = torch.cat([code[:, None].expand(-1, len(places), -1), places.expand(len(x), -1, -1)], dim=2)
            gate = gate * self.position(pairs).view(len(x), 1, *shape)  # (b, c, *s)
        return x * gate.to(x.dtype)


def _gate(inputs: int, hidden: int, outputs: int) -> nn.Module:
    # Published code: torch's default weights, with which all codes open nearly the same gates.
    # Ours: He weights, the last layer's tripled; without them a short run rebuilds the average of all poses.
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for layer in (first, last):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        last.weight *= 3
    return nn.Sequential(first, nn.ReLU(inplace=True), last, nn.Sigmoid())
