"""The rungs of the ladder that look at the world model, on episodes that it was not trained on.

1. labeled path: is a latent action used at all (KL, spread), and does it carry the action (held-out error)?
2. inferred actions: do they match the withheld ones as well as a supervised IDM's with the SAME labels?
3. open loop: do inferred actions drive the model where true ones do? If only they do, the code is private.
4. latent moments: do both posteriors fill the prior alike? Else the agent samples codes that the decoder never saw.

Withheld actions are read here to judge, never to train. Shapes: T steps, N = 1 model, B episodes or windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lawm_data.episode import Episode
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.nets.dists import Gaussian
from lawm_data.summary import NARROW
from lawm_data.windows import Batch, Pool, moments
from lawm_train import idm
from lawm_train.lawm import Observed, WorldModel

CONTEXT = 10  # filtered steps before an open loop
HORIZONS = (1, 5, 15)
LEAST_VARIANCE = 1e-4  # of an action that errors are told in units of: constant ones have none
SPREAD_DRAWS = 16  # of u, for each state
INFERRED, SUPERVISED = "2 inferred actions", "R2 supervised IDM"
Bounds = dict[str, tuple[float | None, float | None]]
"""Least and most of a figure, None where it has none."""


class Rung(NamedTuple):
    """One step of the ladder: figures by name, those that decide with their bounds, and the verdict in words.

    passed: None where the rung does not apply.
    """

    name: str
    figures: dict[str, float]
    bounds: Bounds
    passed: bool | None
    verdict: str


def judged(name: str, figures: dict[str, float], bounds: Bounds, good: str, bad: Mapping[str, str]) -> Rung:
    """A rung that passes if every figure is within its bounds; bad: by figure, what to change where it is not."""
    rung = Rung(name, figures, bounds, True, good)
    broken = [figure for figure in bounds if not fits(rung, figure)]
    advice = "; ".join(dict.fromkeys(bad[figure] for figure in broken))
    return rung._replace(passed=False, verdict=advice) if broken else rung


def fits(rung: Rung, figure: str) -> bool:
    """Whether a figure is within its bounds; NaN is not."""
    value, (least, most) = rung.figures[figure], rung.bounds[figure]
    return (least is None or value > least) and (most is None or value < most)


def not_walked(name: str, reason: str) -> Rung:
    return Rung(name, {}, {}, None, reason)


def labeled_path(world: WorldModel, batch: Batch) -> Rung:
    """Rung 1, on held-out labeled windows."""
    seen = world.observe(batch, Noise([0], "diagnostics", 0))
    feat = seen.states.feat[:-1]
    decoded = world.decode_action(feat, seen.latent.mean)
    variance = batch.action.var(dim=(0, 1, 2)).mean().clamp(min=LEAST_VARIANCE)
    error = (decoded - batch.action).square().mean() / variance
    kl, spread, ratio = "KL(u) nats", "spread of the decoded action", "held-out action error / variance"
    figures = {
        kl: float(world.latent_kl(seen.latent, feat).mean()),
        spread: action_spread(world, feat),
        ratio: float(error),
    }
    unused = "the latent action is unused: lower model.action_sigma"
    ignored = "the decoder ignores u: lower model.action_sigma"
    narrow = "u of the learned prior hardly moves the action: that prior is narrow, or the decoder ignores u"
    lost = "the latent action does not carry the action: lower model.action_sigma, or train the model longer"
    bounds: Bounds = {kl: (2, None), spread: (0.2, None), ratio: (None, 0.3)}
    still = unused if figures[kl] <= 2 else ignored if world.prior_head is None else narrow
    bad = {kl: unused, spread: still, ratio: lost}
    return judged("1 labeled path", figures, bounds, "the latent action carries the action", bad)


def action_spread(world: WorldModel, feat: Tensor) -> float:
    """Standard deviation of the decoded action over u ~ prior, averaged over states and dimensions of the action."""
    prior = world.latent_prior(feat)
    noise = Noise([0], "spread", 0)
    length, _, size, width = prior.mean.shape
    actions = [
        world.decode_action(feat, prior.mean + prior.std * draw.view(length, 1, size, width))
        for draw in noise.normal(SPREAD_DRAWS, length * size, width)
    ]
    return float(torch.stack(actions).std(0).mean())


def inferred_actions(
    world: WorldModel, labeled: Sequence[Episode], hidden: Sequence[Episode], config: idm.Config
) -> Rung:
    """Rung 2: R^2 of inferred actions on withheld rows, beside an IDM trained on the labeled rows.

    labeled: the episodes whose actions the run read; hidden: others of its slice, with their withheld actions.
    """
    mean, std = moments([Pool(labeled, True, world.action_size)])
    with torch.enable_grad():
        reference = idm.fit(config, list(labeled), Normalizer(mean[None], std[None]))
    inferred, told, supervised = "R2 inferred", "KL(q(u|s,o')) nats", SUPERVISED
    means, blind, drawn, nats = zip(*(infer_actions(world, episode) for episode in hidden), strict=True)
    figures = {
        inferred: _r_squared_of(means, hidden),
        "R2 without o'": _r_squared_of(blind, hidden),
        "R2 drawn": _r_squared_of(drawn, hidden),
        told: float(np.concatenate(nats).mean()),
        supervised: _r_squared_of(idm_actions(reference, hidden), hidden),
    }
    # 0: as the mean of all actions; 0.5 nats, a choice of ours: where the prior's mean alone tells the actions well, a
    # q(u|s,o') that has collapsed to the prior looks as good as an IDM
    bounds: Bounds = {inferred: (0.9 * max(figures[supervised], 0), None), told: (0.5, None)}
    worse = "worse than an IDM with the same labels: raise train.labeled_share, or train the model longer"
    nothing = "neither it nor an IDM with the same labels tells the actions: label more episodes"
    collapsed = "q(u|s,o') is the prior: what follows tells the model no action; lower model.observation_sigma"
    bad = {inferred: nothing if figures[supervised] <= 0 else worse, told: collapsed}
    return judged(INFERRED, figures, bounds, "as good as the labels allow", bad)


def relabeled_actions(inverse_dynamics: idm.InverseDynamics, hidden: Sequence[Episode]) -> Rung:
    """Rung 2 of a method that trained on actions which an IDM inferred: R^2 of that IDM, compared with none."""
    figures = {SUPERVISED: _r_squared_of(idm_actions(inverse_dynamics, hidden), hidden)}
    return Rung(INFERRED, figures, {}, None, "told beforehand by its IDM, which learned from the same labels")


def idm_actions(inverse_dynamics: idm.InverseDynamics, hidden: Sequence[Episode]) -> list[np.ndarray]:
    """Actions [T, A] of each episode as an IDM tells them."""
    told = inverse_dynamics.relabel(episode.stripped() for episode in hidden)
    return [episode.action for episode in told if episode.action is not None]


class Inferred(NamedTuple):
    """What the action-free path makes of an episode: actions [T, A], and KL(q(u|s,o') || p(u|s)) in nats [T]."""

    mean: np.ndarray  # with means throughout
    blind: np.ndarray  # of the prior's mean in the same states, which knows nothing of the next observation
    drawn: np.ndarray  # as in training, where states and u are drawn: these are what the dynamics learn from
    nats: np.ndarray


def infer_actions(world: WorldModel, episode: Episode) -> Inferred:
    observation = torch.tensor(episode.observation)[:, None, None]  # [T+1, 1, 1, O]
    batch = _unlabeled(observation, torch.zeros(episode.length, 1, 1, world.action_size))
    calm = world.observe(batch, SilentNoise())
    feat = calm.states.feat[:-1]
    blind = world.decode_action(feat, world.latent_prior(feat).mean)
    drawn = world.observe(batch, Noise([0], "inferred", episode.order)).action
    figures = calm.action, blind, drawn, world.latent_kl(calm.latent, feat)
    return Inferred(*(x[:, 0, 0].numpy() for x in figures))


def open_loop(world: WorldModel, batch: Batch, infers: bool) -> Rung:
    """Rung 3: root mean square error of normalised observations after 1, 5, 15 imagined steps, by source of actions.

    infers: whether the method has learned q(u|s,o'); without it true actions drive the model alone. Dynamics that
    actions matter to predict worse with those of another window.
    """
    last, true = HORIZONS[-1], world.observe(batch, SilentNoise())
    runs = {"true": true}
    if infers:
        runs["inferred"] = world.observe(_unlabeled(batch.observation, batch.action), SilentNoise())
    errors = {name: _open_loop_errors(world, seen) for name, seen in runs.items()}
    figures = {f"{name} h={h}": errors[name][h] for name in errors for h in HORIZONS}
    furthest, ratio, own = f"{[*runs][-1]} h={last}", f"true / inferred h={last}", f"true / another window's h={last}"
    bounds: Bounds = {furthest: (None, 1)}  # 1: no better than the mean of the data
    if (order := _another(true.action)) is not None:
        others = _open_loop_errors(world, true._replace(action=true.action[:, :, order]))
        figures[own] = errors["true"][last] / others[last]
        bounds[own] = (None, 1)
    if infers:
        figures[ratio] = errors["true"][last] / errors["inferred"][last]
        bounds[ratio] = (None, 1.5)
    bad = {
        furthest: "the dynamics predict nothing, whatever the actions: train the model longer",
        own: "the dynamics do not follow the actions: lower model.action_sigma, or train the model longer",
        ratio: "inferred actions predict far better than true ones, a private code: lower model.unlabeled_weight or "
        "set model.decoder_grad_unlabeled=false",
    }
    good = "true and inferred actions mean the same" if infers else "the dynamics follow the actions"
    return judged("3 open loop", figures, bounds, good, bad)


def latent_moments(world: WorldModel, batch: Batch, infers: bool) -> Rung:
    """Rung 4: moments of the latent actions in units of the prior, of both posteriors on the same labeled windows.

    Offset: root mean square over dimensions of the mean; stretch: typical factor between standard deviations, 1 at
    best. The bounds are a choice of ours: half a standard deviation, and a factor of 2, as far as an agent of eps 2
    reaches. infers: whether the method has learned q(u|s,o').
    """
    seen = world.observe(batch, SilentNoise())
    feat = seen.states.feat[:-1]
    prior = world.latent_prior(feat)
    own = _moments(seen.latent, prior)
    compared = {"q(u|s,a) to prior": (own, Gaussian(torch.zeros(()), torch.ones(())))}
    if infers:
        free = _moments(world.infer_unlabeled(feat, world.embed(batch.observation[1:])), prior)
        compared |= {
            "q(u|s,o') to prior": (free, compared["q(u|s,a) to prior"][1]),
            "q(u|s,a) to q(u|s,o')": (own, free),
        }
    figures: dict[str, float] = {}
    bounds: Bounds = {}
    for name, (one, other) in compared.items():
        figures[f"{name} offset"] = float((one.mean - other.mean).square().mean().sqrt())
        figures[f"{name} stretch"] = float((one.std / other.std).log().abs().mean().exp())
        bounds |= {f"{name} offset": (None, 0.5), f"{name} stretch": (None, 2)}
    wrong = "the agent samples codes that the decoder never saw: raise model.weights.latent_kl, or lower agent.clap.eps"
    apart = "the two posteriors code actions apart: raise train.labeled_share, or lower model.unlabeled_weight"
    bad = {name: wrong if "prior" in name else apart for name in figures}
    return judged(
        "4 latent moments",
        figures,
        bounds,
        "both posteriors fill the prior" if infers else "the posterior fills the prior",
        bad,
    )


def _r_squared_of(actions: Sequence[np.ndarray], hidden: Sequence[Episode]) -> float:
    truth = [episode.action for episode in hidden if episode.action is not None]
    return r_squared(np.concatenate(actions), np.concatenate(truth))


def r_squared(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 - squared error / variance, over all rows and dimensions together."""
    variance = max(np.square(truth - truth.mean(0)).mean(), LEAST_VARIANCE)
    return float(1 - np.square(predicted - truth).mean() / variance)


class SilentNoise(Noise):
    """Zeros: every sample is its distribution's mean."""

    def __init__(self) -> None:
        super().__init__([0], "silent", 0)

    def normal(self, time: int, batch: int, size: int) -> Tensor:
        return torch.zeros(time, 1, batch, size)


def _another(action: Tensor) -> Tensor | None:
    """For each window the next one of other actions [L, 1, B, A], int [B]; None where all have the same."""
    flat = action[:, 0].transpose(0, 1).flatten(1)
    size = len(flat)
    differs = (flat[:, None] != flat[None]).any(-1)
    if not differs.any():
        return None
    following = (torch.arange(size)[:, None] + torch.arange(1, size)) % size
    first = differs.gather(1, following).int().argmax(1, keepdim=True)
    return following.gather(1, first)[:, 0]


def _open_loop_errors(world: WorldModel, seen: Observed) -> dict[int, float]:
    start = seen.states.map(lambda x: x[CONTEXT])
    actions = seen.action[CONTEXT : CONTEXT + HORIZONS[-1]]
    states, _ = world.rssm.imagine(start, actions, torch.zeros(len(actions), *start.mean.shape))
    wanted = seen.observation[CONTEXT + 1 : CONTEXT + 1 + len(actions)]
    errors = world.decoder(states.feat) - wanted
    if not world.config.standardises:
        errors = errors / seen.observation.std((0, 1, 2)).clamp(min=NARROW)
    errors = errors.square().mean((1, 2, 3)).sqrt()
    return {h: float(errors[h - 1]) for h in HORIZONS}


def _unlabeled(observation: Tensor, like_action: Tensor) -> Batch:
    length, models, size, _ = like_action.shape
    none = torch.zeros(models, size, dtype=torch.bool)
    return Batch(observation, torch.zeros_like(like_action), torch.zeros(length, models, size), none, none, 0)


def _moments(q: Gaussian, prior: Gaussian) -> Gaussian:
    """Mean and standard deviation of each dimension of u, over all windows and steps, in units of the prior."""
    mean, std = ((q.mean - prior.mean) / prior.std).flatten(0, 2), (q.std / prior.std).flatten(0, 2)
    return Gaussian(mean.mean(0), (std.square().mean(0) + mean.var(0)).sqrt())
