"""The ladder of diagnostics: the first rung that fails names the culprit. Rungs 1 to 3 look at the world model.

1. labeled path: is a latent action used at all (KL, spread), and does it carry the action (held-out error)?
2. unlabeled path: do inferred actions match the withheld ones as well as a supervised IDM with the SAME labels?
3. open loop: do inferred actions drive the model where true ones do? If only they do, the code is private.

Withheld actions are read here to judge, never to train. Shapes: T steps, N = 1 model, B episodes or windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lawm_data import files
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.nets.blocks import Noise, Normalizer
from lawm_data.nets.rssm import State
from lawm_data.runs import Run
from lawm_data.windows import Batch, Pool, Windows, moments
from lawm_train import idm, policy
from lawm_train.lawm import Observed, WorldModel
from lawm_train.stream import Dataset

WINDOWS = 64  # of the held-out episodes
CONTEXT = 10  # filtered steps before an open loop
HORIZONS = (1, 5, 15)


class Rung(NamedTuple):
    """One step of the ladder: figures by name, and the verdict in words."""

    name: str
    figures: dict[str, float]
    passed: bool
    verdict: str


def ladder(path: Path, dataset: Dataset) -> list[Rung]:
    """Rungs 1 to 3 of a model-based run on the validation and withheld episodes of the dataset it was trained on.

    Writes RUN/diagnostics.json. UserError for another dataset, or a run without a world model.
    """
    run = Run(path)
    saved = run.config
    if saved["dataset"]["digest"] != dataset.digest:
        raise UserError(
            f"{path}: was trained on another dataset (digest {saved['dataset']['digest'][:12]}); name that one"
        )
    method = policy.load(run)
    world = method.modules.get("world")
    if not isinstance(world, WorldModel):
        raise UserError(f"{path}: method {saved['method']} has no world model to diagnose")
    window = max(saved["settings"]["train"]["window"], CONTEXT + HORIZONS[-1])
    held_out = Pool(dataset.episodes(saved["slice"], "validation"), True, dataset.manifest.action_size, window)
    batch = Windows([[held_out]], [0], window, [WINDOWS]).batch(0, "diagnostics")
    with torch.no_grad():
        rungs = [labeled_path(world, batch)]
        if saved["method"] == "lawm" and not saved.get("oracle"):  # an oracle never learned to infer
            idm_config = idm_settings(run)
            rungs.append(inferred_actions(world, dataset, saved["slice"], idm_config))
            rungs.append(open_loop(world, batch))
    files.write_json(path / "diagnostics.json", [rung._asdict() for rung in rungs])
    return rungs


def as_text(path: Path, rungs: Iterable[Rung]) -> str:
    """One line a rung: passed or FAILED, figures, verdict."""
    lines = [str(path)]
    for rung in rungs:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in rung.figures.items())
        lines.append(f"  {'passed' if rung.passed else 'FAILED'}  {rung.name}: {figures}. {rung.verdict}")
    return "\n".join(lines)


def labeled_path(world: WorldModel, batch: Batch) -> Rung:
    """Rung 1, on held-out labeled windows."""
    terms, seen = world.loss(batch, Noise([0], "diagnostics", 0))
    feat = seen.states.feat[:-1]
    decoded = world.decode_action(feat, seen.latent.mean)
    error = (decoded - batch.action).square().mean() / batch.action.var(dim=(0, 1, 2)).mean()
    figures = {
        "KL(u) nats": float(terms["latent_kl"].mean()),
        "spread of the decoded action": action_spread(world, feat),
        "held-out action error / variance": float(error),
    }
    kl, spread, ratio = figures.values()
    passed = kl > 2 and spread > 0.2 and ratio < 0.3
    bad = "the latent action is unused or does not carry the action: lower model.action_sigma"
    return Rung("labeled path", figures, passed, "the latent action carries the action" if passed else bad)


def action_spread(world: WorldModel, feat: Tensor, draws: int = 16) -> float:
    """Standard deviation of the decoded action over u ~ prior, averaged over states and dimensions of the action."""
    prior = world.latent_prior(feat)
    noise = Noise([0], "spread", 0)
    length, _, size, width = prior.mean.shape
    actions = [
        world.decode_action(feat, prior.mean + prior.std * draw.view(length, 1, size, width))
        for draw in noise.normal(draws, length * size, width)
    ]
    return float(torch.stack(actions).std(0).mean())


def inferred_actions(world: WorldModel, dataset: Dataset, slice_name: str, config: idm.Config) -> Rung:
    """Rung 2: R^2 of inferred actions on withheld rows, beside an IDM trained on the labeled rows."""
    labeled = list(dataset.episodes(slice_name, "labeled"))
    hidden = list(dataset.episodes(slice_name, "unlabeled", with_actions=True))[:100]
    truth = np.concatenate([episode.action for episode in hidden if episode.action is not None])
    ours = np.concatenate([infer_actions(world, episode) for episode in hidden])
    mean, std = moments([Pool(labeled, True, dataset.manifest.action_size)])
    with torch.enable_grad():
        reference = idm.fit(config, [0], labeled, Normalizer(mean[None], std[None]))
    stripped = (episode.stripped() for episode in hidden)
    theirs = np.concatenate([e.action for e in reference.relabel(stripped) if e.action is not None])
    figures = {"R2 inferred": r_squared(ours, truth), "R2 supervised IDM": r_squared(theirs, truth)}
    passed = figures["R2 inferred"] > 0.9 * figures["R2 supervised IDM"]
    bad = "actions inferred from observations are worse than an IDM's with the same labels"
    return Rung("inferred actions", figures, passed, "as good as the labels allow" if passed else bad)


def infer_actions(world: WorldModel, episode: Episode) -> np.ndarray:
    """Actions [T, A] that the action-free path decodes along an episode, with means throughout."""
    observation = torch.tensor(episode.observation)[:, None, None]  # [T+1, 1, 1, O]
    batch = _unlabeled(observation, torch.zeros(episode.length, 1, 1, world.action_size))
    return world.observe(batch, SilentNoise()).action[:, 0, 0].numpy()


def open_loop(world: WorldModel, batch: Batch) -> Rung:
    """Rung 3: root mean square error of normalised observations after 1, 5, 15 imagined steps, by source of actions."""
    free = _unlabeled(batch.observation, batch.action)
    runs = {"true": world.observe(batch, SilentNoise()), "inferred": world.observe(free, SilentNoise())}
    errors = {name: _open_loop_errors(world, seen) for name, seen in runs.items()}
    figures = {f"{name} h={h}": errors[name][h] for name in errors for h in HORIZONS}
    ratio = errors["true"][HORIZONS[-1]] / errors["inferred"][HORIZONS[-1]]
    passed = ratio < 1.5
    bad = (
        "inferred actions predict far better than true ones: a private code; lower model.unlabeled_weight "
        "or set model.decoder_grad_unlabeled=false"
    )
    return Rung("open loop", figures, passed, "true and inferred actions mean the same" if passed else bad)


def r_squared(predicted: np.ndarray, truth: np.ndarray) -> float:
    """1 - squared error / variance, over all rows and dimensions together."""
    return float(1 - np.square(predicted - truth).sum() / np.square(truth - truth.mean(0)).sum())


def idm_settings(run: Run) -> idm.Config:
    """The IDM settings that the run's recipe holds."""
    return idm.Config(**run.config["settings"]["agent"]["idm"])


class SilentNoise(Noise):
    """Zeros: every sample is its distribution's mean."""

    def __init__(self) -> None:
        super().__init__([0], "silent", 0)

    def normal(self, time: int, batch: int, size: int) -> Tensor:
        return torch.zeros(time, 1, batch, size)


def _open_loop_errors(world: WorldModel, seen: Observed) -> dict[int, float]:
    start = seen.states.map(lambda x: x[CONTEXT])
    actions = seen.action[CONTEXT : CONTEXT + HORIZONS[-1]]
    quiet = torch.zeros(len(actions), *start.stoch.shape)
    states, _ = world.rssm.rollout(State(*start), actions, len(actions), quiet)
    wanted = seen.observation[CONTEXT + 1 : CONTEXT + 1 + len(actions)]
    errors = (world.decoder(states.feat) - wanted).square().mean((1, 2, 3)).sqrt()
    return {h: float(errors[h - 1]) for h in HORIZONS}


def _unlabeled(observation: Tensor, like_action: Tensor) -> Batch:
    length, models, size, _ = like_action.shape
    none = torch.zeros(models, size, dtype=torch.bool)
    return Batch(observation, torch.zeros_like(like_action), torch.zeros(length, models, size), none, none, 0)
