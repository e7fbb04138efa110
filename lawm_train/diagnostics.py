"""The ladder of diagnostics of a model-based run: the first rung that fails names the culprit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lawm_data import config, envs, files
from lawm_data.episode import Episode
from lawm_data.errors import Missing, UserError
from lawm_data.runs import Position, Run, trained
from lawm_data.windows import Batch, Pool, Windows
from lawm_train import acting, cells, idm, ladders, methods, policy, results, rungs
from lawm_train.clap import Agent
from lawm_train.data import everything, parted_by_draw
from lawm_train.evaluate import Evaluator, check_sizes
from lawm_train.lawm import WorldModel
from lawm_train.record import is_prior
from lawm_train.rungs import Rung, not_walked
from lawm_train.stream import Dataset

WINDOWS = 64  # of the held-out episodes
HIDDEN = 100  # episodes whose inferred actions are judged
EVERYTHING_KNOWN = "with every action known, none was learned to be inferred"
NOTHING_WITHHELD = "no actions were withheld"
PRIOR_EPISODES = 20
WIDTH_EPISODES = 10


def ladder(path: Path, dataset: Dataset) -> list[Rung]:
    """All rungs of a run on the validation and withheld episodes of the dataset that it was trained on.

    Writes RUN/diagnostics.json. UserError for another dataset, or a run without a world model.
    """
    run = trained(path)
    saved = run.config
    if saved["dataset"]["digest"] != dataset.digest:
        raise UserError(
            f"{path}: was trained on another dataset (digest {saved['dataset']['digest'][:12]}); name that one"
        )
    position, method = policy.load_newest(run)
    world, agent, inverse_dynamics = (method.modules.get(name) for name in ("world", "agent", "idm"))
    if not isinstance(world, WorldModel) or not isinstance(agent, Agent):
        raise UserError(f"{path}: method {saved['method']} has no world model to diagnose")
    with torch.no_grad():
        walked = [*_of_model(run, dataset, world, inverse_dynamics), *_of_agent(run, dataset, world, agent, position)]
    for rung in walked:
        if broken := [figure for figure, value in rung.figures.items() if not math.isfinite(value)]:
            raise UserError(f"{path}: rung {rung.name}: {broken[0]} is not finite; train again with a lower model.lr")
    found = {**position._asdict(), "rungs": [rung._asdict() for rung in walked]}
    files.write_json(path / ladders.FILE, found)
    return walked


def held_out(run: Run, dataset: Dataset) -> Batch:
    """Windows of the validation episodes. UserError where the slice has none."""
    saved = run.config
    if not dataset.manifest.slices[saved["slice"]].splits.get("validation"):
        raise UserError(
            f"{dataset.describe()}: slice {saved['slice']} has no validation episodes to diagnose on; split again with "
            "split.validation above 0 and ten episodes that have actions (5% are held out), and train on that"
        )
    window = max(saved["settings"]["train"]["window"], rungs.CONTEXT + rungs.HORIZONS[-1])
    episodes = [one for one in dataset.episodes(saved["slice"], "validation") if one.length >= window]
    if not episodes:
        raise UserError(f"{dataset.describe()}: no validation episode has the {window} steps that the ladder looks at")
    pool = Pool(episodes, True, dataset.manifest.action_size, window)
    return Windows([[pool]], [0], window, [WINDOWS]).batch(0, "diagnostics")


def draw_of(run: Run, dataset: Dataset) -> tuple[list[Episode], list[Episode]]:
    """The episodes whose actions a run read, and the others of its slice, with the actions withheld from it."""
    saved = run.config
    return parted_by_draw(everything(dataset, saved["slice"]), saved["label_frac"], saved["label_seed"])


def _of_model(run: Run, dataset: Dataset, world: WorldModel, inverse_dynamics: nn.Module | None = None) -> list[Rung]:
    """inverse_dynamics: the IDM that inferred the actions beforehand, of a method that has one."""
    batch, saved = held_out(run, dataset), run.config
    learns = saved["method"] == "lawm" and not saved["oracle"]  # to infer actions, where there are episodes without
    labeled, others = draw_of(run, dataset) if learns else ([], [])
    infers = bool(others)
    return [
        rungs.labeled_path(world, batch),
        _of_relabeled(run, dataset, inverse_dynamics)
        if inverse_dynamics
        else _of_inference(saved, world, labeled, others),
        rungs.open_loop(world, batch, infers),
        rungs.latent_moments(world, batch, infers),
    ]


def _of_inference(
    saved: Mapping[str, Any], world: WorldModel, labeled: Sequence[Episode], others: Sequence[Episode]
) -> Rung:
    if saved["method"] != "lawm" and not saved["oracle"]:
        return not_walked(rungs.INFERRED, f"{cells.title(saved['method'])} infers no actions")
    if not others:
        return not_walked(rungs.INFERRED, EVERYTHING_KNOWN)
    hidden = _withheld(others)
    if not hidden:
        return not_walked(rungs.INFERRED, NOTHING_WITHHELD)
    settings = config.from_dict(saved["settings"], policy.SECTIONS, "config.json")
    return rungs.inferred_actions(world, labeled, hidden, settings["agent"].idm)


def _of_relabeled(run: Run, dataset: Dataset, inverse_dynamics: nn.Module) -> Rung:
    """Rung 2 of a method whose IDM inferred the actions; not walked where the withheld ones are missing."""
    assert isinstance(inverse_dynamics, idm.InverseDynamics)
    try:
        _, others = draw_of(run, dataset)
    except Missing as error:
        return not_walked(rungs.INFERRED, str(error))
    hidden = _withheld(others)
    if not hidden:
        return not_walked(rungs.INFERRED, NOTHING_WITHHELD if others else EVERYTHING_KNOWN)
    return rungs.relabeled_actions(inverse_dynamics, hidden)


def _withheld(others: Sequence[Episode]) -> list[Episode]:
    return [episode for episode in others if episode.action is not None][:HIDDEN]


def _logged_of_prior(run: Run, position: Position) -> list[Sequence[float]]:
    """Returns of the prior policy of the world model at a checkpoint, one list, or none where it was not evaluated."""
    scores = [record.last for record in results.of_run(run.path) if is_prior(record.method)]
    of_model = int(run.config["method"].startswith(methods.INFERRED))  # the phase that trains it: an IDM comes before
    frozen = position.phase > of_model  # then an earlier score is of this very model
    return [score.returns for score in scores if frozen or position == Position(of_model, score.update)]


def _of_agent(run: Run, dataset: Dataset, world: WorldModel, agent: Agent, position: Position) -> list[Rung]:
    manifest = dataset.manifest
    if manifest.repeat is None:
        reason = f"{manifest.env} has no simulator here"
        return [not_walked(name, reason) for name in ("5 prior policy", "6 exploitation", "7 support")]
    sizes = manifest.observation_size, manifest.action_size
    check_sizes(dataset.describe(), manifest.env, manifest.repeat, *sizes)
    evaluator = partial(Evaluator, manifest.env, manifest.repeat, 1)
    of_prior = _logged_of_prior(run, position) or evaluator(PRIOR_EPISODES).returns(world.policy())
    fifth = acting.prior_policy(of_prior[0], manifest.slices[run.config["slice"]].statistics["mean"])
    (episodes,) = evaluator(acting.EPISODES).run(agent.policy())
    sixth = acting.exploitation(agent, episodes, acting.replay_in(envs.make(manifest.env, manifest.repeat)))
    widths = evaluator(WIDTH_EPISODES)
    seventh = acting.support({width: widths.returns(agent.policy(width))[0] for width in acting.WIDTHS})
    return [fifth, sixth, seventh]
