"""TD3+BC against a literal second writing of the published algorithm, step for step; and who gets which gradient.

In float64, but for the bias corrections of the fused Adam, which are float32.
"""

import copy
from dataclasses import replace

import models
import torch
import torch.nn.functional as F
from torch import nn

from lawm_data.nets.blocks import Noise
from lawm_data.windows import moments
from lawm_train import td3bc

CONFIG = td3bc.Config(units=16)


def agent_of(made):
    mean, std = moments(made.pools[0])
    many = len(made.seeds)
    statistics = mean.repeat(many, 1, 1), std.repeat(many, 1, 1)
    return td3bc.Agent(CONFIG, list(made.seeds), td3bc.normalizer(*statistics), 2)


def transitions(seeds=(0,), **kwargs):
    return models.windows(seeds, counts=(32, 0), window=1, **kwargs)


def plain(stacked, row):
    """One model of a stack as an ordinary PyTorch network, in float64."""
    layers = []
    for layer in stacked.layers:
        if isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
            continue
        linear = nn.Linear(*layer.weight.shape[1:], dtype=torch.float64)
        linear.weight.data = layer.weight[row].detach().double().T.clone()
        linear.bias.data = layer.bias[row, 0].detach().double().clone()
        layers.append(linear)
    return nn.Sequential(*layers)


class Published:
    """Fujimoto & Gu 2021, section 5 on top of TD3 (Fujimoto et al. 2018, algorithm 1), for one model."""

    def __init__(self, agent):
        self.actor = plain(agent.actor, 0)
        self.q1, self.q2 = plain(agent.critics, 0), plain(agent.critics, 1)
        self.old_actor, self.old_q1, self.old_q2 = (copy.deepcopy(net) for net in (self.actor, self.q1, self.q2))
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=3e-4)
        self.critic_adam = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=3e-4)
        self.iterations = 0

    def train(self, s, a, r, s_next, done, standard_normal):
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


def test_losses_and_weights_equal_the_published_algorithm_step_for_step():
    made = transitions(recorded=[replace(episode, terminal=True) for episode in models.episodes(length=8)])
    agent = agent_of(made).double()
    published = Published(agent)
    rows = torch.cat([pool.observations() for pool in made.pools[0]]).double()
    mean, std = rows.mean(0), rows.std(0, correction=0) + 1e-3
    terminals = 0
    for i in range(12):
        batch = models.as_double(made.batch(i))
        terminals += int(batch.terminal.sum())
        s, s_next = agent.normalizer(batch.observation)[:, 0]
        torch.testing.assert_close(s, (batch.observation[0, 0] - mean) / std, rtol=1e-5, atol=1e-5)
        normal = models.DoubleNoise([0], "td3bc", i).normal(1, 32, 2)[0, 0]
        wanted = published.train(
            s, batch.action[0, 0], batch.reward[0, 0, :, None], s_next, batch.terminal[0, :, None].double(), normal
        )
        found = agent.update(batch, models.DoubleNoise([0], "td3bc", i))
        torch.testing.assert_close(found["critic"][0], wanted[0].detach(), rtol=1e-7, atol=0)
        assert ("actor" in found) == (wanted[1] is not None)
        if wanted[1] is not None:
            torch.testing.assert_close(found["actor"][0], wanted[1].detach(), rtol=1e-7, atol=0)
    assert terminals, "no true end was drawn: (1 - done) was not tested"
    nets = [(agent.actor, 0, published.actor), (agent.actor_target, 0, published.old_actor)]
    nets += [(agent.critics, k, net) for k, net in enumerate((published.q1, published.q2))]
    nets += [(agent.critic_targets, k, net) for k, net in enumerate((published.old_q1, published.old_q2))]
    for ours, row, theirs in nets:
        for a, b in zip(plain(ours, row).parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_the_actors_gradient_stays_out_of_the_critics():
    made = transitions()
    agent = agent_of(made)
    agent.actor_loss(made.batch(0)).mean().backward()
    assert all(p.grad is None for p in agent.critics.parameters())
    assert all(p.grad.abs().sum() > 0 for p in agent.actor.parameters())


def test_agents_side_by_side_equal_lone_ones():
    def trained(seeds):
        made = transitions(seeds)
        agent = agent_of(made)
        metrics = [agent.update(made.batch(i), Noise(seeds, "td3bc", i)) for i in range(10)]
        return {name: torch.stack([m[name] for m in metrics if name in m]) for name in metrics[-1]}

    both = trained([3, 4])
    for k, seed in enumerate((3, 4)):
        for name, alone in trained([seed]).items():
            torch.testing.assert_close(both[name][:, k], alone[:, 0], rtol=1e-5, atol=1e-6)
