"""The latent-action world model (LAWM). C-LAP's model is this file with labeled windows only and a learned prior.

    paper   here                       paper            here
    s_t     State (deter, stoch)       q(u_t|s_t,a_t)       action_posterior
    u_t     latent action              q(u_t|s_t,o_{t+1})   inverse_dynamics
    a_t     action                     p(a_t|s_t,u_t)       action_decoder, its mean
    o_t     normalised, if not raw     p(u_t|s_t)           latent_prior: N(0, I), or learned

Shapes: L transitions, N models, B windows, O observation, A action, U latent action, E embedding, D deter, S stoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lawm_data.config import Count, NonNegative, Positive, Share
from lawm_data.nets.blocks import MLP, Init, Noise, Normalizer
from lawm_data.nets.dists import Gaussian, balanced_kl, gaussian, gaussian_nll, kl_gaussian, kl_standard
from lawm_data.nets.filtering import Filtering
from lawm_data.nets.optim import Optimizer
from lawm_data.nets.products import Products, multiplying
from lawm_data.nets.rssm import RSSM, Filter, State
from lawm_data.summary import NARROW
from lawm_data.windows import Batch
from lawm_train.inferred import InferredActions


@dataclass(frozen=True)
class Weights:
    """The terms of the objective by name; `terminal` exists only where data has true ends."""

    observation: NonNegative = 1.0
    reward: NonNegative = 1.0
    action: NonNegative = 1.0
    state_kl: NonNegative = 1.0
    latent_kl: NonNegative = 1.0
    terminal: NonNegative = 1.0


@dataclass(frozen=True)
class Config:
    """The recipe's `model` section: the sizes of Table 2, and every choice that the paper leaves open."""

    deter: Count = 128
    stoch: Count = 32
    embed: Count = 128
    hidden: Count = 128  # width of the RSSM's layers
    units: Count = 128  # encoder, decoders, action posterior, learned prior
    layers: Count = 2
    rssm_layers: Count = 1  # hidden, of p(s_t|h_t) and q(s_t|h_t,o_t)
    idm_layers: Count = 3
    latent_action: Count = 12
    learned_start: bool = False  # the state before a window or an episode; false: zero
    least_std: Positive = 0.1  # of states and latent actions
    prior: Literal["standard", "learned"] | None = None  # None: N(0, I) for LAWM, learned for C-LAP
    normalize: bool = True  # observations, by the statistics of the rows that the method trains on; false: raw
    observation_floor: Positive = NARROW  # of the standard deviations that they are divided by
    observation_clip: Positive = 10.0  # of what comes of it
    observation_sigma: Positive = 0.3
    reward_sigma: Positive = 0.3
    action_sigma: Positive = 0.1
    balance: Share = 0.8  # share of the state KL that trains the prior
    free_nats: NonNegative | None = None  # of the state KL; None: 1 in medium-replay and plan2explore, else 0 (Table 2)
    latent_free_nats: NonNegative = 0.0  # of the latent action's KL; the paper has none
    inferred_sample: bool = True  # whether u_t is drawn in action-free windows; false: it is the mean
    sample_action: bool = False  # whether actions are drawn there and in imagination; false: the decoder's mean
    sample_state: bool = False  # whether the state is drawn while acting; false: it is the mean
    decoder_grad_unlabeled: bool = True
    unlabeled_weight: NonNegative = 1.0
    weights: Weights = field(default_factory=Weights)
    lr: NonNegative = 3e-4
    weight_decay: Share = 0.0
    clip: Positive = 100.0
    products: Products = "float32"  # or "bfloat16", see nets.products.multiplying

    @property
    def standardises(self) -> bool:
        """Whether observations come to a standard deviation of 1, but for what hardly moves or is far out."""
        return self.normalize and self.observation_floor <= NARROW and self.observation_clip >= 10


class Observed(NamedTuple):
    """What inference makes of a batch: states 0..L, latent actions and executed actions 0..L-1."""

    observation: Tensor  # as the decoder is to give it, [L+1, N, B, O]
    states: State
    latent: Gaussian  # q(u_t | .), [L, N, B, U]
    u: Tensor
    action: Tensor  # recorded where labeled, decoded where not, [L, N, B, A]


