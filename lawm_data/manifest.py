"""lawm.json: what a dataset folder holds. It names the files to read; no command globs.

A folder without it, or with a file whose digest differs, is no dataset to any command.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lawm_data import files, table4
from lawm_data.errors import UserError
from lawm_data.parsing import check_types, parse
from lawm_data.summary import Summary

NAME = "lawm.json"
DEFAULT_SLICE = "medium-replay"
SCHEMA_VERSION = 1
MAX_BYTES = 16_000_000  # of lawm.json, more than ten thousand files
SPLITS = ("labeled", "unlabeled", "validation", "withheld")
STATISTICS = (*table4.COLUMNS, "episodes", "labeled", "steps")  # of a slice
LARGEST_SIZE = 1_000_000  # of an observation or action; keeps products of sizes within 64 bits
_SLICE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)?")
_ENV = re.compile(r"(custom:)?[A-Za-z0-9_][A-Za-z0-9_.-]*")  # it names folders
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ROW_BYTES = 16  # no row of a shard takes less


@dataclass(frozen=True)
class FileEntry:
    """One file of the dataset; `rows` is 0 for what holds no trajectories (card, figures)."""

    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class SliceEntry:
    """One slice. `splits` maps labeled, unlabeled, validation and withheld to their files, in reading order.

    wanted and found: quota, and how many the rule gave under it (before a validation share was held out);
    statistics: STATISTICS, which are columns of Table 4 and counts;
    labeled_statistics: the same of the labeled trajectories (empty when there are none);
    summaries: of the observations in splits labeled and unlabeled, where they have files.
    """

    rule: dict[str, Any]
    complete: bool
    wanted: int
    found: int
    splits: dict[str, list[str]]
    statistics: dict[str, float]
    labeled_statistics: dict[str, float]
    summaries: dict[str, Summary]


@dataclass(frozen=True)
class Manifest:
    """The content of lawm.json, validated.

    layout: observation keys with their sizes, in the order of the observation vector; repeat: action repeat, None
    where unknown; collected: how each (source) was made; credits: whom to credit; action_bounds: what [-1, 1] was in
    the recording, by column, of the sources that say so, None where none does.
    """

    env: str
    layout: list[tuple[str, int]]
    observation_size: int
    action_size: int
    repeat: int | None
    label_fraction: float | None
    label_seed: int
    slices: dict[str, SliceEntry]
    collected: list[dict[str, Any]]
    credits: list[str]
    files: dict[str, FileEntry]
    action_bounds: list[tuple[float, float]] | None = None

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `folder`/lawm.json; UserError when there is none or it is not a valid manifest."""
        path = folder / NAME
        if not path.is_file():
            raise UserError(f"{folder}: no {NAME} there, so no dataset; name a folder that `lawm-data split` wrote")
        return cls.read(path, str(path))

    @classmethod
    def read(cls, path: Path, where: str) -> Manifest:
        """Read the file `path`, which errors call `where`; UserError when it is larger than any manifest."""
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{where}: larger than {MAX_BYTES / 1e6:.0f} MB, so no manifest; run split again")
        return cls.from_json(files.read_json(path), where)

    @classmethod
    def from_json(cls, value: Any, where: str = NAME) -> Manifest:
        """Build from parsed JSON; UserError names `where` and the key that is missing, unknown or wrong."""
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a JSON object; restore the file or run split again")
        value = dict(value)
        version = value.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{where}: schema_version is {version!r:.20}, this program reads {SCHEMA_VERSION}; update lawm"
            )
        check_types(cls, value, where)
        for key in ("layout", "action_bounds"):
            value[key] = value.get(key) and [tuple(pair) for pair in value[key]]
        value["slices"] = {k: _parse_slice(v, f"{where}: slices.{k}") for k, v in value["slices"].items()}
        value["files"] = {k: parse(FileEntry, v, f"{where}: files.{k}") for k, v in value["files"].items()}
        manifest = cls(**value)
        _check(manifest, where)
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The object that `from_json` reads back to an equal manifest."""
        value = {"schema_version": SCHEMA_VERSION} | asdict(self) | {"layout": [list(pair) for pair in self.layout]}
        if self.action_bounds is None:
            del value["action_bounds"]  # datasets from before it existed keep their digest
        return value

    def choose(self, slice_: str | None, where: str) -> str:
        """`slice_`, or medium-replay, or the only slice there is; UserError names `where` and lists the slices."""
        wanted = slice_ or (next(iter(self.slices)) if len(self.slices) == 1 else DEFAULT_SLICE)
        if wanted in self.slices:
            return wanted
        there = ", ".join(sorted(self.slices)) or "none: collect more episodes and split again"
        raise UserError(f"{where}: no slice '{wanted}'; choose with --slice, there is {there}")

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, which holds the sha256 of every file: names this very dataset.

        All but the withheld actions: the order of rows in training follows from this digest, and hidden stays hidden.
        """
        value = self.to_json()
        withheld = self.withheld
        value["files"] = {path: entry for path, entry in value["files"].items() if path not in withheld}
        canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def few_labels(self) -> bool:
        """Whether most trajectories have no actions that may be read."""
        counts = [entry.statistics for entry in self.slices.values()]
        return 2 * sum(one["labeled"] for one in counts) < sum(one["episodes"] for one in counts)

    @property
    def withheld(self) -> set[str]:
        """The files with the stripped actions, which are published on demand only."""
        return {path for _, split, path in self.shards() if split == "withheld"}

    def shards(self) -> Iterator[tuple[str, str, str]]:
        """(slice, split, file) of every shard, in the manifest's order."""
        for name, entry in sorted(self.slices.items()):
            for split in SPLITS:
                for path in entry.splits.get(split, []):
                    yield name, split, path


