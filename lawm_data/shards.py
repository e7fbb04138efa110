"""Episodes <-> Arrow shards, and the check of a whole dataset folder.

One row per trajectory, flat list columns, Arrow IPC file format (the stream format loses a cut-off tail silently).
A stripped action is null and built with no child values: a masked array would keep the hidden bytes in the file.

Shapes: T steps, O observation size, A action size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lawm_data import arrow, files, table4
from lawm_data.draw import labels_of
from lawm_data.episode import Episode
from lawm_data.errors import Missing, UserError
from lawm_data.manifest import NAME, FileEntry, Manifest
from lawm_data.summary import Summary

BATCH_ROWS = 16
FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("source", pa.string()),
        ("seed", pa.int64()),
        ("order", pa.int64()),
        ("length", pa.int32()),
        ("episode_return", pa.float64()),
        ("labeled", pa.bool_()),
        ("terminal", pa.bool_()),
        ("observation", FLOATS),
        ("action", FLOATS),
        ("reward", FLOATS),
    ]
)
WITHHELD_SCHEMA = pa.schema([("episode_id", pa.string()), ("length", pa.int32()), ("action", FLOATS)])
_CURE = arrow.CURE
_POINTER = b"version https://git-lfs.github.com/spec/"


def withheld_of(name: str) -> str:
    """The file with the stripped actions of an unlabeled shard, row by row: `<slice>-actions/withheld-...`."""
    return name.replace("/unlabeled-", "-actions/withheld-")


def write(
    folder: Path, name: str, episodes: Iterable[Episode], labeled: bool, withheld: str | None = None
) -> dict[str, FileEntry]:
    """Write the shard `folder`/`name`; without `labeled` its actions are stripped, into file `withheld` if given."""
    kinds: dict[str, tuple[pa.Schema, Callable[[list[Episode]], pa.RecordBatch]]] = {
        name: (SCHEMA, lambda batch: _rows(batch, labeled))
    }
    if withheld is not None:
        kinds[withheld] = (WITHHELD_SCHEMA, _withheld_rows)
    rows, remaining = 0, iter(episodes)
    with ExitStack() as stack:
        sinks = [(stack.enter_context(_writer(folder / path, schema)), make) for path, (schema, make) in kinds.items()]
        while batch := list(islice(remaining, BATCH_ROWS)):
            for writer, make in sinks:
                writer.write_batch(make(batch))
            rows += len(batch)
    return {path: entry_of(folder / path, rows) for path in kinds}


def entry_of(path: Path, rows: int = 0) -> FileEntry:
    """Digest, size and rows of a file that is written."""
    return FileEntry(files.sha256(path), path.stat().st_size, rows)


def check_file(path: Path, entry: FileEntry) -> None:
    """Missing, or UserError when the file is not, byte for byte, the one that the manifest names."""
    if not path.is_file():
        raise Missing(f"{path}: missing, though {NAME} names it; {_CURE}")
    size = path.stat().st_size
    if size != entry.bytes:
        if _is_pointer(path):
            raise UserError(f"{path}: a pointer of Git LFS, not the content; run `git lfs pull` where it was cloned")
        raise UserError(f"{path}: {size} bytes, {NAME} says {entry.bytes}; {_CURE}")
    if files.sha256(path) != entry.sha256:
        raise UserError(f"{path}: its sha256 differs from the one in {NAME}: damaged or changed; {_CURE}")


def _is_pointer(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def read(path: Path, name: str, manifest: Manifest, withheld: Path | None = None) -> Iterator[Episode]:
    """The episodes of shard `name`, which lies at `path`; `withheld`, a path, gives the stripped actions back.

    Memory: the file is mapped and the arrays are read-only views of it. UserError names `path`.
    """
    batches = _batches(path, SCHEMA, manifest.files[name].rows)
    if withheld is None:
        for batch in batches:
            if withheld_of(name) != name and batch.column("action").null_count < len(batch):
                raise UserError(f"{path}: holds actions, though it is unlabeled; {_CURE}")
            yield from episodes_of(batch, manifest, str(path))
        return
    actions = _batches(withheld, WITHHELD_SCHEMA, manifest.files[name].rows)
    for batch, hidden in zip(batches, actions, strict=True):
        if not batch.select(["episode_id", "length"]).equals(hidden.select(["episode_id", "length"])):
            raise UserError(f"{withheld}: its rows are not those of {path}; {_CURE}")
        given = _lists(hidden, "action", _lengths(hidden, str(withheld)) * manifest.action_size, str(withheld))
        for episode, action in zip(episodes_of(batch, manifest, str(path)), given, strict=True):
            yield replace(episode, action=None if action is None else action.reshape(-1, manifest.action_size))


def returns(folder: Path, name: str, manifest: Manifest) -> list[float]:
    """The return of each row of a shard, its arrays unread."""
    batches = _batches(folder / name, SCHEMA, manifest.files[name].rows)
    return [value for batch in batches for value in _whole(batch, "episode_return", str(folder / name))]


def summary(folder: Path, names: Sequence[str], manifest: Manifest) -> Summary:
    """Of all observations in these shards, one episode in memory at a time."""
    episodes = (episode for name in names for episode in read(folder / name, name, manifest))
    return Summary.of(episodes, manifest.observation_size)


def episodes_of(batch: pa.RecordBatch, manifest: Manifest, where: str) -> Iterator[Episode]:
    """Rows in the schema of the shards as episodes, whose arrays are views of the Arrow buffers.

    Every list's size is compared with the row's length and the manifest's sizes before any reshape; UserError names
    `where` and the episode.
    """
    length = _lengths(batch, where)
    observation = _lists(batch, "observation", (length + 1) * manifest.observation_size, where, nullable=False)
    action = _lists(batch, "action", length * manifest.action_size, where)
    reward = _lists(batch, "reward", length, where, nullable=False)
    terminals, sources, seeds, orders = (_whole(batch, name, where) for name in ("terminal", "source", "seed", "order"))
    columns = observation, action, reward, terminals, sources, seeds, orders
    for o, a, r, terminal, source, seed, order in zip(*columns, strict=True):
        yield Episode(
            observation=o.reshape(-1, manifest.observation_size),
            action=None if a is None else a.reshape(-1, manifest.action_size),
            reward=r,
            terminal=terminal,
            env=manifest.env,
            source=source,
            seed=seed,
            order=order,
        )


def verify(folder: Path) -> str:
    """Check every digest and every row, that nothing is missing and nothing extra; return a summary of one line.

    Withheld actions may be absent: they are published only on demand. UserError names the first file that is wrong.
    """
    manifest = Manifest.load(folder)
    check_extra(folder, manifest)
    absent = {path for path in manifest.withheld if not (folder / path).exists()}
    for path, entry in manifest.files.items():
        if path not in absent:
            check_file(folder / path, entry)
    labeled = total = 0
    for name in manifest.slices:
        counts = _check_slice(folder, manifest, name, absent)
        labeled += counts["labeled"]
        total += counts["episodes"]
    without = f" (without {len(absent)} of withheld actions)" if absent else ""
    return (
        f"{len(manifest.slices)} slices, {total} trajectories, {labeled} of them labeled, "
        f"{len(manifest.files) - len(absent)} files{without}"
    )


def check_extra(folder: Path, manifest: Manifest) -> None:
    """UserError for a file that the manifest does not name. Hidden ones are let be: the Hub and git keep their own."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in manifest.files and name != NAME and not f"/{name}".count("/."):
            raise UserError(f"{path}: not named in {NAME}, left over from another split or put there; delete it")


