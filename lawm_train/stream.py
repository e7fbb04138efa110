"""Shards -> episodes, from a folder or the Hub by one path: fetch a file whole, compare its digest, only then read it.

While one shard is read the next is fetched. Shards are opened with pyarrow: `datasets` (arrow, streaming) reads the
same rows at about an eighth of the speed (`make bench`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from lawm_data import shards
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.hub import Remote, Source, open_source
from lawm_data.manifest import Manifest

SPLITS = ("labeled", "unlabeled", "validation")
_Item = TypeVar("_Item")
_Fetched = TypeVar("_Fetched")


def open_dataset(where: str, cache: Path | None = None) -> Dataset:
    """See `hub.open_source`: only the manifest is read or fetched."""
    return Dataset(open_source(where, cache))


@dataclass(frozen=True)
class Dataset:
    """A verified source of episodes. Only what is asked for is fetched."""

    source: Source

    @property
    def manifest(self) -> Manifest:
        return self.source.manifest

    @property
    def digest(self) -> str:
        """Names this very dataset, all bytes but withheld actions; the same for a folder and what was pushed."""
        return self.manifest.digest

    @property
    def revision(self) -> str | None:
        """The pinned commit's sha, None for a folder."""
        return self.source.revision

    @property
    def repo(self) -> str | None:
        """Its name on the Hub, None for a folder."""
        return self.source.repo

    def describe(self) -> str:
        """What was opened, for the first line that a command prints."""
        return self.source.describe()

    def choose_slice(self, name: str | None = None) -> str:
        """`name`, or medium-replay, or the only slice there is; UserError lists the slices."""
        return self.manifest.choose(name, self.describe())

    def as_begun(self, digest: str, revision: str | None) -> Dataset:
        """The dataset that a run began with, where main holds another since and no commit was asked for."""
        source = self.source
        if not isinstance(source, Remote) or not source.follows or revision is None or digest == self.digest:
            return self
        click.echo(
            f"{source.repo} has changed since this run began: it continues with commit {revision[:8]}; to train on "
            f"{source.revision[:8]}, use another --name"
        )
        return Dataset(source.at(revision))

    def episodes(self, slice_: str, split: str, *, with_actions: bool = False) -> Iterator[Episode]:
        """Episodes of `labeled`, `unlabeled` or `validation`, each shard checked before its first row is used.

        with_actions: gives unlabeled episodes back the actions withheld from them, for oracles and diagnostics alone.
        """
        if split not in SPLITS:
            raise ValueError(f"split is '{split}', expected one of {SPLITS}")
        paths = self.manifest.slices[self.choose_slice(slice_)].splits.get(split, [])
        return self.read(paths, with_actions and split == "unlabeled")

    def check_withheld(self, slice_: str) -> None:
        """UserError where the actions withheld from a slice are not there: its first file is fetched, no other."""
        for path in self.manifest.slices[slice_].splits.get("unlabeled", [])[:1]:
            self._pull_withheld(path)

    def permuted(self, paths: Sequence[str], seed: int) -> list[str]:
        """Another order of these shards, a pure function of seed and digest."""
        order = np.random.default_rng([seed, int(self.digest, 16)]).permutation(len(paths))
        return [paths[index] for index in order]

    def read(self, paths: Sequence[str], with_actions: bool = False) -> Iterator[Episode]:
        """The episodes of these shards, each checked before its first row is used."""

        def fetch(path: str) -> tuple[Path, Path | None]:
            return self.source.pull(path), self._pull_withheld(path) if with_actions else None

        for path, (file, withheld) in zip(paths, ahead(fetch, paths), strict=True):
            yield from shards.read(file, path, self.manifest, withheld)

    def _pull_withheld(self, path: str) -> Path:
        withheld = shards.withheld_of(path)
        if withheld not in self.manifest.files:
            raise UserError(f"{self.describe()}: no actions were withheld from {path}; train without --oracle")
        return self.source.pull(withheld)


def ahead(fetch: Callable[[_Item], _Fetched], items: Iterable[_Item]) -> Iterator[_Fetched]:
    """Yield fetch(item) in order, the next one under way in the background meanwhile.

    The thread is a daemon: neither an abandoned iterator nor Ctrl-C waits for a download.
    """
    remaining = iter(items)
    upcoming = [_in_background(fetch, item) for item in islice(remaining, 1)]
    for following in remaining:
        current = upcoming.pop().result()
        upcoming.append(_in_background(fetch, following))
        yield current
    for last in upcoming:
        yield last.result()


def _in_background(fetch: Callable[[_Item], _Fetched], item: _Item) -> Future[_Fetched]:
    future: Future[_Fetched] = Future()

    def run() -> None:
        try:
            future.set_result(fetch(item))
        except BaseException as error:  # whatever it is, it belongs to the reader who waits
            future.set_exception(error)

    threading.Thread(target=run, name=f"fetch {item}", daemon=True).start()
    return future
