"""The raw store: every recorded episode, in HDF5 under `raw/<env>/<source>/<seed>/<first order:06d>.h5`.

A file is a chunk: consecutive episodes with their arrays end to end, so that reading streams. Per chunk of E episodes
and S steps in all: observation float32 [S+E, O], action float32 [S of those with actions, A], reward float32 [S], and
per episode the INDEX, whose crc32 is that of its arrays. `meta.json` beside the seeds says what they are.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lawm_data import files
from lawm_data.episode import Episode, episode_id
from lawm_data.errors import UserError
from lawm_data.hdf5 import opened
from lawm_data.parsing import parse

SCHEMA_VERSION = 1
CHUNK_BYTES = 64_000_000
META = "meta.json"
INDEX = ("length", "order", "terminal", "has_action", "episode_return", "crc32")


@dataclass(frozen=True)
class _Meta:
    """The content of meta.json. Of imports alone: only, skip_bad (the options), episodes (how many), action_bounds (low
    and high of each column, which became -1 and 1).
    """

    schema_version: int
    env: str
    layout: list[tuple[str, int]]
    action_size: int
    repeat: int | None
    collected: str
    credits: str | None
    slice: str | None
    only: str = ":"
    skip_bad: bool = False
    episodes: int | None = None
    action_bounds: list[tuple[float, float]] | None = None


@dataclass(frozen=True)
class Row:
    """What the index knows of an episode without reading its arrays."""

    env: str
    source: str
    seed: int
    order: int
    length: int
    episode_return: float
    terminal: bool
    has_action: bool
    slice_name: str | None
    path: Path = field(default=Path(), repr=False)  # its chunk
    start: tuple[int, int, int] = field(default=(0, 0, 0), repr=False)  # first row of observation, action, reward there
    crc32: int = field(default=0, repr=False)

    @property
    def episode_id(self) -> str:
        return episode_id(self.env, self.source, self.seed, self.order)


class Store:
    """The episodes under a `raw` folder. Reading holds at most one chunk (64 MB) in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def envs(self) -> list[str]:
        return [env for env in _folders(self.root) if self.sources(env)]

    def only_env(self, env: str | None) -> str:
        """`env`, or the only one there is; UserError when there is none of that name, or several to choose from."""
        envs = self.envs()
        if not envs:
            steps = (files.typed(f"lawm-data {step}", self.root.parent) for step in ("collect", "import"))
            raise UserError(f"{self.root}: no episodes there; run `{'` or `'.join(steps)}` first")
        if env is None and len(envs) > 1:
            raise UserError(f"{self.root}: several environments; choose one with --env: {', '.join(envs)}")
        if env is not None and env not in envs:
            raise UserError(f"{self.root}: no episodes of {env}; there is {', '.join(envs)}")
        return env or envs[0]

    def sources(self, env: str) -> list[str]:
        return _folders(self.root / env)

    def meta(self, env: str, source: str) -> dict[str, Any]:
        """What `create` was given. Raise UserError when it is missing, damaged or of a newer version of lawm."""
        path = self.root / env / source / META
        meta = files.read_json(path)
        version = meta.get("schema_version") if isinstance(meta, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{path}: schema version {version}, this lawm reads {SCHEMA_VERSION}; update lawm")
        parse(_Meta, meta, str(path), f"delete {path.parent} and make it again")
        return meta

    def rows(self, env: str, source: str | None = None, seed: int | None = None) -> list[Row]:
        """The index of an env, or of one source of it, or of one seed of that, sorted by (source, seed, order).

        Raise UserError when a chunk is corrupt or missing, also the last one of what was committed.
        """
        return [row for one in self.sources(env) if source in (None, one) for row in self._source_rows(env, one, seed)]

    def read(self, rows: Iterable[Row]) -> Iterator[Episode]:
        """Yield the episodes in the order of `rows`; a chunk is opened once for the consecutive rows of it."""
        for path, group in groupby(rows, key=attrgetter("path")):
            yield from _read_chunk(path, list(group))

    def create(self, env: str, source: str, meta: dict[str, Any], episodes: Iterable[Episode] = ()) -> int:
        """Write a new source with its episodes, whole or not at all; return their number.

        `episodes` are valid, in order, one seed after the other. `meta`: layout [[name, size], ...], action_size,
        repeat, collected (how, in words), credits (or None), slice (that they form whole, or None).
        """
        self._check_same_shape(env, meta)
        with files.new_folder(self.root / env / source) as folder:
            count = 0
            for chunk in _chunks_of(episodes):
                _write_chunk(folder, chunk)
                count += len(chunk)
            total = {"episodes": count} if count else {}
            files.write_json(folder / META, {"schema_version": SCHEMA_VERSION, "env": env, **meta, **total})
        return count

    def describe(self, env: str, source: str, meta: dict[str, Any]) -> None:
        """Put `meta`, as of `create`, in the place of that of a source without episodes."""
        self._check_same_shape(env, meta, but=source)
        files.write_json(self.root / env / source / META, {"schema_version": SCHEMA_VERSION, "env": env, **meta})

    def append(self, env: str, source: str, seed: int, episodes: list[Episode]) -> None:
        """Add valid consecutive episodes of one seed as one file."""
        assert all(episode.seed == seed for episode in episodes), seed
        _write_chunk(self.root / env / source, episodes)

    def commit(self, env: str, source: str, seed: int, next_order: int) -> None:
        """Make the episodes below `next_order` final: `resume` continues after them."""
        files.write_json(self._checkpoint(env, source, seed), {"next_order": next_order})

    def resume(self, env: str, source: str, seed: int) -> int:
        """The next order of a collector's seed, after what was appended but not committed is discarded."""
        checkpoint = self._checkpoint(env, source, seed)
        files.sweep(checkpoint.parent)
        order, chunks = _committed(checkpoint), _numbered(checkpoint.parent, ".h5")
        if not checkpoint.exists() and chunks:
            raise _broken(checkpoint, order, f"{len(chunks)} files are there")
        self.commit(env, source, seed, order)  # before the first file: none is there without a checkpoint
        for path in _beyond(checkpoint, order, chunks):
            path.unlink()
        if (stored := len(self.rows(env, source, seed))) != order:
            raise _broken(checkpoint, order, f"{stored} are there")
        return order

    def _checkpoint(self, env: str, source: str, seed: int) -> Path:
        return self.root / env / source / str(seed) / "checkpoint.json"

    def _check_same_shape(self, env: str, meta: dict[str, Any], but: str | None = None) -> None:
        for source in (one for one in self.sources(env) if one != but):
            other = self.meta(env, source)
            for key in ("layout", "action_size", "repeat", "action_bounds"):
                known = key != "action_bounds" or (other.get(key) and meta.get(key))
                if known and other[key] != meta[key]:
                    raise UserError(
                        f"{self.root / env / source}: {key} {other[key]}, the new episodes have {meta[key]}; "
                        "one env has one: use another --env custom:NAME or another --root"
                    )

    def _source_rows(self, env: str, source: str, only: int | None) -> Iterator[Row]:
        meta = self.meta(env, source)
        count = 0
        for seed, folder in _numbered(self.root / env / source):
            if only not in (None, seed):
                continue
            order, checkpoint = 0, self._checkpoint(env, source, seed)
            committed = _committed(checkpoint)  # before the files are listed: a collector may be adding some
            chunks, collects = _numbered(folder, ".h5"), checkpoint.exists()
            left = _beyond(checkpoint, committed, chunks) if collects else []
            for first, path in chunks[: len(chunks) - len(left)]:
                if first != order:
                    raise UserError(f"{folder / f'{order:06d}.h5'}: missing, though {path.name} follows; restore it")
                for row in _chunk_rows(path, env, source, seed, meta["slice"]):
                    yield row
                    order += 1
            if collects and order != committed:
                raise _broken(checkpoint, committed, f"{order} are there")
            count += order
        if only is None and count != meta.get("episodes", count):
            raise UserError(
                f"{self.root / env / source}: {count} episodes, {META} says {meta['episodes']}; "
                "files are missing: delete the folder and import again"
            )


def _committed(checkpoint: Path) -> int:
    """How many episodes of a collector's seed are final."""
    saved = files.read_json(checkpoint) if checkpoint.exists() else {"next_order": 0}
    if not isinstance(saved, dict) or not isinstance(saved.get("next_order"), int):
        raise UserError(f"{checkpoint}: no checkpoint, 'next_order' is missing; delete {checkpoint.parent}")
    return saved["next_order"]


def _beyond(checkpoint: Path, committed: int, chunks: list[tuple[int, Path]]) -> list[Path]:
    """The files that were added but not committed. A kill leaves one at most: UserError where there are more."""
    beyond = [path for first, path in chunks if first >= committed]
    if len(beyond) > 1:
        raise _broken(checkpoint, committed, f"{len(beyond)} files follow, from {beyond[0].name} on")
    return beyond


def _broken(checkpoint: Path, committed: int, but: str) -> UserError:
    says = f"says {committed} episodes" if checkpoint.exists() else "missing"
    cure = f"restore what is missing, or delete {checkpoint.parent} to collect again"
    return UserError(f"{checkpoint}: {says}, but {but}; {cure}")


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    return sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _numbered(folder: Path, suffix: str = "") -> list[tuple[int, Path]]:
    """The children named by an integer and `suffix`, in the order of the integers."""
    if not folder.is_dir():
        return []
    pattern = re.compile(rf"-?\d+{re.escape(suffix)}")
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    return sorted((int(path.name.removesuffix(suffix)), path) for path in found)


def _chunks_of(episodes: Iterable[Episode]) -> Iterator[list[Episode]]:
    """Consecutive episodes of one seed, up to CHUNK_BYTES together."""
    chunk: list[Episode] = []
    size = 0
    for episode in episodes:
        own = sum(array.nbytes for array in _arrays(episode))
        if chunk and (size + own > CHUNK_BYTES or episode.seed != chunk[0].seed):
            yield chunk
            chunk, size = [], 0
        chunk.append(episode)
        size += own
    if chunk:
        yield chunk


def _arrays(episode: Episode) -> list[np.ndarray]:
    arrays = [episode.observation, episode.reward]
    return arrays if episode.action is None else [*arrays, episode.action]


def _crc32(arrays: list[np.ndarray]) -> int:
    """Over bytes and types: a damaged type description would read the same bytes as other numbers."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, zlib.crc32(array.dtype.str.encode(), crc))
    return crc


def _write_chunk(source_folder: Path, episodes: list[Episode]) -> None:
    actions = [episode.action for episode in episodes if episode.action is not None]
    columns = {
        "observation": np.concatenate([episode.observation for episode in episodes]),
        "action": np.concatenate(actions) if actions else np.zeros((0, 0), np.float32),
        "reward": np.concatenate([episode.reward for episode in episodes]),
        "length": np.array([episode.length for episode in episodes], np.int64),
        "order": np.array([episode.order for episode in episodes], np.int64),
        "terminal": np.array([episode.terminal for episode in episodes], bool),
        "has_action": np.array([episode.action is not None for episode in episodes], bool),
        "episode_return": np.array([episode.episode_return for episode in episodes], np.float64),
        "crc32": np.array([_crc32(_arrays(episode)) for episode in episodes], np.uint32),
    }
    path = source_folder / str(episodes[0].seed) / f"{episodes[0].order:06d}.h5"
    image = io.BytesIO()  # in memory: where the disk is full h5py cannot even close its file
    with h5py.File(image, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column)
        file.attrs["index_crc32"] = _crc32([columns[name] for name in INDEX])
    files.write_bytes(path, image.getvalue())


def _chunk_rows(path: Path, env: str, source: str, seed: int, slice_name: str | None) -> Iterator[Row]:
    with opened(path, str(path)) as file:
        index = [file[name][:] for name in INDEX]
        intact = file.attrs["index_crc32"] == _crc32(index)
    length, order, terminal, has_action, episode_return, crc32 = index
    if not intact or not np.array_equal(order, int(path.stem) + np.arange(len(order))):
        raise UserError(
            f"{path}: corrupt, its index does not match its checksum or name; make or import this source again"
        )
    spans = np.stack([length + 1, length * has_action, length], axis=1)
    starts = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(spans, axis=0)])
    for k in range(len(order)):
        yield Row(
            env=env,
            source=source,
            seed=seed,
            order=int(order[k]),
            length=int(length[k]),
            episode_return=float(episode_return[k]),
            terminal=bool(terminal[k]),
            has_action=bool(has_action[k]),
            slice_name=slice_name,
            path=path,
            start=(int(starts[k, 0]), int(starts[k, 1]), int(starts[k, 2])),
            crc32=int(crc32[k]),
        )


def _read_chunk(path: Path, rows: list[Row]) -> Iterator[Episode]:
    """The episodes of one chunk, each read on its own: a slice may want few of a long history."""
    with opened(path, str(path)) as file:
        columns = [file[name] for name in ("observation", "action", "reward")]
        for row in rows:
            sizes = row.length + 1, row.length * row.has_action, row.length
            spans = zip(columns, row.start, sizes, strict=True)
            observation, action, reward = (column[first : first + size] for column, first, size in spans)
            episode = Episode(
                observation=observation,
                action=action if row.has_action else None,
                reward=reward,
                terminal=row.terminal,
                env=row.env,
                source=row.source,
                seed=row.seed,
                order=row.order,
            )
            if _crc32(_arrays(episode)) != row.crc32:
                raise UserError(f"{path}: corrupt, the checksum of {row.episode_id} differs; make this source again")
            yield episode