def _check_slice(folder: Path, manifest: Manifest, name: str, absent: set[str]) -> dict[str, int]:
    """Check the rows of one slice, and what the manifest says of them; return its counts of episodes and labels."""
    entry, where = manifest.slices[name], f"{folder / NAME}: slice {name}"
    seen: set[str] = set()
    returns: dict[str, list[float]] = {"labeled": [], "unlabeled": [], "validation": []}
    steps = Counter[str]()
    for split, values in returns.items():
        for path in entry.splits.get(split, []):
            for episode in _check_shard(folder, path, manifest, split, absent):
                if episode.episode_id in seen:
                    raise UserError(f"{folder / path}: {episode.episode_id} is in slice {name} twice; {_CURE}")
                seen.add(episode.episode_id)
                values.append(episode.episode_return)
                steps[split] += episode.length
    labeled, every = returns["labeled"], [*returns["labeled"], *returns["unlabeled"]]
    counts = {"episodes": len(every), "labeled": len(labeled), "steps": steps["labeled"] + steps["unlabeled"]}
    _check_told(entry.statistics, counts | table4.statistics(every), where)
    _check_told(entry.labeled_statistics, table4.statistics(labeled), f"{where}, labeled")
    fraction = manifest.label_fraction
    if fraction is not None and len(labeled) != labels_of(fraction, len(every)):
        raise UserError(f"{where}: {len(labeled)} of {len(every)} labeled, not label_fraction {fraction:g}; {_CURE}")
    for split, told in entry.summaries.items():
        if not told.matches(summary(folder, entry.splits[split], manifest)):
            raise UserError(f"{where}: the summary of {split} is not that of its shards; {_CURE}")
    return counts


def _check_told(told: Mapping[str, float], found: Mapping[str, float], where: str) -> None:
    """Counts and statistics, which are rounded to four decimals, but for the rounding of another machine."""
    for key in {**found, **told}:
        if not math.isclose(told.get(key, math.nan), found.get(key, math.nan), rel_tol=1e-9, abs_tol=1e-3):
            raise UserError(f"{where}: says {key:.60} {told.get(key)}, its shards make it {found.get(key)}; {_CURE}")


