"""Index rows -> the slices medium, medium-replay and expert (the paper's section E), and those imported whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import numpy as np

from lawm_data.config import Bounds, Count
from lawm_data.draw import rank, share
from lawm_data.errors import UserError
from lawm_data.manifest import is_custom
from lawm_data.parsing import LARGEST
from lawm_data.store import Row

TRAILING = 20  # episodes in the mean that says how far a collector has come
HELD_OUT = 0.05  # of the episodes with actions in a slice, for validation where the quota leaves nothing over
TOP_UP = "topup"  # the source of rollouts of kept policies, which no learner's history holds
KEEPER = "dreamer"  # the source whose policies are kept for it
Seed = Annotated[int, Bounds(0, LARGEST)]


@dataclass(frozen=True)
class Rule:
    """Returns in [min_return, max_return]; what is None is the env's default.

    history: `all` episodes, or `trailing`: each collector's up to where the mean of its last 20 first exceeds
    max_return.
    """

    min_return: float | None = None
    max_return: float | None = None
    history: Literal["all", "trailing"] | None = None

    def admits(self, value: float) -> bool:
        """Whether a return is in the range."""
        least = -np.inf if self.min_return is None else self.min_return
        most = np.inf if self.max_return is None else self.max_return
        return least <= value <= most

    @property
    def given(self) -> dict[str, Any]:
        """What is not None, by name."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Rules:
    """The recipe's changes to the rules."""

    medium: Rule = field(default_factory=Rule)
    medium_replay: Rule = field(default_factory=Rule)
    expert: Rule = field(default_factory=Rule)


@dataclass(frozen=True)
class Config:
    """The recipe's `split` section.

    label_frac: fraction of trajectories that keep their actions, None: all; quota: episodes of a slice, shared equally
    over the collectors; min_episodes: below it a slice is left out; min_steps: shorter trajectories are left out;
    validation: trajectories beside each slice; strict: a slice short of its quota is an error; shard_mb: target size of
    a file.
    """

    label_frac: float | None = None
    label_seed: Seed = 0
    slice_seed: Seed = 0
    quota: Annotated[int, Bounds(1, LARGEST)] = 2000
    min_episodes: Annotated[int, Bounds(2)] = 20
    min_steps: Count = 1
    validation: Annotated[int, Bounds(0)] = 20
    strict: bool = False
    shard_mb: Count = 64
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True)
class Slice:
    """rows: the slice; validation_rows: beside it; wanted and found: the quota and what the rule gave under it.

    displaced: how many episodes of the history the rule admits, where an import takes their place.
    """

    name: str
    rows: list[Row]
    validation_rows: list[Row]
    wanted: int
    found: int
    rule: dict[str, Any]
    displaced: int = 0

    @property
    def complete(self) -> bool:
        return self.found >= self.wanted


def _paper(expert: float, medium: tuple[float, float], cap: float) -> dict[str, Rule]:
    return {
        "medium": Rule(*medium, "all"),
        "medium-replay": Rule(None, cap, "trailing"),
        "expert": Rule(expert, None, "all"),
    }


PAPER = {
    "walker-walk": _paper(750, (275, 700), 585),
    "cheetah-run": _paper(750, (300, 600), 600),
    "hopper-stand": _paper(800, (250, 750), 700),
}
# rewards of the suite lie in [0, 1] per control step, so the scale is that of the paper's tasks: 0 to 1,000
SUITE = _paper(750, (300, 700), 600)
# the scale and the order of foreign data are unknown: all of it, until the recipe names returns
CUSTOM = {"medium-replay": Rule(None, None, "all")}


def rules_of(env: str, changes: Rules) -> dict[str, Rule]:
    """The rule of each slice: the paper's for its tasks, one for the rest of the suite, changed by the recipe."""
    rules = dict(CUSTOM if is_custom(env) else PAPER.get(env, SUITE))
    for part in fields(changes):
        name, change = part.name.replace("_", "-"), getattr(changes, part.name)
        if change != Rule():
            rules[name] = replace(rules.get(name, Rule(history="all")), **change.given)
            _check(rules[name], f"split.rules.{part.name}")
    return rules


