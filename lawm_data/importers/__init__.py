"""Foreign recordings -> the raw store. A format is one file here with one class, a `Recording`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from lawm_data import envs, files
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.importers.aime import Aime
from lawm_data.importers.d4rl import D4rl
from lawm_data.importers.recording import Recording
from lawm_data.store import Store

FORMATS: dict[str, Callable[[list[Path]], Recording]] = {"aime": Aime, "d4rl": D4rl}
SLICE_NAME = re.compile(r"(?!.*-(validation|actions)$)[a-z0-9]+(-[a-z0-9]+)*")


def run(format_name: str, paths: list[Path], env: str, raw_root: Path, slice_name: str | None = None) -> None:
    """Import `paths` as one source named by format and content; the same content again adds nothing."""
    _check_names(format_name, env, slice_name)
    spec = None if env.startswith("custom:") else envs.spec(env)
    recording = FORMATS[format_name](paths)
    store, source = Store(raw_root), f"{format_name}-{recording.digest[:8]}"
    folder = store.root / env / source
    files.sweep(folder.parent)
    if source in store.sources(env):
        _check_same_slice(folder, store.meta(env, source)["slice"], slice_name)
        print(f"{folder}: these episodes are imported already, nothing added")
        return
    layout = spec.layout if spec else recording.layout
    meta = {
        "layout": [list(part) for part in layout],
        "action_size": spec.action_size if spec else recording.action_size,
        "repeat": spec.repeat if spec else None,
        "collected": f"imported from {', '.join(path.name for path in paths)} ({format_name}, {recording.digest})",
        "credits": recording.credits,
        "slice": slice_name,
    }
    count = store.create(env, source, meta, _episodes(recording, env, source, spec))
    for note in recording.notes:
        print(note, file=sys.stderr)
    print(f"{folder}: {count} episodes imported; next: lawm-data split")


def _episodes(recording: Recording, env: str, source: str, spec: envs.Spec | None) -> Iterator[Episode]:
    layout = spec.layout if spec else recording.layout
    observation_size = sum(size for _, size in layout)
    action_size = spec.action_size if spec else recording.action_size
    bar = tqdm(recording.trajectories(layout), f"import {source}", recording.count, unit="episode", disable=None)
    for order, (where, observation, action, reward, terminal) in enumerate(bar):
        if spec and len(reward) > spec.episode_length:
            raise UserError(
                f"{where}: {len(reward)} steps, but an episode of {env} has {spec.episode_length} at action repeat "
                f"{spec.repeat}; sum its rewards over the repeat first, or import as --env custom:NAME"
            )
        episode = Episode(observation, action, reward, terminal, env, source, 0, order)
        yield episode.validate(observation_size, action_size, where)


def _check_names(format_name: str, env: str, slice_name: str | None) -> None:
    if format_name not in FORMATS:
        raise UserError(f"unknown format '{format_name}': expected {' or '.join(FORMATS)}")
    if env.startswith("custom:") and not re.fullmatch(r"custom:[a-z0-9_.-]+", env):
        raise UserError(f"--env {env}: after custom: expected a name of a-z, 0-9, '_', '.' and '-'")
    if slice_name is not None and not SLICE_NAME.fullmatch(slice_name):
        raise UserError(
            f"--slice {slice_name}: expected words of a-z and 0-9 joined by '-', not ending in -validation or -actions"
        )


def _check_same_slice(folder: Path, before: str | None, now: str | None) -> None:
    if before != now:
        names = [name or "history" for name in (before, now)]
        raise UserError(f"{folder}: imported before as {names[0]}, now as {names[1]}; delete the folder to change it")
