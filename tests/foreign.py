"""Small files in the layouts of other projects: what Minari, LAOM and LeRobot write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lawm_data import files
from lawm_data.episode import Episode

Group = dict[str, Any]  # of arrays, or of groups


def box(low: float | list[float], high: float | list[float], size: int = 1) -> dict[str, Any]:
    low, high = (np.broadcast_to(bound, size).tolist() for bound in (low, high))
    return {"type": "Box", "dtype": "float32", "shape": [size], "low": low, "high": high}


def minari_episode(episode: Episode) -> Group:
    """Observations as a Dict space with a nested one, named against the alphabet of nothing in particular."""
    last = np.arange(episode.length) == episode.length - 1
    return {
        "observations": {"up": episode.observation[:, :1], "inner": {"down": episode.observation[:, 1:]}},
        "actions": episode.action,
        "rewards": episode.reward.astype(np.float64),
        "terminations": last & episode.terminal,
        "truncations": last & (not episode.terminal),
    }


def write_minari(folder: Path, episodes: list[Group], **metadata: Any) -> Path:
    """`folder`/data with main_data.hdf5 and metadata.json, the episodes stored in the reverse order."""
    groups = {f"episode_{k}": episode for k, episode in enumerate(episodes)}
    write_groups(folder / "data" / "main_data.hdf5", dict(reversed(groups.items())))
    space = metadata.pop("action_space", box(-1, 1))
    described = {"data_format": "hdf5", "total_episodes": len(episodes), "dataset_id": "count/up-v0"}
    files.write_json(folder / "data" / "metadata.json", described | {"action_space": json.dumps(space)} | metadata)
    return folder


def laom_group(episode: Episode, rewards: bool = True) -> Group:
    """A row for each action, with the state in which it was taken; the parts of the state in alphabetical order."""
    group = {
        "obs": np.zeros((episode.length, 2, 2, 3), np.uint8),
        "states": episode.observation[:-1],
        "actions": episode.action,
    }
    return group | ({"rewards": episode.reward} if rewards else {})


def write_laom(path: Path, groups: list[Group], task: str = "count-up") -> Path:
    domain, name = task.split("-")
    return write_groups(path, {str(k): group for k, group in enumerate(groups)}, domain_name=domain, task_name=name)


def lerobot_columns(episode: Episode) -> Group:
    """A row for each action, with the state in which it was taken."""
    count = np.arange(episode.length)
    columns = {
        "observation.state": episode.observation[:-1],
        "action": episode.action,
        "next.reward": episode.reward,
        "next.done": count == episode.length - 1,
        "frame_index": count,
        "episode_index": np.full(episode.length, episode.order),
    }
    return {name: column for name, column in columns.items() if column is not None}


def write_lerobot(folder: Path, episodes: list[Group], version: str = "v3.0", **info: Any) -> Path:
    """v3.0: one table cut into files and row groups of 17 and 7 rows wherever they end; v2.1: an episode a file."""
    tables = [pa.table({name: _lerobot_column(rows, version) for name, rows in one.items()}) for one in episodes]
    if version.startswith("v3"):
        joined = pa.concat_tables(tables)
        tables = [joined.slice(start, 17) for start in range(0, len(joined), 17)]
    (folder / "data" / "chunk-000").mkdir(parents=True, exist_ok=True)
    for k, table in enumerate(tables):
        pq.write_table(table, folder / "data" / "chunk-000" / f"file-{k:03d}.parquet", row_group_size=7)
    features = {
        name: {"dtype": str(rows.dtype), "shape": list(rows.shape[1:]) or [1]} for name, rows in episodes[0].items()
    }
    counts = {"total_episodes": len(episodes), "total_frames": sum(len(one["next.reward"]) for one in episodes)}
    (folder / "meta").mkdir(exist_ok=True)
    features |= info.pop("features", {})
    described = {"codebase_version": version, **counts, "features": features} | info
    (folder / "meta" / "info.json").write_text(json.dumps(described))
    return folder


def _lerobot_column(rows: np.ndarray, version: str) -> pa.Array:
    """Arrays of one number a row are scalars."""
    flat = pa.array(rows.reshape(-1))
    if rows.size == len(rows):
        return flat
    if version.startswith("v3"):
        return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    return pa.ListArray.from_arrays(np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32), flat)


def write_groups(path: Path, groups: Group, **attributes: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", track_order=True) as file:
        _fill(file, groups)
        file.attrs.update(attributes)
    return path


def _fill(group: h5py.Group, content: Group) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _fill(group.create_group(key), value)
        else:
            group[key] = value