def _check_shard(folder: Path, name: str, manifest: Manifest, split: str, absent: set[str]) -> Iterator[Episode]:
    """Check every row of a shard, its withheld actions with it, and yield the episodes."""
    path = folder / name
    for batch in _batches(path, SCHEMA, manifest.files[name].rows):
        ids, labeled, returns = (_whole(batch, key, str(path)) for key in ("episode_id", "labeled", "episode_return"))
        for k, episode in enumerate(episodes_of(batch, manifest, str(path))):
            where = f"{path}: {ids[k]}"
            episode.validate(where=where)
            if ids[k] != episode.episode_id:
                raise UserError(f"{where}: source, seed and order make it {episode.episode_id}; {_CURE}")
            if not labeled[k] == (episode.action is not None) == (split != "unlabeled"):
                raise UserError(f"{where}: labeled, its action and its split do not agree; {_CURE}")
            if not math.isclose(returns[k], episode.episode_return, rel_tol=1e-9, abs_tol=1e-9):
                raise UserError(f"{where}: episode_return {returns[k]}, its rewards add up otherwise; {_CURE}")
            yield episode
    partner = withheld_of(name)
    if split == "unlabeled" and partner in manifest.files and partner not in absent:
        for episode in read(path, name, manifest, folder / partner):
            episode.validate(where=f"{folder / partner}: {episode.episode_id}")


def _rows(episodes: list[Episode], labeled: bool) -> pa.RecordBatch:
    scalars = ("episode_id", "source", "seed", "order", "length", "episode_return", "terminal")
    columns: dict[str, Any] = {name: [getattr(episode, name) for episode in episodes] for name in scalars}
    columns |= {
        "labeled": [labeled] * len(episodes),
        "observation": _list_array([episode.observation for episode in episodes]),
        "action": _list_array([episode.action if labeled else None for episode in episodes]),
        "reward": _list_array([episode.reward for episode in episodes]),
    }
    return pa.RecordBatch.from_pydict(columns, SCHEMA)


def _withheld_rows(episodes: list[Episode]) -> pa.RecordBatch:
    columns = {
        "episode_id": [episode.episode_id for episode in episodes],
        "length": [episode.length for episode in episodes],
        "action": _list_array([episode.action for episode in episodes]),
    }
    return pa.RecordBatch.from_pydict(columns, WITHHELD_SCHEMA)


def _list_array(arrays: Sequence[np.ndarray | None]) -> pa.ListArray:
    """Flat float32 lists; None becomes a null that owns no values."""
    known = [np.ravel(array) for array in arrays if array is not None]
    values = np.concatenate(known) if known else np.zeros(0, np.float32)
    offsets = np.cumsum([0, *(0 if array is None else array.size for array in arrays)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(values, pa.float32()), mask=pa.array([a is None for a in arrays])
    )


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    with files.new_file(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        yield writer


def _batches(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The record batches of a file that must have this schema and this number of rows."""
    count = 0
    for batch in arrow.batches(path, schema):
        count += len(batch)
        if len(batch) > 0 and count <= rows:
            yield batch
    if count != rows:
        raise UserError(f"{path}: {count} rows, {NAME} says {rows}; {_CURE}")


def _whole(batch: pa.RecordBatch, name: str, where: str) -> list[Any]:
    """A column of scalars, none of them missing."""
    if batch.column(name).null_count:
        raise UserError(f"{where}: a row without {name}; {_CURE}")
    return batch.column(name).to_pylist()


def _lengths(batch: pa.RecordBatch, where: str) -> np.ndarray:
    """The length column, int64 [rows], every one at least 1."""
    length = batch.column("length").fill_null(0).to_numpy().astype(np.int64)
    if (length < 1).any():
        raise UserError(f"{where}: a row has no length or one below 1; {_CURE}")
    return length


def _lists(
    batch: pa.RecordBatch, name: str, sizes: np.ndarray, where: str, nullable: bool = True
) -> list[np.ndarray | None]:
    """Each row's values as a view of the Arrow buffer; every list must have the size that its length asks for."""
    column = batch.column(name)
    null = column.is_null().to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy()
    wrong = np.diff(offsets) != np.where(null, 0, sizes)
    if not nullable:
        wrong |= null
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{where}: {batch.column('episode_id')[row]}: {name} holds {offsets[row + 1] - offsets[row]} values, "
            f"expected {sizes[row]}; {_CURE}"
        )
    if column.values.null_count:
        raise UserError(f"{where}: {name} has missing values inside a list; {_CURE}")
    values = column.values.to_numpy()
    return [None if null[k] else values[offsets[k] : offsets[k + 1]] for k in range(len(null))]
