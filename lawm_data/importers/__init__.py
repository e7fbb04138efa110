"""Foreign recordings -> the raw store. A format is one file here with one class, a `Recording`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from lawm_data import envs, files, table4
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.importers.aime import Aime
from lawm_data.importers.d4rl import D4rl
from lawm_data.importers.laom import Laom
from lawm_data.importers.lerobot import LeRobot
from lawm_data.importers.minari import Minari
from lawm_data.importers.recording import Recording, Trajectory, attempt, lost_in_single, single
from lawm_data.manifest import is_custom
from lawm_data.progress import Bar
from lawm_data.store import Row, Store

FORMATS: dict[str, Callable[[list[Path]], Recording]] = {
    "aime": Aime,
    "d4rl": D4rl,
    "laom": Laom,
    "lerobot": LeRobot,
    "minari": Minari,
}
SLICE_NAME = re.compile(r"(?!.{65})(?!.*-(validation|actions)$)[a-z0-9]+(-[a-z0-9]+)*")  # it names folders


def run(
    format_name: str,
    paths: list[Path],
    env: str,
    raw_root: Path,
    slice_name: str | None = None,
    *,
    repeat: int | None = None,
    only: str = ":",
    skip_bad: bool = False,
    credit: str | None = None,
) -> None:
    """Import `paths` as one source named by format and content; the same content again adds nothing.

    repeat: control steps to a recorded step, for an env that has a simulator (None: 2); only: FIRST:STOP, which of
    the recording's episodes, counted from 0; skip_bad: leave out those of which numbers cannot be used, such as NaN;
    credit: whom the dataset card is to name, beside what the format knows.
    """
    _check_names(format_name, env, slice_name)
    credit = credit and _as_text(credit)
    chosen = _range(only)
    if repeat is not None and is_custom(env):
        raise UserError(f"--repeat {repeat}: counts the steps of a simulator, and {env} has none; leave it out")
    spec = None if is_custom(env) else envs.spec(env, 2 if repeat is None else repeat)
    recording = FORMATS[format_name](paths)
    if spec and recording.env not in (None, env):
        raise UserError(f"{paths[0]}: recorded in {recording.env}, not in {env}; check --env")
    store, source = Store(raw_root), f"{format_name}-{recording.digest[:8]}"
    folder = store.root / env / source
    files.sweep(folder.parent)
    if spec and len(recording.layout) > 1:
        unknown = {name for name, _ in recording.layout} - {name for name, _ in spec.layout}
        if unknown:
            recording.notes.append(f"left out, as {env} does not observe it: {', '.join(sorted(unknown))}")
    collected = f"imported from {', '.join(path.name for path in paths)} ({format_name}, {recording.digest})"
    part = [f"of its episodes {only}"] if only != ":" else []
    if skip_bad:
        part.append("without those that cannot be used")
    meta = _shape(recording, spec, store, env, paths[0]) | {
        "collected": _as_text("; ".join([collected, *recording.notes, *part])),
        "credits": _as_text("; ".join(filter(None, [recording.credits, credit]))) or None,
        "slice": slice_name,
        "only": only,
    }
    if skip_bad:
        meta["skip_bad"] = True  # a key that older versions do not know
    if source in store.sources(env):
        _check_same(folder, store.meta(env, source), meta, credit)
        click.echo(f"{folder}: these episodes are imported already, nothing added")
        return
    checked = partial(_checked, env=env, source=source, spec=spec, sizes=(_width(meta["layout"]), meta["action_size"]))
    store.create(env, source, meta, _episodes(recording, spec, chosen, checked, skip_bad))
    step = files.typed(f"lawm-data split --env {env}", raw_root.parent)
    rows = store.rows(env, source)
    _tell(recording, spec, rows, folder, slice_name, step)
    if paper := table4.paper(env, slice_name):
        click.echo(_beside_table4([row.episode_return for row in rows], paper))


def _tell(
    recording: Recording, spec: envs.Spec | None, rows: Sequence[Row], folder: Path, slice_name: str | None, step: str
) -> None:
    """What was imported and left out, and what to type next."""
    for note in [*recording.notes, *_cut_short(rows, spec)]:
        click.echo(note, err=True)
    if not spec and len(recording.layout) > 1:
        click.echo(f"observed: {', '.join(f'{name} ({size})' for name, size in recording.layout)}")
    if slice_name not in (None, *table4.SLICES):
        click.echo(
            f"{slice_name}: a slice of its own, as none of the paper's, {', '.join(table4.SLICES)}; to rename it, "
            f"delete {folder} and import again"
        )
    few = "" if all(row.has_action for row in rows) else f", {sum(row.has_action for row in rows)} of them with actions"
    click.echo(f"{folder}: {len(rows)} episodes imported{few}; next: {step}")


def _shape(recording: Recording, spec: envs.Spec | None, store: Store, env: str, path: Path) -> dict[str, Any]:
    """UserError where nothing says what size actions have."""
    before = [store.meta(env, source)["action_size"] for source in store.sources(env)]
    action_size = spec.action_size if spec else recording.action_size or next(iter(before), None)
    if action_size is None:
        raise UserError(
            f"{path}: no trajectory has actions, so their size is unknown; name recordings of {env} that have some in "
            "the same command, or import them before"
        )
    return {
        "layout": [list(part) for part in (spec.layout if spec else recording.layout)],
        "action_size": action_size,
        "repeat": spec.repeat if spec else None,
        "action_bounds": recording.action_bounds,
    }


def _episodes(
    recording: Recording,
    spec: envs.Spec | None,
    chosen: slice,
    checked: Callable[[Trajectory, int], Episode],
    skip_bad: bool,
) -> Iterator[Episode]:
    absent, partly = 0, []  # of all actions; where some are known and others not
    coarse: list[str] = []  # columns that float32 cannot tell, and where
    bad: list[str] = []
    trajectories = islice(recording.trajectories(spec.layout if spec else recording.layout), chosen.start, chosen.stop)
    total = len(range(recording.count)[chosen]) or None  # of files, of which one may hold several
    order = 0
    for one in Bar(trajectories, "import", total, unit="episode", disable=None):
        episode = one if isinstance(one, UserError) else attempt(checked, one, order)
        if isinstance(episode, UserError):
            if not skip_bad:
                raise episode
            bad.append(str(episode))
            continue
        assert isinstance(one, Trajectory)
        order += 1
        absent += one.action is None
        if one.action is not None and episode.action is None and not np.isnan(one.action).all():
            partly.append(one.where)
        coarse += [_column(one, k) for k in lost_in_single(one.observation)[:1]]
        yield episode
    if bad:
        recording.notes.append(f"left out {len(bad)} episodes that cannot be used, the first: {bad[0]}")
    if bad and not order:
        raise UserError(f"none of {len(bad)} episodes can be used: {bad[0]}")
    if not order:
        first, stop = (place or "" for place in (chosen.start, chosen.stop))
        raise UserError(f"--only {first}:{stop}: none of the recording's episodes; they are counted from 0")
    if absent:
        recording.notes.append(
            f"{absent} episodes have no array '{recording.action_key}', so they come without actions"
        )
    if partly:
        recording.notes.append(
            f"{len(partly)} episodes lack some of their actions (NaN) and count as episodes without, the first is "
            f"{partly[0]}"
        )
    if coarse:
        recording.notes.append(
            f"{len(coarse)} episodes vary by less than float32 can tell beside an offset: {coarse[0]}; subtract the "
            "offset first"
        )


def _column(one: Trajectory, k: int) -> str:
    column = one.observation[:, k]
    return f"column {k} of the observations of {one.where} by {np.ptp(column):.2g} around {column.mean():.7g}"


def _checked(
    one: Trajectory, order: int, env: str, source: str, spec: envs.Spec | None, sizes: tuple[int, int]
) -> Episode:
    """The episode that a trajectory makes, without its actions where one of them is unknown. UserError where its
    numbers cannot be used; sizes: of observation and action.
    """
    if spec and len(one.reward) > spec.episode_length:
        raise UserError(
            f"{one.where}: {len(one.reward)} steps, but an episode of {env} has {spec.episode_length} at action repeat "
            f"{spec.repeat}; give the repeat of the recording with --repeat, or import as --env custom:NAME"
        )
    known = None if one.action is None or np.isnan(one.action).any() else one.action
    episode = Episode(single(one.observation), known, one.reward, one.terminal, env, source, 0, order)
    episode.validate(*sizes, one.where, one.first)
    if one.action is not None and one.action.shape[1] != sizes[1]:  # of actions that are unknown
        raise UserError(f"{one.where}: action size {one.action.shape[1]}, but {env} has {sizes[1]}; check --env")
    return episode


def _cut_short(rows: Sequence[Row], spec: envs.Spec | None) -> Iterator[str]:
    """What there is to say of episodes that all end well before the time limit of their task, in no terminal state."""
    longest = max(row.length for row in rows)
    if spec and longest < 0.9 * spec.episode_length and not any(row.terminal for row in rows):
        yield (
            f"the longest episode has {longest} of the {spec.episode_length} steps of {spec.env} at action repeat "
            f"{spec.repeat}; was it recorded with another --repeat?"
        )


def _check_names(format_name: str, env: str, slice_name: str | None) -> None:
    if format_name not in FORMATS:
        raise UserError(f"unknown format '{format_name}': expected {' or '.join(FORMATS)}")
    if is_custom(env) and not re.fullmatch(r"custom:[a-z0-9_][a-z0-9_.-]*", env):
        raise UserError(f"--env {env}: after custom: expected a name of a-z, 0-9, '_', and within it '.' and '-'")
    if slice_name is not None and not SLICE_NAME.fullmatch(slice_name):
        raise UserError(
            f"--slice {slice_name:.80}: expected words of a-z and 0-9 joined by '-', up to 64 characters in all, not "
            "ending in -validation or -actions"
        )


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any], credit: str | None) -> None:
    """What the options made of these files holds until the folder is deleted."""
    changes = list(zip(_made_with(before), _made_with(now), strict=True))
    if before.get("action_bounds"):  # which older versions did not keep
        changes.append((_within(before), _within(now)))
    if credit and credit not in (before["credits"] or ""):
        changes.append((before["credits"] or "no credit", credit))
    for old, new in changes:
        if old != new:
            raise UserError(f"{folder}: imported before as {old}, now as {new}; delete the folder to change it")


def _as_text(found: str) -> str:
    """What UTF-8 can hold: names of files and terminals may be of other bytes."""
    return found.encode(errors="replace").decode()


def _width(layout: Iterable[Sequence[Any]]) -> int:
    return sum(size for _, size in layout)


def _made_with(meta: dict[str, Any]) -> list[str]:
    skip = "--skip-bad" if meta.get("skip_bad") else "every episode"
    return [meta["slice"] or "history", f"--repeat {meta['repeat']}", f"--only {meta.get('only', ':')}", skip]


def _within(meta: dict[str, Any]) -> str:
    return f"actions within {meta['action_bounds']}"


def _range(only: str) -> slice:
    """`5:` or `:2000` as a slice."""
    found = re.fullmatch(r"(\d*):(\d*)", only)
    if not found:
        raise UserError(f"--only {only}: expected FIRST:STOP, such as 5: or :2000")
    return slice(*(min(int(number), sys.maxsize) if number else None for number in found.groups()))


def _beside_table4(returns: Sequence[float], paper: dict[str, float]) -> str:
    """The paper's row, what was imported and, where that is more, both ways to leave the surplus out."""
    ways = {"the paper's Table 4": paper, f"these {len(returns)}": table4.statistics(returns)}
    surplus = len(returns) - table4.EPISODES
    if surplus > 0:
        ways[f"--only {surplus}:"] = table4.statistics(returns[surplus:])
        ways[f"--only :{table4.EPISODES}"] = table4.statistics(returns[: table4.EPISODES])
    rows = [
        ("", *table4.COLUMNS),
        *((name, *(f"{row[key]:.1f}" for key in table4.COLUMNS)) for name, row in ways.items()),
    ]
    return "\n".join(f"{name:22}" + "".join(f"{cell:>8}" for cell in cells) for name, *cells in rows)
