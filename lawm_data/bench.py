"""Speeds of reading a dataset, as one Markdown table with the hardware that it was measured on.

Every figure is the median of some repeats, in a temporary folder. Nothing is asserted: figures depend on the machine.
"""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow as pa

from lawm_data import files, hub, shards
from lawm_data.checkout import code_commit
from lawm_data.episode import Episode
from lawm_data.manifest import Manifest

PACKAGES = ("torch", "numpy", "pyarrow", "h5py", "mujoco", "datasets", "huggingface_hub")
PLAIN_ROWS = 200  # trajectories that the slower ways read each time
BATCHES, WINDOW = 200, 50
_STEP_SCHEMA = pa.schema(
    [("episode_id", pa.string()), ("step", pa.int32())]
    + [(name, shards.FLOATS) for name in ("observation", "action")]
    + [("reward", pa.float32())]
)


class Row(NamedTuple):
    """One line of the table; `target` is empty where none is set."""

    what: str
    figure: str
    target: str
    how: str


def echoed(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, each on stderr too as it is done."""
    for row in rows:
        click.echo(f"{row.what}: {row.figure}", err=True)
        yield row


def markdown(header: str, rows: Sequence[Row]) -> str:
    """The column of targets is left out where no row has one."""
    lines = [Row("what", "figure", "target", "how measured"), Row("---", "---:", "---:", "---"), *rows]
    shown = [k for k, name in enumerate(Row._fields) if name != "target" or any(row.target for row in rows)]
    return "\n".join([header, "", *(f"| {' | '.join(line[k] for k in shown)} |" for line in lines)]) + "\n"


def header(load: float, threads: int | None = None) -> str:
    """Hardware, versions and commit of this code.

    load: the machine's load average before the first measurement; threads: torch's, where they were set.
    """
    used = f"torch threads {threads}, " if threads else ""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    kernels = "with" if find_spec("lawm_data.nets._kernels") else "without"
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {used}load {load:.1f} at the start; "
        f"Python {platform.python_version()}, {versions}, {kernels} kernels in C; "
        f"commit {code_commit() or 'unknown'}"
    )


def median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Of `repeats` calls, after one to warm up."""
    action()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def bench(where: str, slice_: str | None, repeats: int) -> str:
    """The table of a dataset folder, or of `org/name[@revision]` on the Hub, which is downloaded anew each time."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="lawm-bench-") as temporary:
        rows = list(echoed(Reading.of(where, slice_, Path(temporary), repeats).rows()))
    return markdown(header(load), rows)


@dataclass(frozen=True)
class Reading:
    """The shards `paths` of one slice, read in several ways; `local` are their files on this machine."""

    where: str
    manifest: Manifest
    paths: list[str]
    local: list[Path]
    scratch: Path
    repeats: int

    @classmethod
    def of(cls, where: str, slice_: str | None, scratch: Path, repeats: int) -> Reading:
        """UserError when there is no such dataset or slice."""
        source = hub.open_source(where, scratch / "first")
        manifest = source.manifest
        splits = manifest.slices[manifest.choose(slice_, where)].splits
        paths = [path for split in ("labeled", "unlabeled") for path in splits.get(split, [])]
        return cls(where, manifest, paths, [source.pull(path) for path in paths], scratch, repeats)

    @property
    def megabytes(self) -> float:
        return sum(self.manifest.files[path].bytes for path in self.paths) / 1e6

    @property
    def trajectories(self) -> int:
        return sum(self.manifest.files[path].rows for path in self.paths)

    def rows(self) -> Iterator[Row]:
        yield self._pulling()
        yield from self._layouts()
        yield from self._windows()

    def episodes(self) -> Iterator[Episode]:
        for path, file in zip(self.paths, self.local, strict=True):
            yield from shards.read(file, path, self.manifest)

    def _pulling(self) -> Row:
        """From a folder: every byte read and hashed."""

        def pull_all() -> None:
            with self._opened_anew() as source:
                for path in self.paths:
                    source.pull(path)

        seconds = median_seconds(pull_all, self.repeats)
        how = f"{len(self.paths)} shards, {self.megabytes:,.1f} MB, each digest compared"
        return self._row("pull", f"{self.megabytes / seconds:,.0f} MB/s", how)

    def _layouts(self) -> Iterator[Row]:
        from datasets import disable_progress_bars, load_dataset

        disable_progress_bars()

        def plainly(paths: list[Path]) -> Iterator[dict[str, Any]]:
            names = [str(path) for path in paths]
            return iter(load_dataset("arrow", data_files=names, split="train", streaming=True))

        def check_and_copy() -> None:
            for path, file in zip(self.paths, self.local, strict=True):
                shards.check_file(file, self.manifest.files[path])
            for episode in self.episodes():
                episode.observation.copy(), episode.reward.copy()

        few = list(itertools.islice(self.episodes(), PLAIN_ROWS))
        by_step = self.scratch / "steps.arrow"
        write_steps(by_step, few)
        steps = sum(episode.length for episode in few)
        ways: list[tuple[str, int, Callable[[], object], str]] = [
            ("read by lawm", self.trajectories, check_and_copy, "from hashing the files to arrays in memory"),
            ("read by plain `datasets`", len(few), lambda: _drain(plainly(self.local), len(few)), "the same shards"),
            (
                "read by `datasets`, a row per step",
                len(few),
                lambda: _drain(plainly([by_step]), steps),
                "steps as rows",
            ),
        ]
        for what, count, action, how in ways:
            rate = count / median_seconds(action, self.repeats)
            yield self._row(what, f"{rate:,.0f} trajectories/s", f"{count:,} trajectories, {how}")

    def _windows(self) -> Iterator[Row]:
        from lawm_data.windows import Pool, Windows

        length = min(WINDOW, min(episode.length for episode in self.episodes()))

        def windows(episodes: Iterable[Episode], batch: int) -> Windows:
            pool = Pool(episodes, False, self.manifest.action_size, length)
            return Windows([[pool]], [0], length, [batch])

        def first_batch() -> None:
            with self._opened_anew() as source:
                read = (shards.read(source.pull(path), path, source.manifest) for path in self.paths)
                windows(itertools.chain.from_iterable(read), 16).batch(0)

        seconds = median_seconds(first_batch, self.repeats)
        how = "from opening the dataset, nothing downloaded yet, all of the slice in memory"
        yield self._row("time to the first batch", f"{seconds:.2f} s", how)
        for batch in (16, 256):
            drawn = windows(self.episodes(), batch)
            seconds = median_seconds(lambda drawn=drawn: [drawn.batch(k) for k in range(BATCHES)], self.repeats)  # type: ignore[misc]
            how = f"{BATCHES} batches of {batch} windows of {length} from the pool"
            yield self._row(f"windows, batch {batch}", f"{BATCHES * batch / seconds:,.0f} windows/s", how)

    @contextmanager
    def _opened_anew(self) -> Iterator[hub.Source]:
        """As if nothing had been downloaded or hashed; what is, goes at the end."""
        hub.forget()
        with tempfile.TemporaryDirectory(dir=self.scratch) as cache:
            yield hub.open_source(self.where, Path(cache))

    def _row(self, what: str, figure: str, how: str) -> Row:
        return Row(what, figure, "", f"{how}; median of {self.repeats}")


def write_steps(path: Path, episodes: Iterable[Episode]) -> None:
    """The layout that is usual elsewhere, to compare with: one row per step (o_T is dropped, unknown actions null)."""
    with files.new_file(path) as temporary, pa.ipc.new_file(str(temporary), _STEP_SCHEMA) as writer:
        for episode in episodes:
            columns = {
                "episode_id": [episode.episode_id] * episode.length,
                "step": range(episode.length),
                "observation": list(episode.observation[:-1]),
                "action": [None] * episode.length if episode.action is None else list(episode.action),
                "reward": episode.reward,
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, _STEP_SCHEMA))


def _drain(rows: Iterator[object], count: int) -> None:
    for _ in itertools.islice(rows, count):
        pass


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
