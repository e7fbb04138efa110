"""TD3+BC, the published algorithm written literally in plain PyTorch: what ours must equal, and beat in speed."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_data.nets.blocks import PlainMLP
from lawm_train import td3bc


def network(stacked: PlainMLP, row: int) -> nn.Sequential:
    """One model of a stack as an ordinary PyTorch network."""
    layers: list[nn.Module] = []
    for layer in stacked.layers:
        if isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
            continue
        linear = nn.Linear(*layer.weight.shape[1:], dtype=layer.weight.dtype)
        linear.weight.data = layer.weight[row].detach().T.clone()
        linear.bias.data = layer.bias[row, 0].detach().clone()
        layers.append(linear)
    return nn.Sequential(*layers)


class Published:
    """Fujimoto & Gu 2021, section 5 on top of TD3 (Fujimoto et al. 2018, algorithm 1), for one model."""

    def __init__(self, agent: td3bc.Agent):
        self.actor = network(agent.actor, 0)
        self.q1, self.q2 = network(agent.critics, 0), network(agent.critics, 1)
        self.old_actor, self.old_q1, self.old_q2 = (copy.deepcopy(net) for net in (self.actor, self.q1, self.q2))
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=3e-4)
        self.iterations = 0

    def train(
        self, s: Tensor, a: Tensor, r: Tensor, s_next: Tensor, done: Tensor, standard_normal: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised states [B, O], actions and noise [B, A], r and done [B, 1] -> the losses of critics and actor."""
        self.iterations += 1
        with torch.no_grad():
            noise = (0.2 * standard_normal).clamp(-0.5, 0.5)
            a_next = (torch.tanh(self.old_actor(s_next)) + noise).clamp(-1.0, 1.0)
            sa_next = torch.cat([s_next, a_next], 1)
            y = r + (1 - done) * 0.99 * torch.min(self.old_q1(sa_next), self.old_q2(sa_next))
        sa = torch.cat([s, a], 1)
        critic_loss = F.mse_loss(self.q1(sa), y) + F.mse_loss(self.q2(sa), y)
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()
        if self.iterations % 2:
            return critic_loss, None
        pi = torch.tanh(self.actor(s))
        q = self.q1(torch.cat([s, pi], 1))
        actor_loss = -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(pi, a)
        self.actor_adam.zero_grad()
        actor_loss.backward()
        self.actor_adam.step()
        pairs = ((self.actor, self.old_actor), (self.q1, self.old_q1), (self.q2, self.old_q2))
        for net, old in pairs:
            for p, q in zip(net.parameters(), old.parameters(), strict=True):
                q.data = 0.005 * p.data + 0.995 * q.data
        return critic_loss, actor_loss
