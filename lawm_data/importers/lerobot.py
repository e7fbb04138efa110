"""LeRobot's layout, versions 2 and 3: a folder with `meta/info.json` and, under `data/`, parquet files, a row a frame.

Row t of an episode holds o_t in the columns `observation.*`, the `action` a_t taken there and its reward r_t, in
`next.reward` (huggingface/lerobot, src/lerobot/datasets). The state after the last action is not in the files, so the
last step is dropped, and with it `next.done`, which is true there whatever ended the episode. Images and videos are not
read. A dataset without `action` holds trajectories without. As no bounds of the actions are recorded, the least and the
greatest of all make -1 and 1, column by column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lawm_data import files
from lawm_data.envs import LARGEST_BOUND
from lawm_data.errors import UserError, reason
from lawm_data.importers.recording import Layout, Trajectory, attempt, digest_of, flat_as, scaled, single

INFO = Path("meta", "info.json")
ACTION, REWARD, OBSERVED = "action", "next.reward", "observation"
EPISODE, FRAME = "episode_index", "frame_index"
CURE = "download it again"
_NUMBERS = re.compile(r"(float|int|uint)\d+|bool")

Frames = dict[str, np.ndarray]  # of consecutive rows, by column: [rows, size]


class _Source(NamedTuple):
    """One dataset on disk. said: how many episodes and frames its metadata promises; sizes: numbers a row, by column;
    observed: columns by the names of the layout.
    """

    folder: Path
    paths: list[Path]
    said: tuple[Any, Any]
    sizes: dict[str, int]
    observed: dict[str, str]

    @property
    def layout(self) -> Layout:
        return tuple((name, self.sizes[column]) for name, column in self.observed.items())


class LeRobot:
    """The episodes of all datasets, one dataset after the other."""

    env: str | None = None
    credits: str | None = None
    action_key = ACTION

    def __init__(self, paths: list[Path]) -> None:
        self.notes: list[str] = []
        self.sources, self.count = [self._source(path) for path in paths], 0
        first = self.sources[0]
        self.layout = first.layout
        self.action_size: int | None = None
        for source in self.sources:
            if sorted(source.layout) != sorted(self.layout):
                raise UserError(f"{source.folder}: observes other numbers than {first.folder}; import them apart")
            size = source.sizes.get(ACTION)
            if None not in (size, self.action_size) and size != self.action_size:
                raise UserError(
                    f"{source.folder}: '{ACTION}' has size {size}, in a dataset before {self.action_size}; import them "
                    "apart"
                )
            self.action_size = self.action_size or size
        self.action_bounds = self._bounds([span for source in self.sources for span in self._survey(source)])
        self.digest = digest_of([path for source in self.sources for path in source.paths])

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        flat = len(self.layout) == 1 < len(layout)
        if flat:
            self.notes.append(flat_as(layout))
        for source in self.sources:
            names = [name for name, _ in (self.layout if flat else layout)]
            if missing := [name for name in names if name not in source.observed]:
                there = ", ".join(source.observed)
                raise UserError(f"{source.folder}: no '{OBSERVED}.{missing[0]}', found {there}; check --env")
            columns = [source.observed[name] for name in names]
            for frames in _episodes(source, [FRAME, REWARD, *columns]):
                where = f"{source.folder}, episode {frames[EPISODE][0, 0]}"
                yield attempt(self._trajectory, frames, columns, where)

    def _trajectory(self, frames: Frames, columns: Sequence[str], where: str) -> Trajectory:
        numbers = frames[FRAME][:, 0]
        if (numbers != np.arange(len(numbers))).any():
            raise UserError(f"{where}: {FRAME} does not count from 0 up, frames are missing or out of order; {CURE}")
        if len(numbers) < 2:
            raise UserError(f"{where}: a single frame, in which there is no step; remove it")
        action = frames.get(ACTION)
        if action is not None and self.action_bounds:
            action = scaled(action, *np.array(self.action_bounds).T)
        return Trajectory(
            where=where,
            observation=np.concatenate([frames[column] for column in columns], 1),
            action=None if action is None else single(action[:-1]),
            reward=single(frames[REWARD][:-1, 0]),
            terminal=False,
        )

    def _source(self, path: Path) -> _Source:
        if path.is_file():
            raise UserError(f"{path}: a file; give the folder of the dataset, which holds {INFO}")
        info, where = files.read_json(path / INFO), path / INFO
        try:
            version, tasks = str(info["codebase_version"]), int(info.get("total_tasks", 1))
            features = {str(name): (str(one["dtype"]), list(one["shape"])) for name, one in info["features"].items()}
            said = info["total_episodes"], info["total_frames"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not the metadata of a LeRobot dataset ({error!r}); {CURE}") from error
        if not version.startswith(("v2.", "v3.")):
            raise UserError(f"{where}: codebase_version is {version:.20}, expected v2 or v3; convert it with LeRobot")
        numbers = {name: shape[0] for name, (kind, shape) in features.items() if _is_state(kind, shape)}
        names = [name for name in features if name == OBSERVED or name.startswith(f"{OBSERVED}.")]
        observed = {name.removeprefix(f"{OBSERVED}."): name for name in names if name in numbers}
        left = ", ".join(f"{name} ({features[name][0]})" for name in names if name not in numbers)
        if not observed:
            raise UserError(f"{where}: no state is observed, found {left or 'nothing'}; only numbers can be imported")
        if not {EPISODE, FRAME} <= numbers.keys():
            raise UserError(f"{where}: no '{EPISODE}' or no '{FRAME}' among its features; {CURE}")
        if numbers.get(REWARD) != 1:
            raise UserError(
                f"{where}: no '{REWARD}', which every method learns from; add to each frame the reward of its action, "
                "such as 1 where the task is done and else 0"
            )
        if left:
            self.notes.append(f"{path.name}: left out, as no numbers of a state: {left}")
        if tasks > 1:
            self.notes.append(f"{path.name}: {tasks} tasks, which are not told apart")
        paths = sorted((path / "data").rglob("*.parquet"))
        if not paths:
            raise UserError(f"{path / 'data'}: no parquet files there; {CURE}")
        return _Source(path, paths, said, numbers, observed)

    def _survey(self, source: _Source) -> list[np.ndarray]:
        """The least and the greatest of the known actions of each episode, [2, A]; NaN where none is."""
        count = frames = 0
        lost = rewards = 0.0
        spans: list[np.ndarray] = []
        for episode in _episodes(source, [REWARD]):
            reward = np.abs(episode[REWARD][:, 0])
            count, frames = count + 1, frames + len(reward)
            lost, rewards = lost + float(reward[-1]), rewards + float(reward.sum())
            if (action := episode.get(ACTION)) is not None:
                known = np.where(np.isfinite(action), action, np.nan)
                spans.append(np.stack([np.fmin.reduce(known), np.fmax.reduce(known)]))
        if (count, frames) != source.said:
            promised = " and ".join(map(str, source.said))
            raise UserError(f"{source.folder}: {count} episodes and {frames} frames, {INFO} says {promised}; {CURE}")
        part = f", and {lost / rewards:.0%} of all rewards with it" if lost and np.isfinite(rewards) else ""
        self.notes.append(
            f"{source.folder.name}: the last step of each of {count} episodes is left out, its end is unknown{part}"
        )
        self.count += count
        return spans

    def _bounds(self, spans: list[np.ndarray]) -> list[list[float]] | None:
        """Of each column; None where no action is known."""
        if not spans:
            return None
        low, high = np.fmin.reduce([span[0] for span in spans]), np.fmax.reduce([span[1] for span in spans])
        if not np.isfinite([low, high]).all():
            return None
        if np.abs([low, high]).max() > LARGEST_BOUND:
            raise UserError(f"{self.sources[0].folder}: '{ACTION}' has numbers beyond {LARGEST_BOUND:g}; repair them")
        told = ", ".join(f"[{least:g}, {most:g}]" for least, most in zip(low, high, strict=True))
        self.notes.append(f"actions scaled to [-1, 1] from the least and greatest of each column: {told}")
        return np.stack([low, high], 1).tolist()


def _is_state(kind: str, shape: list[Any]) -> bool:
    return bool(_NUMBERS.fullmatch(kind)) and len(shape) == 1 and isinstance(shape[0], int)


def _episodes(source: _Source, columns: list[str]) -> Iterator[Frames]:
    """The rows of each episode, wherever files and row groups end, with their actions where there are any."""
    known = [name for name in (EPISODE, *columns, ACTION) if name in source.sizes]
    parts: list[Frames] = []
    for block in _blocks(source, known):
        index = block[EPISODE][:, 0]
        cuts = np.flatnonzero(np.diff(index)) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(index)], strict=True):
            if parts and parts[0][EPISODE][0, 0] != index[start]:
                yield _joined(parts)
                parts = []
            parts.append({name: rows[start:stop] for name, rows in block.items()})
    if parts:
        yield _joined(parts)


def _joined(parts: list[Frames]) -> Frames:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(source: _Source, columns: list[str]) -> Iterator[Frames]:
    """Row groups in their order."""
    for path in source.paths:
        try:
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    group = file.read_row_group(number, columns=columns)
                    if len(group):
                        yield {name: _numbers(group, name, source.sizes[name], path) for name in columns}
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not readable as a parquet file ({reason(error)}); {CURE}") from error


def _numbers(group: pa.Table, name: str, size: int, path: Path) -> np.ndarray:
    """[rows, size]"""
    if name not in group.column_names:
        raise UserError(f"{path}: no column '{name}', which {INFO} names; {CURE}")
    column = group[name].combine_chunks()
    flat, widths = column, np.ones(len(column))
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        flat, widths = column.flatten(), pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if column.null_count or flat.null_count:
        raise UserError(f"{path}: '{name}' has rows without a number (null); write NaN for actions that are unknown")
    found = flat.to_numpy(zero_copy_only=False)
    if (widths != size).any() or found.dtype.kind not in "fiub":
        raise UserError(f"{path}: '{name}' is of type {column.type}, expected {size} numbers a row; {CURE}")
    return found.reshape(-1, size)