def folders(dataset_root: Path) -> list[Path]:
    """The dataset folders below `dataset_root`, by name; what a split is still writing is none."""
    found = (path.parent for path in dataset_root.glob(f"*/{NAME}"))
    return sorted(path for path in found if not path.name.startswith("."))


def find(dataset_root: Path, env: str | None = None) -> Path:
    """The dataset folder of `env`, or the only one below `dataset_root`; UserError lists what is there."""
    found = {path.name: path for path in folders(dataset_root)}
    if not found:
        step = files.typed("lawm-data split", dataset_root.parent)
        raise UserError(f"{dataset_root}: no dataset there; run `{step}` first")
    if env is None and len(found) > 1:
        raise UserError(f"{dataset_root}: several datasets; choose one with --env: {', '.join(found)}")
    name = folder_name(env) if env is not None else next(iter(found))
    if name not in found:
        raise UserError(f"{dataset_root}: no dataset of {env}; there is {', '.join(found)}")
    return found[name]


def folder_name(env: str) -> str:
    """What the dataset of `env` is called in the workspace: `custom:NAME` without its colon."""
    return env.replace(":", "-")


def is_custom(env: str) -> bool:
    """Whether no simulator here makes its data."""
    return env.startswith("custom:")


def _parse_slice(value: Any, where: str) -> SliceEntry:
    entry = parse(SliceEntry, value, where)
    parsed = {split: parse(Summary, told, f"{where}.summaries.{split}") for split, told in entry.summaries.items()}
    return replace(entry, summaries=parsed)


def _check(manifest: Manifest, where: str) -> None:
    """What types cannot say: sizes add up, paths stay inside the folder, every shard has its digest."""
    if not _ENV.fullmatch(manifest.env):
        raise UserError(f"{where}: '{manifest.env:.60}' is no name of an env; run split again")
    sizes, total = (manifest.observation_size, manifest.action_size), sum(size for _, size in manifest.layout)
    if not all(1 <= size <= LARGEST_SIZE for size in sizes) or total != manifest.observation_size:
        raise UserError(
            f"{where}: observation_size {manifest.observation_size}, action_size {manifest.action_size}, layout of "
            f"{total}: these do not fit together; run split again"
        )
    bounds = manifest.action_bounds
    if bounds is not None and not (len(bounds) == manifest.action_size and all(low <= high for low, high in bounds)):
        raise UserError(f"{where}: action_bounds are not those of {manifest.action_size} columns; run split again")
    repeat, fraction = manifest.repeat, manifest.label_fraction
    if (repeat is not None and repeat < 1) or (fraction is not None and not 0 < fraction < 1):
        raise UserError(f"{where}: repeat {repeat} or label_fraction {fraction} cannot be right; run split again")
    for path, entry in manifest.files.items():
        if not _PATH.fullmatch(path) or path == NAME:
            raise UserError(f"{where}: files: '{path:.60}' is not a plain path inside the dataset; run split again")
        if not _SHA256.fullmatch(entry.sha256) or not 0 <= entry.rows * _ROW_BYTES <= entry.bytes:
            raise UserError(
                f"{where}: files.{path}: sha256, {entry.bytes} bytes or {entry.rows} rows cannot be right; "
                "run split again"
            )
    for name, slice_ in manifest.slices.items():
        if not _SLICE.fullmatch(name) or not slice_.splits.keys() <= set(SPLITS):
            raise UserError(f"{where}: slices.{name:.60}: name or splits not of {', '.join(SPLITS)}; run split again")
        if lacking := [key for key in STATISTICS if key not in slice_.statistics]:
            raise UserError(f"{where}: slices.{name}.statistics: missing key '{lacking[0]}'; run split again")
    named = Counter(path for _, _, path in manifest.shards())
    for path, times in named.items():
        if path not in manifest.files or times > 1:
            raise UserError(f"{where}: shard '{path:.60}' has no digest or is named twice; run split again")
    for path, entry in manifest.files.items():
        if entry.rows and path not in named:  # withheld actions could else be taken for a figure, and published
            raise UserError(f"{where}: files.{path}: has rows, and no slice names it; run split again")
    for name, slice_ in manifest.slices.items():
        _check_summaries(manifest, slice_, f"{where}: slices.{name}.summaries")


def _check_summaries(manifest: Manifest, slice_: SliceEntry, where: str) -> None:
    """What a run relies on before it reads a row: sizes, and no more rows than the files have room for."""
    if slice_.summaries.keys() != {split for split in ("labeled", "unlabeled") if slice_.splits.get(split)}:
        raise UserError(f"{where}: not those of its labeled and unlabeled files; run split again")
    for split, summary in slice_.summaries.items():
        paths = slice_.splits[split]
        held = [manifest.files[path] for path in paths]
        most = sum(entry.bytes for entry in held) // (4 * manifest.observation_size)
        fits = {len(summary.mean), len(summary.std)} == {manifest.observation_size}
        if not fits or not 0 < 2 * sum(entry.rows for entry in held) <= summary.rows <= most or min(summary.std) < 0:
            raise UserError(f"{where}.{split}: not of the observations in its {len(paths)} files; run split again")
