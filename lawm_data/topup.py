"""Fill what a learner's history leaves open of a slice with rollouts of the policies that the learner kept.

They act as in training, sampled. The source is `topup`: it is no learner's history, so medium-replay never takes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

from lawm_data import card, config, envs, files, slicing
from lawm_data.collect import Config, record, run_of
from lawm_data.errors import UserError
from lawm_data.learner import KEEP_EVERY, kept_policies, load_kept
from lawm_data.nets.blocks import Noise
from lawm_data.progress import Bar
from lawm_data.slicing import KEEPER, TOP_UP, Rule
from lawm_data.store import Row, Store

TRIES = 4  # rollouts for each episode that is missing, before giving up


def top_up(root: Path, env: str, name: str, split: slicing.Config) -> None:
    """Roll out until each collector's share of slice `name` is full, or its policies miss the band too often.

    Collectors are the seeds of KEEPER in the store; each start has TRIES rollouts for an episode that is missing.
    UserError when there are none, and, once the others are done, for the first that failed.
    """
    envs.spec(env)  # UserError for what no simulator here makes
    store = Store(root / "raw")
    history = store.rows(env, KEEPER)
    seeds = sorted({row.seed for row in history})
    if not seeds:
        step = files.typed(f"lawm-data collect --env {env}", root)
        raise UserError(f"{store.root}: no history of {KEEPER} in {env}; run `{step}` first")
    rule = slicing.rules_of(env, split.rules)[name]
    rows = store.rows(env)
    whole = any(row.slice_name == name for row in rows)
    if whole or rule.history == "trailing":
        why = "it is imported whole" if whole else "its rule's `history: trailing` wants each learner's own episodes"
        raise UserError(f"--top-up {name}: {why}, so no rollout can be part of it")
    if TOP_UP not in store.sources(env):
        described = f"rollouts of policies that {KEEPER} kept every {KEEP_EVERY} episodes, sampled as in training"
        store.create(env, TOP_UP, {**store.meta(env, KEEPER), "collected": described})
    failed: UserError | None = None
    everything = slicing.distinct(row for row in rows if row.slice_name is None)
    fit = slicing.admitted(everything, name, rule, split.min_steps)
    shares, there = slicing.shares(fit, split.quota), Counter(slicing.collector(row) for row in fit)
    for seed in seeds:
        own = [row for row in history if row.seed == seed]
        try:
            if (KEEPER, seed) not in shares:
                where, band = run_of(root, env, KEEPER, seed).path, card.bounds(rule.given)
                raise UserError(f"{where}: no episode with a {band}, so no share; collect more episodes first")
            said = _fill(root, own, rule, there[KEEPER, seed], shares[KEEPER, seed], f"{name} s{seed}")
        except UserError as error:  # of one collector
            said, failed = f"stopped: {error}", failed or error
        click.echo(f"{name}, seed {seed}: {said}")
    if failed:
        raise failed


def _fill(root: Path, history: Sequence[Row], rule: Rule, there: int, share: int, label: str) -> str:
    """Top up one seed, of whose share so many episodes are there; returns what happened, in words."""
    store, env, seed = Store(root / "raw"), history[0].env, history[0].seed
    order = store.resume(env, TOP_UP, seed)
    if there >= share:
        return f"{share} of {share} episodes are there"
    run = run_of(root, env, KEEPER, seed)
    saved, where = run.config.get("settings"), str(run.path / "config.json")
    if not isinstance(saved, dict):
        raise UserError(f"{where}: no settings of a collector; restore the file")
    settings = config.from_dict(saved, {"collect": Config}, where)["collect"]
    torch.set_num_threads(settings.threads)
    spec, policies = envs.spec(env, settings.repeat), _policies(kept_policies(run), history, rule, str(run.path))
    workers = [envs.make(env, settings.repeat) for _ in range(settings.round)]
    found, last = 0, order + TRIES * (share - there)
    with Bar(total=share, initial=there, desc=label, unit="episode") as bar:
        while there + found < share and order < last:
            noise = Noise([seed], f"top-up/{order}", 0)
            policy = load_kept(policies[order // settings.round % len(policies)], spec, settings.dreamer, noise)
            orders = range(order, order + settings.round)
            episodes = record(store, spec, workers, policy, TOP_UP, seed, orders)
            store.commit(env, TOP_UP, seed, orders.stop)
            order = orders.stop
            new = sum(rule.admits(episode.episode_return) for episode in episodes)
            found += new
            bar.update(min(new, int(bar.total - bar.n)))
    short = f", {share - there - found} still missing: most returns miss the band; collect more episodes"
    return f"{found} episodes by {len(policies)} kept policies{short if there + found < share else ''}"


def _policies(kept: dict[int, Path], history: Sequence[Row], rule: Rule, where: str) -> list[Path]:
    """The policies that were kept where the rule admits the history's mean return."""
    returns = np.array([row.episode_return for row in history])
    means = {order: returns[max(order - KEEP_EVERY, 0) : order].mean() for order in kept if order <= len(returns)}
    fit = [kept[order] for order, mean in means.items() if rule.admits(mean)]
    if not fit:
        band = card.bounds(rule.given)
        raise UserError(f"{where}: none of {len(kept)} kept policies had a mean {band}; collect more episodes first")
    return fit
