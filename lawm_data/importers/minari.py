"""Minari's layout: a folder with `data/main_data.hdf5`, one group `episode_<k>` an episode, and `data/metadata.json`.

`observations` has a row more than `actions`, `rewards`, `terminations` and `truncations`; it is one array or, where the
observation space is a Dict, a group of arrays (Farama-Foundation/Minari, minari/dataset/_storages/hdf5_storage.py).
A group without `actions` is a trajectory without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from lawm_data import files
from lawm_data.envs import LARGEST_BOUND
from lawm_data.episode import ACTION_TOLERANCE
from lawm_data.errors import UserError
from lawm_data.hdf5 import opened
from lawm_data.importers.recording import (
    Layout,
    Trajectory,
    attempt,
    check_lengths,
    check_names,
    check_state,
    column,
    dataset,
    digest_of,
    flags,
    flat_as,
    one_env,
    parts_of,
    present,
    rows,
    scaled,
    values,
    width,
)

MAIN = "main_data.hdf5"
METADATA = "metadata.json"
EPISODE = re.compile(r"episode_\d+")
ACTIONS = "actions"
FLAT = "observation"
_DM_CONTROL = re.compile(r"dm_control/(.+)-v\d+")  # how Shimmy calls the suite's tasks


class _Source(NamedTuple):
    """One dataset on disk; low and high, float64 [A], bound its actions."""

    main: Path
    metadata: dict[str, Any]
    low: np.ndarray
    high: np.ndarray


class Minari:
    """The episodes of all datasets, one dataset after the other."""

    action_key = ACTIONS

    def __init__(self, paths: list[Path]) -> None:
        self.notes: list[str] = []
        self.sources = [_source(path) for path in paths]
        self.count = 0
        for source in self.sources:
            with opened(source.main, str(source.main)) as file:
                names = _episodes_of(file, source)
                if not self.count:
                    first_episode = _episode(file, names[0], source)
                    self.layout, self.flat = _layout(*first_episode), _is_flat(first_episode[0])
            self.count += len(names)
        first = self.sources[0]
        for source in self.sources[1:]:
            if not (np.array_equal(source.low, first.low) and np.array_equal(source.high, first.high)):
                raise UserError(
                    f"{source.main}: its actions have other bounds than those of {first.main}, so one number would be "
                    "two actions; import them as two envs, each --env custom:NAME"
                )
        bounds = np.stack([first.low, first.high], 1).tolist()
        self.action_bounds: list[list[float]] | None = bounds
        if bounds != [[-1, 1]] * len(bounds):
            spans = [f"[{low:g}, {high:g}]" for low, high in bounds]
            told = spans[0] if len(set(spans)) == 1 else f"{', '.join(spans)}, column by column,"
            self.notes.append(f"actions scaled from {told} to [-1, 1]")
        self.action_size: int | None = len(first.low)
        self.digest = digest_of([source.main for source in self.sources])
        self.credits: str | None = "; ".join(_credit(source.metadata) for source in self.sources)
        self.env = one_env((source.main, _env(source.metadata)) for source in self.sources)

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        if self.flat and len(layout) > 1:
            self.notes.append(flat_as(layout))
        for source in self.sources:
            with opened(source.main, str(source.main)) as file:
                for name in _episodes_of(file, source):
                    yield attempt(self._read, file, name, layout, source)

    def _read(self, file: h5py.File, name: str, layout: Layout, source: _Source) -> Trajectory:
        episode, where = _episode(file, name, source)
        if layout == self.layout and not self.flat and not _is_flat(episode):
            check_names({part for part, _ in _layout(episode, where)}, layout, where)
        found = _trajectory(episode, layout, source, where)
        if _is_flat(episode) != self.flat:
            flat, named = "one array", "several by name"
            here, first = (named, flat) if self.flat else (flat, named)
            raise UserError(f"{where}: observes {here}, the first episode {first}; import them apart")
        return found


def _trajectory(episode: h5py.Group, layout: Layout, source: _Source, where: str) -> Trajectory:
    steps = present(episode, (ACTIONS, "rewards", "terminations", "truncations"), ACTIONS, where)
    check_lengths(steps, where)
    action = None
    if (found := steps.get(ACTIONS)) is not None:
        if width(found) != len(source.low):
            raise UserError(f"{where}: '{ACTIONS}' has size {width(found)}, {METADATA} says {len(source.low)}")
        action = scaled(rows(found), source.low, source.high)
        if (beyond := np.argwhere(np.abs(action) > 1 + ACTION_TOLERANCE)).size:
            t, dim = beyond[0]
            raise UserError(
                f"{where}: action row {t}, column {dim} is {rows(found)[t, dim]:.6g}, outside its bounds, "
                f"[{source.low[dim]:g}, {source.high[dim]:g}]; clip it, or mend action_space in {METADATA}"
            )
    ended = np.flatnonzero(flags(steps["terminations"], where))
    last = len(steps["rewards"]) - 1
    if len(ended) and ended[0] < last:
        raise UserError(f"{where}: terminations is true in row {ended[0]}, the last row is {last}; split it there")
    return Trajectory(
        where=where,
        observation=_observation(episode, layout, where),
        action=action,
        reward=column(steps["rewards"], where),
        terminal=bool(len(ended)),
    )


def _is_flat(episode: h5py.Group) -> bool:
    """Whether its observations are one array, without a name."""
    return not isinstance(episode.get("observations"), h5py.Group)


def _observation(episode: h5py.Group, layout: Layout, where: str) -> np.ndarray:
    found = episode.get("observations")
    if isinstance(found, h5py.Group):
        parts = parts_of(found, layout, where)
    else:
        parts = {FLAT: dataset(episode, "observations", where)}
        check_state(parts[FLAT], FLAT, where)
    check_lengths(parts, where)
    return np.concatenate([values(part) for part in parts.values()], axis=1)


def _layout(episode: h5py.Group, where: str) -> Layout:
    """Names and sizes as recorded; the parts of nested spaces are called `outer/inner`."""
    found = episode.get("observations")
    if not isinstance(found, h5py.Group):
        return ((FLAT, width(dataset(episode, "observations", where))),)
    layout = []
    found.visititems(lambda name, item: layout.append((name, width(item))) if isinstance(item, h5py.Dataset) else None)
    if not layout:
        raise UserError(f"{where}: 'observations' is empty; download the dataset again")
    return tuple(layout)


def _episode(file: h5py.File, name: str, source: _Source) -> tuple[h5py.Group, str]:
    """The group of an episode, and what errors call it."""
    found, where = file[name], f"{source.main}, {name}"
    if not isinstance(found, h5py.Group):
        raise UserError(f"{where}: an array, expected a group; download the dataset again")
    return found, where


def _episodes_of(file: h5py.File, source: _Source) -> list[str]:
    names = sorted((name for name in file if EPISODE.fullmatch(name)), key=lambda name: int(name.split("_")[1]))
    total = source.metadata.get("total_episodes")
    if not names or len(names) != total:
        raise UserError(f"{source.main}: {len(names)} episodes, {METADATA} says {total}; download the dataset again")
    return names


def _source(path: Path) -> _Source:
    if path.is_file() and path.name != MAIN:
        raise UserError(f"{path}: a file; give the folder of the dataset, which holds {METADATA}")
    folder = path.parent if path.name == MAIN else path / "data" if (path / "data").is_dir() else path
    metadata = files.read_json(folder / METADATA)
    where = folder / METADATA
    try:
        kind = metadata["data_format"]
        space = json.loads(metadata["action_space"])
        continuous = space["type"] == "Box"
        low, high = (
            (np.ravel(np.asarray(space[key], np.float64)) for key in ("low", "high")) if continuous else ((), ())
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not the metadata of a Minari dataset ({error}); download it again") from error
    if kind != "hdf5":
        raise UserError(f"{where}: data_format is {kind!r}, expected 'hdf5'; save the dataset again in that format")
    if not continuous:
        raise UserError(f"{where}: the action space is {space['type']}, expected Box: only continuous actions are read")
    if len(low) != len(high):
        raise UserError(f"{where}: {len(low)} lower and {len(high)} upper bounds of the actions; download it again")
    if not (np.less(low, high).all() and (np.abs([low, high]) <= LARGEST_BOUND).all()):
        raise UserError(f"{where}: the action space has no bounds to scale to [-1, 1]; choose another dataset")
    return _Source(folder / MAIN, metadata, np.asarray(low), np.asarray(high))


def _credit(metadata: dict[str, Any]) -> str:
    authors = metadata.get("author") or []
    named = ", ".join(map(str, authors if isinstance(authors, list) else [authors]))
    return f"Minari dataset {metadata.get('dataset_id', 'without a name')}{' by ' if named else ''}{named}"


def _env(metadata: dict[str, Any]) -> str | None:
    """The suite's task, if the metadata names one."""
    found = _DM_CONTROL.search(str(metadata.get("env_spec")))
    return found[1] if found else None
