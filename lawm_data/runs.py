"""A run folder: what was asked (config.json), what happened (metrics.jsonl), and where it is (checkpoints).

    RUN/config.json                      settings, dataset revision and digest, code commit
    RUN/metrics.jsonl                    one JSON object a line
    RUN/checkpoint-<phase>-<update>/     tensors.safetensors, state.json (written last: without it there is none)

Tensors are read with safetensors; nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.parsing import parse

NOT_COMPARED = {"code": None, "about": None}  # of the config: may differ when a run continues
TENSORS = "tensors.safetensors"
_PLACE = {"kind": str, "phase": str, "update": int}  # what each row of metrics has
KEPT = 2  # checkpoints; two, so that seeds side by side cut between two writes still share one


class Position(NamedTuple):
    """How far a run is: `update` updates of its phase number `phase` are done."""

    phase: int
    update: int


START = Position(0, 0)


@dataclass(frozen=True)
class Origin:
    """What a run was trained on. digest: of the very data; revision: where it lay on the Hub, None of a folder."""

    digest: str
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The content of config.json of a run of `lawm-train`, and most of what describes its policy elsewhere."""

    method: str
    oracle: bool
    env: str
    repeat: int | None
    slice: str
    seed: int
    label_frac: float | None
    label_seed: int
    labeled: int
    dataset: Origin
    sizes: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    code: str | None
    about: dict[str, Any] = field(default_factory=dict)


