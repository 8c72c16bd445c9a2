"""InfoNCE without its matrix: a strip of rows at a time, whose gradient is taken while it is there.

Strips alone save nothing, since autograd keeps each of them until the backward. The loss is one number with known row
weights, so all gradients are known as soon as a strip's softmax is: they are made in the forward, and the backward
scales them. Memory is one strip and the gradients; the products are those of the dense form, no pass is repeated.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIP = 2**21  # similarities at a time: 8 MiB, which a CPU's caches hold
ROWS = 64  # but this many rows at least, or the products would be of thin matrices


def tiled_info_nce(
    query: Float[Tensor, "n d"],
    key: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    allowed: Bool[Tensor, "n m"],
    temperature: float | Tensor,
    counted: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """What ``info_nce`` computes, with every gradient, in float32 or float64; not differentiable twice."""
    weight = torch.ones_like(query[:, 0]) if counted is None else counted.to(query.dtype)
    weight = weight / weight.sum().clamp(min=1)
    tau = torch.as_tensor(temperature, dtype=query.dtype, device=query.device)
    inputs = (query, key, negatives, tau)
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in inputs]
    return _Tiled.apply(*inputs, allowed, weight, wanted)  # type: ignore[no-any-return]


class _Tiled(torch.autograd.Function):
    """Σ_i w_i (log Σ_j e^{l_ij} − l_i), where l_i = q_i·k_i/τ is among the j."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        negatives: Tensor,
        tau: Tensor,
        allowed: Tensor,
        weight: Tensor,
        wanted: list[bool],
    ) -> Tensor:
        n, m = allowed.shape
        graph = any(wanted)
        height = min(n, max(ROWS, STRIP // max(1, m)))
        strip = query.new_empty(height, m)
        by_query, by_key, by_negative = (torch.zeros_like(x if graph else x[:0]) for x in (query, key, negatives))
        total = query.new_zeros(())
        for rows in (slice(i, i + height) for i in range(0, n, height)):
            q, k, w = query[rows], key[rows], weight[rows, None]  # (r, d), (r, d), (r, 1)
            same = (q * k).sum(1, keepdim=True) / tau  # (r, 1)
            logits = torch.mm(q / tau, negatives.T, out=strip[: len(q)])  # (r, m)
            logits.masked_fill_(~allowed[rows], -torch.inf)
            top = torch.maximum(logits.amax(1, keepdim=True), same) if m else same
            shares = logits.sub_(top).exp_()  # of the softmax, but for 1 / whole
            below = shares.sum(1, keepdim=True)
            whole = below + (same - top).exp()
            total += (w * (whole.log() + top - same)).sum()
            if graph:
                w = w / tau
                missing = w * below / whole  # w (1 − share of the positive) / τ
                torch.mm(shares, negatives, out=by_query[rows])
                by_query[rows].mul_(w / whole).sub_(missing * k)
                by_key[rows] = -missing * q
                if wanted[2]:  # keys of a queue ask for none
                    by_negative.addmm_(shares.T, q * (w / whole))
        if graph:
            # Logits are linear in q / τ, so what reaches τ needs no pass over them: ∂L/∂τ = −⟨q, ∂L/∂q⟩ / τ.
            ctx.save_for_backward(by_query, by_key, by_negative, -(query * by_query).sum() / tau)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        found = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        return *(grad * x if wanted else None for x, wanted in found), None, None, None