class WorldModel(nn.Module):
    """N latent-action world models side by side: the joint density of eq. 1 factorised as in eq. 2.

    Episodes without actions are its marginal, eq. 4, factorised alike, eq. 5.
    """

    def __init__(self, config: Config, seeds: list[int], normalizer: Normalizer, action: int, terminal: bool = False):
        """`terminal` adds the continue head, for data with any true end. free_nats and prior must be decided."""
        super().__init__()
        assert config.free_nats is not None and config.prior is not None
        self.config, self.normalizer, self.action_size = config, normalizer, action
        init, c, observation = Init(seeds), config, normalizer.mean.shape[-1]
        feat, u = c.deter + c.stoch, c.latent_action
        self.encoder = MLP(init, observation, c.units, c.layers, c.embed)
        sizes = action, c.embed, c.deter, c.stoch, c.hidden
        self.rssm = RSSM(init, *sizes, layers=c.rssm_layers, learned_start=c.learned_start, least_std=c.least_std)
        self.decoder = MLP(init, feat, c.units, c.layers, observation)
        self.reward_head = MLP(init, feat, c.units, c.layers, 1)
        self.action_posterior = MLP(init, feat + action, c.units, c.layers, 2 * u)
        self.inverse_dynamics = MLP(init, feat + c.embed, c.units, c.idm_layers, 2 * u)
        self.action_decoder = MLP(init, feat + u, c.units, c.layers, action)
        # p(u|s); the RSSM's own, p(s|h), is `rssm.prior_head`
        self.prior_head = MLP(init, feat, c.units, c.layers, 2 * u) if c.prior == "learned" else None
        self.continue_head = MLP(init, feat, c.units, c.layers, 1) if terminal else None
        self.optimizer = Optimizer([self], len(seeds), c.lr, c.clip, c.weight_decay)

    def embed(self, observation: Tensor) -> Tensor:
        """Raw observation [..., N, B, O] -> embedding [..., N, B, E]."""
        return self.encoder(self.normalizer(observation))

    def decode_action(self, feat: Tensor, u: Tensor) -> Tensor:
        """Mean of p(a_t | s_t, u_t), in (-1, 1): [..., N, B, A]."""
        return torch.tanh(self.action_decoder(torch.cat([feat, u], -1)))

    def spread(self, noise: Noise, steps: int, size: int) -> Tensor | None:
        """Of actions about the mean of p(a|s,u), [steps, N, size, A]; None where that is what is executed."""
        if not self.config.sample_action:
            return None
        return self.config.action_sigma * noise.normal(steps, size, self.action_size)

    def latent_prior(self, feat: Tensor) -> Gaussian:
        """p(u_t | s_t): the standard normal of LAWM, or C-LAP's learned one."""
        if self.prior_head is None:
            mean = feat.new_zeros(*feat.shape[:-1], self.config.latent_action)
            return Gaussian(mean, mean + 1)
        return gaussian(self.prior_head(feat), self.config.least_std)

    def latent_kl(self, posterior: Gaussian, feat: Tensor) -> Tensor:
        """KL(q(u_t|.) || p(u_t|s_t)) in nats, unbalanced, [..., N, B]."""
        if self.prior_head is None:
            return kl_standard(*posterior)
        return kl_gaussian(*posterior, *self.latent_prior(feat))

    def observe(self, batch: Batch, noise: Noise) -> Observed:
        """Infer states, latent actions and actions: eq. 3 for the labeled windows, `InferredActions` for the others."""
        length, size, n, c = len(batch.action), batch.observation.shape[2], batch.num_labeled, self.config
        state_noise = noise.normal(length + 1, size, c.stoch)
        latent_noise = noise.normal(length, size, c.latent_action)
        observation = self.normalizer(batch.observation)
        embed = self.encoder(observation)
        # all start from zero state and zero action: q(s_0, a_0), in both paths
        inferred: list[Tensor] = []  # mean, std and sample of u in the unlabeled windows
        if n == size:
            states, action = Filtering(self.rssm, embed, batch.action, state_noise).states(), batch.action
        else:
            feat, mean, std, *inferred, action = InferredActions(
                self.rssm,
                self.inverse_dynamics,
                self.action_decoder,
                embed,
                batch.action,
                state_noise,
                latent_noise[:, :, n:] if c.inferred_sample else torch.zeros_like(latent_noise[:, :, n:]),
                self.spread(noise, length, size - n),
                c.decoder_grad_unlabeled,
                c.least_std,
            )()
            states = State(feat, mean, std)
        q = self.infer_labeled(states.feat[:-1, :, :n], batch.action[:, :, :n])
        latent = [q.mean, q.std, torch.addcmul(q.mean, q.std, latent_noise[:, :, :n])]
        if inferred:
            latent = [torch.cat(pair, 2) for pair in zip(latent, inferred, strict=True)]
        mean, std, u = latent
        return Observed(observation, states, Gaussian(mean, std), u, action)

    def infer_labeled(self, feat: Tensor, action: Tensor) -> Gaussian:
        """q(u_t | s_t, a_t)"""
        return gaussian(self.action_posterior(torch.cat([feat, action], -1)), self.config.least_std)

    def infer_unlabeled(self, feat: Tensor, following: Tensor) -> Gaussian:
        """q(u_t | s_t, o_{t+1}), from the embedding of o_{t+1}"""
        return gaussian(self.inverse_dynamics(torch.cat([feat, following], -1)), self.config.least_std)

    def loss(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], Observed]:
        """Unreduced terms [L or L+1, N, B] of the negative objective: eq. 7 labeled, eq. 8 unlabeled."""
        c, n = self.config, batch.num_labeled
        assert c.free_nats is not None
        seen = self.observe(batch, noise)
        feat = seen.states.feat
        posterior = Gaussian(seen.states.mean, seen.states.std)
        prior = self.rssm.prior(seen.states.parts[0])
        reward = self.reward_head(feat)[1:]  # not feat[1:], whose gradient would be padded to feat's size and added
        terms = {
            "observation": gaussian_nll(self.decoder(feat), seen.observation, c.observation_sigma),
            "state_kl": balanced_kl(posterior, prior, c.balance, c.free_nats),
            "latent_kl": self.latent_kl(seen.latent, feat[:-1]).clamp(min=c.latent_free_nats),
            "reward": gaussian_nll(reward, batch.reward[..., None], c.reward_sigma),  # eq. 11
        }
        # labeled windows only: in the others q(a_t|s_t,u_t) is p(a_t|s_t,u_t), so the KL between them is zero
        decoded = self.decode_action(feat[:-1, :, :n], seen.u[:, :, :n])
        action = gaussian_nll(decoded, batch.action[:, :, :n], c.action_sigma)
        terms["action"] = F.pad(action, (0, batch.labeled.shape[1] - n))
        if self.continue_head is not None:
            terms["terminal"] = self._continue_loss(feat[1:], batch.terminal)
        return terms, seen

    def update(self, batch: Batch, noise: Noise) -> tuple[dict[str, Tensor], State]:
        """One gradient step. Returns metrics [N] and the posterior states, detached."""
        with multiplying(self.config.products, batch.reward.device):
            terms, seen = self.loss(batch, noise)
            norm = self.optimizer.step(self.total(terms, batch))
        states = seen.states.map(torch.Tensor.detach)
        return {**_summary(terms, batch), "gradient_norm": norm}, states

    def total(self, terms: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mixed objective of eq. 9, m of eq. 10: sum over time and terms, mean over windows, [N]."""
        weights = asdict(self.config.weights)
        assert terms.keys() | {"terminal"} == weights.keys(), (terms.keys(), weights.keys())
        for name, term in terms.items():
            assert term.dim() == 3 and term.shape[1:] == batch.labeled.shape, (name, term.shape, batch.labeled.shape)
        m = batch.labeled.float()
        windows = sum(weights[name] * term.sum(0) for name, term in terms.items())
        return ((m + self.config.unlabeled_weight * (1 - m)) * windows).mean(1)

    def policy(self) -> Filter:
        """The `prior-policy` control: u from the prior, decoded, no reinforcement learning.

        Each call draws anew: episodes later on see other noise than the first ones did.
        """
        draw = _draws("prior-policy")

        def choose(feat: Tensor) -> Tensor:
            prior = self.latent_prior(feat)
            return prior.mean + prior.std * draw(prior.mean)

        return self.filter(choose)

    def filter(self, choose: Callable[[Tensor], Tensor]) -> Filter:
        """Acts with the decoder's mean of the u [N, B, U] that `choose` gives for feat [N, B, D+S]."""
        noise = _draws("acting") if self.config.sample_state else torch.zeros_like
        return Filter(
            self.rssm, self.embed, self.action_size, lambda feat: self.decode_action(feat, choose(feat)), noise
        )

    def _continue_loss(self, feat: Tensor, terminal: Tensor) -> Tensor:
        assert self.continue_head is not None
        logit = self.continue_head(feat)[..., 0]
        alive = torch.ones_like(logit)
        alive[-1] = 1 - terminal.float()  # a true end is always a window's last state
        return F.binary_cross_entropy_with_logits(logit, alive, reduction="none")


def _draws(stream: str) -> Callable[[Tensor], Tensor]:
    """Noise for `like` [N, B, F], the same for all models, other at each call."""
    calls = count()
    return lambda like: Noise([0], stream, next(calls), like.device).normal(1, *like.shape[1:])[0]


def _summary(terms: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """Each term per time step, averaged over the windows of each kind, [N]."""
    n, metrics = batch.num_labeled, {}
    for name, term in terms.items():
        metrics[f"{name}/labeled"] = term[:, :, :n].detach().mean((0, 2))
        if n < term.shape[2] and name != "action":
            metrics[f"{name}/unlabeled"] = term[:, :, n:].detach().mean((0, 2))
    return metrics