class Run:
    """One seed's run folder; with `tensorboard`, what is logged is written as TensorBoard events too."""

    def __init__(self, path: Path, tensorboard: bool = False):
        """UserError when TensorBoard is asked for and not installed."""
        self.path = path
        self.writer = _summary_writer() if tensorboard else None
        self.board: Any = None

    @property
    def name(self) -> str:
        """Of its folder, also where that is `.`"""
        return self.path.resolve().name

    @property
    def exists(self) -> bool:
        """Whether it was begun."""
        return (self.path / "config.json").is_file()

    @property
    def config(self) -> dict[str, Any]:
        """Raise UserError when the folder is no run, or config.json is damaged."""
        path = self.path / "config.json"
        if not self.exists:
            raise UserError(f"{self.path}: no run here (config.json is missing); name a folder under runs/")
        found = files.read_json(path)
        if not isinstance(found, dict) or "method" in found:  # a collector has none
            cure = "restore it; if another version wrote it, train the run again"
            parse(Trained, found, str(path), cure)
            parse(Origin, found["dataset"], f"{path}: dataset", cure)
        return found

    @property
    def trains(self) -> bool:
        """Whether it is one of `lawm-train`. UserError when the folder is no run."""
        return "method" in self.config

    def check_begun(self) -> None:
        """UserError where something of a run is there, and no config.json that says of which."""
        if not self.exists and (self.positions() or (self.path / "metrics.jsonl").is_file()):
            raise UserError(f"{self.path}: holds a run without its config.json; restore that, or remove the folder")

    def begin(
        self, config: dict[str, Any], length: str | None = None, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Start, or continue a run of the same settings, for longer where the setting `length` is greater now.

        defaults: by section, see `completed`. UserError names the first setting that differs.
        """
        with files.user_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        files.sweep(self.path)
        path = self.path / "config.json"
        if self.exists and not self.is_extended(config, length, defaults):
            return
        if self.exists:
            kept = {*NOT_COMPARED, "dataset"}  # of the same digest; where it lay goes with what it was called
            config = {**config, **{key: self.config[key] for key in kept if key in self.config}}
        if ended := self.finished:  # first: the run is then no longer finished, if a kill comes between
            self.log({"kind": "extended", "phase": ended["phase"], "update": ended["update"]})
        files.write_json(path, config)

    def is_extended(
        self, config: dict[str, Any], length: str | None, defaults: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether this config asks for more of the setting `length` (`train.updates`) than the run was begun with.

        UserError names the first other setting that differs.
        """
        before, now = self.config, json.loads(json.dumps(config))
        if defaults is not None and isinstance(before.get("settings"), dict):
            before["settings"] = completed(before["settings"], now["settings"], defaults)
        for one in (before, now):
            one.get("dataset", {}).pop("revision", None)  # the digest names the data, wherever they lie
        extended = False
        if length:
            *sections, key = length.split(".")
            asked, there = (
                reduce(lambda part, key: part.get(key, {}), sections, one["settings"]) for one in (now, before)
            )
            if key in there:  # else another version wrote it, which is a difference
                extended = asked[key] > there[key]
                there[key] = max(asked[key], there[key])
        difference = _difference({**before, **NOT_COMPARED}, {**now, **NOT_COMPARED})
        if difference:
            cure = "use another --root, or --name where there is one"
            if not self.positions():
                cure += ", or remove this folder, of which no checkpoint was saved"
            raise UserError(f"{self.path}: was begun with other settings ({difference}); {cure}")
        return extended

    def log(self, row: dict[str, Any]) -> None:
        """Append a row of metrics: kind, phase, update, and numbers."""
        files.append_line(self.path / "metrics.jsonl", json.dumps(row))
        if self.writer:
            # what an earlier process logged from here on is superseded
            self.board = self.board or self.writer(str(self.path / "tensorboard"), purge_step=row["update"])
            for name, value in row.items():
                if name != "update" and isinstance(value, int | float):
                    self.board.add_scalar(f"{row['phase']}/{row['kind']}/{name}", value, row["update"])
            self.board.flush()

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Rows in order. Rows logged after the checkpoint that a resume went back to are superseded, later ones win.

        A row `finished` is the last of a run: one that goes on is not finished.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        rows: dict[tuple[str, str, int], dict[str, Any]] = {}
        ended: tuple[str, str, int] | None = None
        for line in path.read_text("utf-8", errors="replace").splitlines():
            row = _row_of(line)
            if row is None:
                continue
            if ended:
                rows.pop(ended, None)
            key = row["kind"], row["phase"], row["update"]
            ended = key if row["kind"] == "finished" else None
            rows[key] = row
        yield from rows.values()

    @property
    def stopped(self) -> dict[str, Any] | None:
        """The row that says where and why this seed was given up; None for one that goes on."""
        return self._row("stopped")

    @property
    def finished(self) -> dict[str, Any] | None:
        """The row that says what the whole training cost; None before its end."""
        return self._row("finished")

    def _row(self, kind: str) -> dict[str, Any] | None:
        return next((row for row in self.metrics() if row["kind"] == kind), None)

    def save(self, position: Position, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint, then drop the oldest beyond KEPT."""
        with files.new_folder(self.checkpoint(position)) as folder:
            files.write_bytes(folder / TENSORS, safetensors.torch.save(tensors))
            files.write_json(folder / "state.json", state)
        for old in self.positions()[:-KEPT]:
            files.remove_folder(self.checkpoint(old))

    @property
    def reachable(self) -> set[Position]:
        """The positions that it can be continued from: its checkpoints or, while it has none, the start.

        A run that was finished, and is to have more updates, goes on from its end alone.
        """
        kept = self.positions()
        ends = [row["update"] for row in self.metrics() if row["kind"] in ("finished", "extended")]
        return {one for one in kept if ends and one >= (kept[-1].phase, ends[-1])} or set(kept) or {START}

    def discard(self, beyond: Position) -> None:
        """Remove the checkpoints after `beyond`."""
        for position in self.positions():
            if position > beyond:
                files.remove_folder(self.checkpoint(position))

    def positions(self) -> list[Position]:
        """Checkpoints that are whole, oldest first."""
        states = self.path.glob("checkpoint-*/state.json")
        names = (path.parent.name for path in states if (path.parent / TENSORS).is_file())
        found = (re.fullmatch(r"checkpoint-(\d+)-(\d+)", name) for name in names)  # not a copy that a user set aside
        return sorted(Position(*map(int, match.groups())) for match in found if match)

    @property
    def newest(self) -> Position:
        """Of the last checkpoint, which a training that goes on replaces; UserError when there is none yet."""
        kept = self.positions()
        if not kept:
            cure = "run the same lawm-train command again to continue it"
            if self.stopped:
                cure = "it was stopped before that, so remove the folder to begin again"
            raise UserError(f"{self.path}: no checkpoint yet; {cure}")
        return kept[-1]

    def load(self, position: Position) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and state of a checkpoint; UserError when it is damaged."""
        path = self.checkpoint(position) / TENSORS
        try:
            tensors, state = safetensors.torch.load_file(path), files.read_json(path.parent / "state.json")
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable checkpoint ({error}); remove its folder to go back one") from None
        if not isinstance(state, dict):
            raise UserError(f"{path.parent}/state.json: no state of a checkpoint; remove its folder to go back one")
        return tensors, state

    def checkpoint(self, position: Position) -> Path:
        """Its folder, whether it is there or not."""
        return self.path / f"checkpoint-{position.phase}-{position.update:08d}"


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard: TensorBoard is not installed; run `pip install tensorboard`") from None
    return SummaryWriter


def _row_of(line: str) -> dict[str, Any] | None:
    """A row of metrics; None for what is none, such as a last line that a kill cut."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in _PLACE.items()):
        return None
    return row if row["kind"] != "evaluate" or _are_numbers(row.get("returns")) else None


def _are_numbers(values: Any) -> bool:
    """Whether it is a list of some finite numbers."""
    numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return numbers and len(values) > 0 and all(abs(value) <= sys.float_info.max for value in values)


def why_unscored(path: Path) -> str | None:
    """Why what a pattern such as runs/* matched has no score; None for runs of lawm-train, and for what is an error."""
    run = Run(path)
    if not run.exists:
        return "no run is there" if path.exists() else None
    try:
        return None if run.trains else "collectors have no score"
    except UserError:
        return None


def trained(path: Path) -> Run:
    """The run of `lawm-train` in a folder; UserError where there is none, or that of a collector."""
    run = Run(path)
    if not run.trains:
        raise UserError(f"{path}: the run of a collector, which has nothing to score; name one of lawm-train")
    return run


def shared_position(runs: Iterable[Run]) -> Position | None:
    """The last position that all of these runs can be continued at, None when they have none in common."""
    return max(set.intersection(*(run.reachable for run in runs)), default=None)


def side_by_side(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs in groups of a shared position, the furthest first: those of a group can go on together."""
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: max(run.reachable), reverse=True):
        for group in groups:
            if shared_position([*group, run]) is not None:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def completed(saved: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`saved`, and for each key of `now` that it lacks the default: what a version without that setting did."""
    known = dict(saved)
    for key, value in saved.items():
        if isinstance(value, dict) and isinstance(now.get(key), dict):
            known[key] = completed(value, now[key], defaults.get(key, {}))
    return {key: defaults[key] for key in now.keys() & defaults.keys()} | known


def _difference(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str | None:
    """The first key at which two configs differ, with both values."""
    for key in sorted(before.keys() | now.keys()):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found = _difference(a, b, f"{prefix}{key}.")
            if found:
                return found
        elif a != b:
            return f"{prefix}{key} was {a}, now {b}"
    return None
