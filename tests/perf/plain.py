"""The world model as a plain PyTorch loop, as one would first write it: what the speed of ours is compared with.

One model, `nn.Linear` and `nn.LayerNorm`, a Python loop over time, `torch.optim.Adam`. The maths and the names of the
parts are ours, so `copy_weights` can fill a plain model and losses and gradients can be compared (test_plain.py).

Shapes: L transitions, B windows, O observation, A action; no axis of models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lawm_data.nets.blocks import Noise
from lawm_data.windows import Batch
from lawm_train import lawm


class MLP(nn.Module):
    """Linear, LayerNorm and swish `layers` times; then a Linear to `outputs` where given."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int | None = None):
        super().__init__()
        parts: list[nn.Module] = []
        for size in [inputs] + [units] * (layers - 1):
            parts += [nn.Linear(size, units), nn.LayerNorm(units), nn.SiLU()]
        self.layers = nn.Sequential(*parts, *([nn.Linear(units, outputs)] if outputs is not None else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def gaussian(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = parameters.chunk(2, -1)
    return mean, 2 * torch.sigmoid(raw / 2) + 0.1


def kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    ours, other = torch.distributions.Normal(mean, std), torch.distributions.Normal(other_mean, other_std)
    return torch.distributions.kl_divergence(ours, other).sum(-1)


class GRUCell(nn.Module):
    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.gates, self.norm = nn.Linear(inputs + size, 3 * size), nn.LayerNorm(3 * size)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, candidate, update = self.norm(self.gates(torch.cat([x, h], -1))).chunk(3, -1)
        update = torch.sigmoid(update - 1)
        return update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h


class RSSM(nn.Module):
    def __init__(self, action: int, c: lawm.Config):
        super().__init__()
        self.input = MLP(c.stoch + action, c.hidden, 1)
        self.cell = GRUCell(c.hidden, c.deter)
        self.prior_head = MLP(c.deter, c.hidden, 1, 2 * c.stoch)
        self.posterior_head = MLP(c.deter + c.embed, c.hidden, 1, 2 * c.stoch)


class WorldModel(nn.Module):
    """LAWM with a standard prior and no continue head."""

    def __init__(self, config: lawm.Config, observation: int, action: int):
        super().__init__()
        self.config, c, u = config, config, config.latent_action
        feat = c.deter + c.stoch
        self.encoder = MLP(observation, c.units, c.layers, c.embed)
        self.rssm = RSSM(action, c)
        self.decoder = MLP(feat, c.units, c.layers, observation)
        self.reward_head = MLP(feat, c.units, c.layers, 1)
        self.action_posterior = MLP(feat + action, c.units, c.layers, 2 * u)
        self.inverse_dynamics = MLP(feat + c.embed, c.units, c.idm_layers, 2 * u)
        self.action_decoder = MLP(feat + u, c.units, c.layers, action)
        self.adam = torch.optim.Adam(self.parameters(), lr=c.lr)

    def loss(self, batch: Batch, observation: Tensor, state_noise: Tensor, latent_noise: Tensor) -> Tensor:
        """Normalised observation [L+1, B, O], noise [L+1, B, S] and [L, B, U]; the first windows are labeled."""
        c, n, recorded = self.config, batch.num_labeled, batch.action[:, 0]
        embed = self.encoder(observation)
        feat, mean, std, hidden = self._filter(embed, recorded, state_noise, latent_noise, n)
        labeled = gaussian(self.action_posterior(torch.cat([feat[:-1, :n], recorded[:, :n]], -1)))
        u = labeled[0] + labeled[1] * latent_noise[:, :n]
        decoded = torch.tanh(self.action_decoder(torch.cat([feat[:-1, :n], u], -1)))
        action = ((decoded - recorded[:, :n]) / c.action_sigma).square().sum() / 2
        latent_kl = torch.cat([kl(*q, torch.zeros_like(q[0]), torch.ones_like(q[1])) for q in (labeled, hidden)], 1)
        error = ((self.reward_head(feat[1:])[..., 0] - batch.reward[:, 0]) / c.reward_sigma).square() / 2
        state = self._state_loss(feat, mean, std, observation)
        return (state.sum() + error.sum() + latent_kl.sum() + action) / batch.labeled.shape[1]

    def update(self, batch: Batch, observation: Tensor, state_noise: Tensor, latent_noise: Tensor) -> float:
        loss = self.loss(batch, observation, state_noise, latent_noise)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)
        self.adam.step()
        return loss.item()

    def _filter(
        self, embed: Tensor, recorded: Tensor, state_noise: Tensor, latent_noise: Tensor, n: int
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Features, means and deviations of states 0..L, and q(u|.) of the windows without actions 0..L-1."""
        deter = embed.new_zeros(embed.shape[1], self.config.deter)
        stoch = embed.new_zeros(embed.shape[1], self.config.stoch)
        action = torch.zeros_like(recorded[0])
        states, inferred = [], []
        for t in range(len(embed)):
            deter = self.rssm.cell(self.rssm.input(torch.cat([stoch, action], -1)), deter)
            mean, std = gaussian(self.rssm.posterior_head(torch.cat([deter, embed[t]], -1)))
            stoch = mean + std * state_noise[t]
            feat = torch.cat([deter, stoch], -1)
            states.append((feat, mean, std))
            if t < len(recorded):
                q = gaussian(self.inverse_dynamics(torch.cat([feat[n:], embed[t + 1, n:]], -1)))
                u = q[0] + q[1] * latent_noise[t, n:]
                decoded = torch.tanh(self.action_decoder(torch.cat([feat[n:], u], -1)))
                action = torch.cat([recorded[t, :n], decoded])
                inferred.append(q)
        feat, mean, std = (torch.stack(x) for x in zip(*states, strict=True))
        hidden_mean, hidden_std = (torch.stack(x) for x in zip(*inferred, strict=True))
        return feat, mean, std, (hidden_mean, hidden_std)

    def _state_loss(self, feat: Tensor, mean: Tensor, std: Tensor, observation: Tensor) -> Tensor:
        c = self.config
        prior = gaussian(self.rssm.prior_head(feat[..., : c.deter]))
        towards, back = kl(mean.detach(), std.detach(), *prior), kl(mean, std, *(x.detach() for x in prior))
        error = ((self.decoder(feat) - observation) / c.observation_sigma).square().sum(-1) / 2
        return error + c.balance * towards.clamp(min=c.free_nats) + (1 - c.balance) * back.clamp(min=c.free_nats)


def inputs(world: lawm.WorldModel, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Observation and noise as the plain model takes them: what `world`, a lone model, makes and draws itself."""
    length, size = len(batch.action), batch.labeled.shape[1]
    drawn = noise.normal(length + 1, size, world.config.stoch), noise.normal(length, size, world.config.latent_action)
    return world.normalizer(batch.observation)[:, 0], drawn[0][:, 0], drawn[1][:, 0]


@torch.no_grad()
def copy_weights(plain: nn.Module, ours: nn.Module) -> None:
    """Fill `plain` with the weights of a lone model of ours."""
    for mine, theirs in parameters(plain, ours):
        mine.copy_(as_plain(theirs))


def parameters(plain: nn.Module, ours: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Each parameter of the linear and normalising layers of `plain`, with that of `ours` in its place."""
    found: list[tuple[nn.Parameter, nn.Parameter]] = []
    for name, part in plain.named_modules():
        if isinstance(part, nn.Linear | nn.LayerNorm):
            found += zip(part.parameters(), ours.get_submodule(name).parameters(), strict=True)
    return found


def as_plain(ours: Tensor) -> Tensor:
    """[1, in, out] -> [out, in]; [1, 1, out] -> [out]"""
    return ours[0, 0] if ours.shape[1] == 1 else ours[0].T
