"""The action-free path of LAWM's inference, eq. 6, inside the filter's loop.

Shapes: L transitions, N models, B windows of which the first M are labeled, A action, U latent action, E embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lawm_data.nets.blocks import MLP
from lawm_data.nets.filtering import Filtering, drawn, drawn_backward
from lawm_data.nets.rssm import RSSM, along_time
from lawm_data.nets.unrolled import UnrolledMLP

aten = torch.ops.aten


class InferredActions(Filtering):
    """A filter that acts as recorded in the first M windows; in the others u_t is inferred and decoded on the way.

    Further results: mean and std of q(u_t | s_t, o_{t+1}) and u_t, [L, N, B - M, U], and all actions [L, N, B, A];
    no gradient comes back through u_t and the actions.
    """

    trained = 5

    def __init__(
        self,
        rssm: RSSM,
        inverse_dynamics: MLP,
        action_decoder: MLP,
        embed: Tensor,
        action: Tensor,
        noise: Tensor,
        latent_noise: Tensor,
        spread: Tensor | None,
        decoder_grad: bool,
        least_std: float,
    ):
        """latent_noise [L, N, B - M, U]; spread [L, N, B - M, A]: of actions about their mean, None for none.

        decoder_grad: whether these windows train the action decoder's weights; least_std: of the latent action.
        """
        super().__init__(rssm, embed, action, noise)
        self.inverse_dynamics, self.action_decoder = inverse_dynamics, action_decoder
        self.latent_noise, self.spread = latent_noise, spread
        self.decoder_grad, self.least_std = decoder_grad, least_std
        self.labeled = embed.shape[2] - latent_noise.shape[2]

    def modules(self) -> list[nn.Module]:
        return [*super().modules(), self.inverse_dynamics, self.action_decoder]

    def begin(self) -> None:
        self.recorded = self.action[:, :, : self.labeled].unbind()
        steps = len(self.action)
        self.infer = UnrolledMLP(self.inverse_dynamics, steps, self.embed[1:, :, self.labeled :])
        self.decode = UnrolledMLP(self.action_decoder, steps)
        self.draws = self.latent_noise.unbind()
        self.latents: list[tuple[Tensor, ...]] = []

    def act(self, feat: Tensor, t: int) -> Tensor:
        feat = feat[:, self.labeled :]
        # q(u_t | s_t, o_{t+1})
        both, u, mean, std, curve = drawn(self.infer.forward(feat, t), self.draws[t], feat, self.least_std)
        decoded = torch.tanh(self.decode.forward(both, t))  # q(a_t | s_t, u_t) = p(a_t | s_t, u_t)
        executed = decoded if self.spread is None else decoded + self.spread[t]
        action = torch.cat([self.recorded[t], executed], 1)
        self.latents.append((mean, std, u, action, curve, decoded))
        return action

    def act_backward(self, grad_action: Tensor, grad_feat: Tensor, t: int) -> None:
        *_, curve, decoded = self.latents[t]
        grad_both = self.decode.backward(aten.tanh_backward(grad_action[:, self.labeled :], decoded))
        from_feat, grad_u = grad_both.split([grad_both.shape[-1] - curve.shape[-1], curve.shape[-1]], -1)
        grad_raw = drawn_backward(self.grad_means[t], self.grad_stds[t], grad_u, self.draws[t], curve)
        grad_feat[:, self.labeled :].add_(self.infer.backward(grad_raw, onto=from_feat))

    def end(self) -> tuple[Tensor, ...]:
        return tuple(along_time(field) for field in list(zip(*self.latents, strict=True))[:4])

    def end_backward(self, *gradients: Tensor) -> None:
        self.grad_means, self.grad_stds = (gradient.unbind() for gradient in gradients[:2])

    def gradients(self) -> list[Tensor | None]:
        decoder: list[Tensor] | list[None] = [None] * len(list(self.action_decoder.parameters()))
        if self.decoder_grad:
            decoder = self.decode.gradients()
        return [*super().gradients(), *self.infer.gradients(), *decoder]

    def embed_gradient(self) -> Tensor:
        gradient = super().embed_gradient()
        gradient[1:, :, self.labeled :] += self.infer.given_gradient()
        return gradient