def _check(rule: Rule, where: str) -> None:
    least, most = rule.min_return, rule.max_return
    if rule.history == "trailing" and most is None:
        raise UserError(f"{where}: history `trailing` needs a max_return")
    if least is not None and most is not None and least > most:
        raise UserError(f"{where}: min_return {least:g} is above max_return {most:g}, so no return fits; change one")


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Each recording once, of the whole imports of a slice and of the rest apart; the first by name stays.

    Collectors of one seed begin with the same random episodes, and files may be imported twice in different company:
    an episode could else be labeled under one name and unlabeled, or held out, under the other.
    """
    first: dict[tuple[object, ...], Row] = {}
    for row in rows:
        first.setdefault((row.slice_name, row.length, row.episode_return, row.crc32), row)
    return list(first.values())


def cut(rows: Sequence[Row], env: str, config: Config) -> dict[str, Slice]:
    """Every slice that `env` has an import for or, if there is other history, a rule; however small.

    Rows imported as a slice form that slice whole, and no other. A pure function of the rows as a set.
    """
    history = [row for row in rows if row.slice_name is None]
    long = [row for row in rows if row.length >= config.min_steps]
    imported = _grouped([row for row in long if row.slice_name is not None], lambda row: row.slice_name)
    slices = {
        name: _slice(name, whole, [], len(whole), {"history": "imported whole"}, config)
        for name, whole in imported.items()
    }
    for name, rule in rules_of(env, config.rules).items():
        fit = admitted(history, name, rule, config.min_steps)
        if name in imported:
            slices[name] = replace(slices[name], displaced=len(fit))
        elif history:
            taken, left = _share_out(fit, config.quota, config.slice_seed)
            slices[name] = _slice(name, taken, left, config.quota, rule.given, config)
    return dict(sorted(slices.items()))


def admitted(history: Sequence[Row], name: str, rule: Rule, min_steps: int) -> list[Row]:
    """The rows, none imported as a slice, that slice `name` takes by its rule and their length, before its quota."""
    if name == "medium-replay" or rule.history == "trailing":
        history = [row for row in history if row.source != TOP_UP]
    if rule.history == "trailing":
        assert rule.max_return is not None
        groups = _grouped(history, lambda row: (row.source, row.seed)).values()
        history = [row for group in groups for row in _until_exceeded(group, rule.max_return)]
    return [row for row in history if rule.admits(row.episode_return) and row.length >= min_steps]


def _until_exceeded(rows: list[Row], cap: float) -> list[Row]:
    """One collector's episodes, up to the one with which the mean of the last 20 first exceeds `cap`."""
    rows = sorted(rows, key=lambda row: row.order)
    if len(rows) < TRAILING:
        return rows
    returns = np.array([row.episode_return for row in rows])
    exceeded = np.lib.stride_tricks.sliding_window_view(returns, TRAILING).mean(axis=1) > cap
    return rows[: int(np.argmax(exceeded)) + TRAILING] if exceeded.any() else rows


def _share_out(rows: Sequence[Row], quota: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Equal shares of the quota to the collectors present; return (taken, left over).

    A share that a collector cannot fill stays empty, unless rollouts of its own kept policies top it up. Recordings
    with actions that fill at most half of it are all taken: too few to be left out by lot.
    """
    groups = _grouped(rows, collector)
    taken, left = [], []
    for key, size in shares(rows, quota).items():
        scarce = sum(row.has_action for row in groups[key]) <= size / 2

        def order(row: Row, scarce: bool = scarce) -> tuple[bool, bool, bytes]:
            return row.source == TOP_UP, scarce and not row.has_action, rank("slice", seed, row.episode_id)

        ranked = sorted(groups[key], key=order)
        taken += ranked[:size]
        left += ranked[size:]
    return taken, left


def shares(rows: Iterable[Row], quota: int) -> dict[tuple[str, int], int]:
    """The part of the quota of each collector, (source, seed), that any of the rows is of."""
    collectors = sorted({collector(row) for row in rows})
    return {key: quota // len(collectors) + (k < quota % len(collectors)) for k, key in enumerate(collectors)}


def collector(row: Row) -> tuple[str, int]:
    """Source and seed of the learner whose share of a slice the row counts to; `custom:` data have one share.

    They come in as many imports as there are files, of unlike size: the few labeled ones apart from the others.
    """
    if is_custom(row.env):
        return "import", 0
    return KEEPER if row.source == TOP_UP else row.source, row.seed


def _slice(name: str, taken: list[Row], left: list[Row], wanted: int, rule: dict[str, Any], config: Config) -> Slice:
    """Add the validation rows, from what is left over or, where nothing is, from the slice itself."""

    def drawn(rows: list[Row], count: int) -> list[Row]:
        known = [row for row in rows if row.has_action]
        return sorted(known, key=lambda row: rank("validation", config.slice_seed, row.episode_id))[:count]

    validation = drawn(left, config.validation)
    if not validation:
        most = share(HELD_OUT, sum(row.has_action for row in taken))
        validation = drawn(taken, min(config.validation, most))
    held_out = {row.episode_id for row in validation}
    rows = [row for row in taken if row.episode_id not in held_out]
    return Slice(name, rows, validation, wanted, len(taken), rule)


def _grouped(rows: Iterable[Row], key: Any) -> dict[Any, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
