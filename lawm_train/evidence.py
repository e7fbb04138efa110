"""Evidence: a run's records as a CSV, small enough to keep beside the tables, which are made from nothing else."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, get_args, get_type_hints

from lawm_data import files
from lawm_data.errors import UserError
from lawm_train.record import PRIOR_PHASE, STATES, STOPPED, Evaluation, Record, is_prior

MOST_BYTES = 50_000  # of one run's evidence
CONSTANT = tuple(field.name for field in fields(Record) if field.name != "evaluations")
EVALUATED = ("phase", "update", "mean", "returns")  # empty where a seed was stopped before its first evaluation
COLUMNS = (*CONSTANT, *EVALUATED)
KEY = ("run", "method", "env", "slice", "dataset", "settings", "label_frac", "label_seed", "seed")  # of a record


def write(records: Sequence[Record], folder: Path) -> set[str]:
    """FOLDER/<run>.csv for each run among the records, in the place of what is there of the same run.

    Returns the runs of which nothing was there, or something of an earlier checkpoint. UserError when one is too large
    to keep, two share a name, or a file holds evaluations that would be lost.
    """
    by_run: dict[str, list[Record]] = {}
    for record in records:
        own = by_run.setdefault(record.run, [])
        own.append(record)
        if record.training != own[0].training:
            raise UserError(f"{record.run}: two runs have this name; keep their evidence in two folders")
    texts = {folder / f"{run}.csv": as_csv(own) for run, own in by_run.items()}
    went_on = set()
    for path, (run, own) in zip(texts, by_run.items(), strict=True):
        kept = from_csv(path) if path.exists() else []
        _check_kept(path, kept, own)
        if _ends(kept) != _ends(own):
            went_on.add(run)
    for path, text in texts.items():
        if len(text) > MOST_BYTES:
            raise UserError(f"{path}: {len(text)} bytes of evaluations, at most {MOST_BYTES}; evaluate less often")
    for path, text in texts.items():
        files.write_text(path, text)
    return went_on


def _ends(records: Iterable[Record]) -> set[tuple[str, int]]:
    """Phase and update of the last evaluations."""
    scored = [record for record in records if record.evaluations]
    return {record.last[:2] for record in [one for one in scored if not is_prior(one.method)] or scored}


def _check_kept(path: Path, kept: Sequence[Record], records: Sequence[Record]) -> None:
    """UserError where `records` of a run may not replace what was `kept` of it.

    They may where the training is the same, with as many evaluations or more; or where the run went on for longer (so
    its settings differ) and still has every evaluation but the last, which may have been scored anew since. A prior
    policy, which is scored at the end alone, is replaced by a score of the same checkpoint or a later one.
    """
    run, now = records[0], {evaluation for record in records for evaluation in record.evaluations}
    count, before = (sum(len(record.evaluations) for record in own) for own in (records, kept))
    for old in kept:
        held = now.issuperset(old.evaluations[:-1]) and {one[:2] for one in old.evaluations} <= {one[:2] for one in now}
        longer = count > before and held and old.training[:-1] == run.training[:-1]  # all but the settings
        if old.training == run.training and count < before:
            raise UserError(f"{path}: holds more evaluations of this run; keep this one's evidence in another folder")
        if old.training != run.training and not longer:
            what = f"another run of this name (dataset {old.dataset}, settings {old.settings}, {old.method}"
            what += f", label seed {old.label_seed})"
            raise UserError(f"{path}: holds {what}; keep this one's evidence in another folder")
        same = [record for record in records if record.method == old.method]
        if is_prior(old.method) and not any(_place(record) >= _place(old) for record in same):
            raise UserError(f"{path}: holds a later score of {old.method}; evaluate this run with --policy prior")


def _place(record: Record) -> tuple[bool, int]:
    """How far the training was when a prior policy was scored last, to compare: the model's phase comes first."""
    return record.last.phase != PRIOR_PHASE, record.last.update


def as_csv(records: Iterable[Record]) -> str:
    """One row an evaluation; returns separated by spaces, an empty field for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        constant = [getattr(record, name) for name in CONSTANT]
        for phase, update, returns in record.evaluations:
            numbers = " ".join(f"{value:.1f}" for value in returns)
            writer.writerow([*constant, phase, update, f"{fmean(returns):.2f}", numbers])
        if not record.evaluations:
            writer.writerow([*constant, *[""] * len(EVALUATED)])
    return text.getvalue()


def from_csv(path: Path) -> list[Record]:
    """The inverse of `as_csv`. UserError when the file is missing or no evidence."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("no row")
        records: dict[tuple[str, ...], Record] = {}
        for row in rows:
            key = tuple(row[name] for name in KEY)
            record = records.setdefault(key, _parsed(row))
            if record.state == STOPPED and [row[name] for name in EVALUATED] == [""] * len(EVALUATED):
                continue
            returns = tuple(map(float, row["returns"].split()))
            evaluation = Evaluation(row["phase"], int(row["update"]), returns)
            if row["mean"] != f"{evaluation.mean:.2f}":
                raise ValueError(f"mean {row['mean']} of returns whose mean is {evaluation.mean:.2f}")
            records[key] = replace(record, evaluations=(*record.evaluations, evaluation))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: not readable as evidence of a run ({error!r}); write it again with --evidence"
        ) from None
    return list(records.values())


def _parsed(row: dict[str, str]) -> Record:
    if not row["method"].strip() or row["state"] not in STATES:
        raise ValueError(f"method {row['method']!r} in state {row['state']!r}")
    if Path(row["run"]).name != row["run"] or not row["run"].strip("."):  # evidence is written under it
        raise ValueError(f"{row['run']!r} is no name of a run")
    kinds = get_type_hints(Record)
    return Record(**{name: _value(row[name], kinds[name]) for name in CONSTANT})


def _value(text: str, kind: Any) -> Any:
    """A field in its type, None where it is empty and may be."""
    kinds = get_args(kind) or (kind,)
    return None if not text and NoneType in kinds else kinds[0](text)
