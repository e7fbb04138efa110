"""Runs, or the evidence they left -> Table 1, cells, runs, paired differences, the ladder, and the pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import alike, cells, evidence, ladders, plots, results, tables
from lawm_train.cells import SHORT
from lawm_train.ladders import Ladders
from lawm_train.record import Record
from lawm_train.rungs import Rung

TEXT, SCORES = "report.md", "scores.csv"
_BEGIN = re.compile(r"^<!-- table:.*$", re.MULTILINE)
_BLOCK = re.compile(
    r"^(<!-- table: (\w+)(?::(\S[^\n]*?))? of (\S[^\n]*?) -->\n)(?:(?!^<!-- table:).)*?(<!-- end -->)",
    re.DOTALL | re.MULTILINE,
)


def write(
    paths: Sequence[Path], out: Path, reference: float | None = None, keep: Path | None = None, ours: str = tables.OURS
) -> str:
    """Write OUT/report.md, table1.csv, scores.csv, curves.png; fractions.png of several fractions of labels, and
    ladder.png where one was walked.

    Returns the report's text. paths: run folders, and evidence, by its files or their folder; reference: a return to
    draw as a line, such as the data's mean; keep: the folder where each run leaves its evidence; ours: the method whose
    paired differences are made. UserError when no run was evaluated yet, or none is of `ours` where it was
    named.
    """
    if keep and keep.resolve() == out.resolve():
        raise UserError(
            f"{keep}: both --out and --evidence, whose files would be taken for each other; name two folders"
        )
    if out.resolve() in {path.resolve() for path in paths} and not _is_report(out):
        raise UserError(f"{out}: --out is what is reported, whose files would lie among it; name another folder")
    paths = [one for path in paths for one in _evidence_in(path)]
    records, without = results.gather(paths)
    if not records:
        raise UserError("; ".join(f"{why}: {', '.join(map(str, runs))}" for why, runs in without.items()))
    for why, runs in without.items():
        click.echo(f"left out, {why}: {', '.join(run.name for run in runs)}", err=True)
    walked = _ladders(paths)
    material = Material(records, walked, results.settings_of(paths, records), ours)
    text = as_markdown(material)
    if keep:
        _keep(material, keep)
    files.write_text(out / TEXT, text)
    files.write_text(out / "table1.csv", tables.table_1_csv(cells.of(material.pooled)))
    files.write_text(out / SCORES, evidence.as_csv(records))
    files.write_bytes(out / "curves.png", plots.curves(material.pooled, reference))
    pictures = {
        "fractions.png": plots.fractions(material.pooled),
        "ladder.png": ladders.draw(walked) if walked else None,
    }
    for name, picture in pictures.items():
        if picture:
            files.write_bytes(out / name, picture)
        else:
            (out / name).unlink(missing_ok=True)  # of other runs
    return text


@dataclass(frozen=True)
class Material:
    """What tables are made of. settings: by digest, those that are known; ours: whose differences the tables have."""

    records: Sequence[Record]
    walked: Ladders
    settings: Mapping[str, dict[str, Any]]
    ours: str = tables.OURS

    @cached_property
    def pooled(self) -> list[Record]:
        """The records as cells count them: what came to the same settings together."""
        return alike.pooled(self.records, self.settings)


def _evidence_in(path: Path) -> list[Path]:
    """The files of a folder of evidence; a run, a report, or a file, alone."""
    return [path] if Run(path).exists or _is_report(path) else sorted(path.glob("*.csv")) or [path]


def _is_report(path: Path) -> bool:
    return (path / TEXT).is_file() and (path / SCORES).is_file()


def _keep(material: Material, folder: Path) -> None:
    """What runs leave as evidence: each its evaluations and the ladder of its last checkpoint; their settings once."""
    stale = evidence.write(material.records, folder)
    for digest in {record.settings for record in material.records} & material.settings.keys():
        files.write_json(results.settings_file(folder, digest), material.settings[digest])
    for run in {record.run for record in material.records}:
        kept = folder / f"{run}-ladder.json"
        if run in material.walked:
            files.write_json(kept, [rung._asdict() for rung in material.walked[run]])
        elif run in stale:
            kept.unlink(missing_ok=True)


def as_markdown(material: Material) -> str:
    """Every table, each under its heading; those without a row are left out. UserError as `write`'s."""
    made = {name: make(material) for name, (_, make) in _TABLES.items()}
    return "\n\n".join(f"## {_TABLES[name][0]}\n\n{text}" for name, text in made.items() if text) + "\n"


def regenerated(text: str, folder: Path) -> str:
    """A Markdown text with its tables made anew; folder: what the places of the evidence are relative to.

    A table stands between `<!-- table: table1 of results/own -->` and `<!-- end -->`; it may be any of those of
    `as_markdown`, and is made of all the evidence in that folder, or of files (`results/own/*-bc-*.csv`), or of several
    of these with a space between them; `paired:idm-td3bc` tells another method's differences than LAWM's. UserError for
    an unknown table or method, no evidence, or a marker that is not understood or has no end before the next.
    """
    whole = {block.start() for block in _BLOCK.finditer(text)}
    for begin in _BEGIN.finditer(text):
        if begin.start() not in whole:
            raise UserError(
                f"{begin[0]}: write `<!-- table: NAME of FOLDER -->`, and `<!-- end -->` below it before the next table"
            )

    def table(block: re.Match[str]) -> str:
        begin, name, ours, places, end = block.groups()
        if name not in _TABLES:
            raise UserError(f"{begin.strip()}: unknown table '{name}'; there are {', '.join(_TABLES)}")
        if ours and name != "paired":
            raise UserError(f"{begin.strip()}: `paired` alone tells the differences of a method; write `{name} of`")
        paths = []
        for place in places.split():
            pattern = place if place.endswith(".csv") else f"{place}/*.csv"
            try:
                own = sorted(folder.glob(pattern))
            except (ValueError, NotImplementedError) as error:  # of `**x`, and of an absolute path
                raise UserError(f"{begin.strip()}: {pattern}: {error}; name folders beside this file") from None
            paths += own
            if not own:
                raise UserError(f"{begin.strip()}: no evidence {folder / pattern}; `lawm-train report --evidence`")
        records, _ = results.gather(paths)
        walked = _ladders(paths) if name == "ladder" else {}
        material = Material(records, walked, results.settings_of(paths, records), ours or tables.OURS)
        return f"{begin}{_TABLES[name][1](material)}\n{end}"

    return _BLOCK.sub(table, text)


def update(path: Path) -> None:
    """Make the tables of a Markdown file anew; evidence is found beside the file. UserError when it has none."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error}); name a Markdown file") from None
    if not _BLOCK.search(text):
        raise UserError(
            f"{path}: no table to make; put `<!-- table: table1 of FOLDER -->` and `<!-- end -->` where one goes"
        )
    files.write_text(path, regenerated(text, path.parent))


_TABLES: dict[str, tuple[str, Callable[[Material], str]]] = {
    "table1": (
        "Table 1: return / 10 of the last checkpoint, mean ± std over runs (the paper's figure)",
        lambda material: tables.table_1(cells.of(material.pooled)),
    ),
    "cells": ("Cells", lambda material: tables.cell_table(cells.of(material.pooled))),
    "paired": (
        "Paired differences of raw returns",
        lambda material: tables.paired_table(cells.of(material.pooled), _known(material.ours, material.records)),
    ),
    "evaluations": ("Returns while training", lambda material: tables.evaluation_table(material.pooled)),
    "kept": ("What runs keep of their best evaluation", lambda material: tables.kept_table(material.records)),
    "runs": ("Runs", lambda material: tables.run_table(material.records)),
    "ladder": ("Ladder of diagnostics", lambda material: ladders.as_table(material.walked)),
    "settings": ("Settings", lambda material: _settings(material.settings, material.records)),
}
"""By the name in a marker: heading, and how it is made."""


def _known(ours: str, records: Sequence[Record]) -> str:
    """UserError where another than LAWM was named, of which there is no run."""
    methods = sorted({record.method for record in records}, key=cells.rank)
    if ours not in (tables.OURS, *methods):
        raise UserError(f"no run of '{ours}' to set against the others; there are {', '.join(methods)}")
    return ours


def _ladders(paths: Sequence[Path]) -> Ladders:
    """By run, the rungs that were walked after its last evaluation: in the run's folder, or kept beside its evidence.

    Runs that share their name stand under their paths. UserError where a file is none of `diagnose`.
    """
    found: dict[Path, list[Rung]] = {}
    for path in paths:
        kept = path.suffix == ".csv"
        file = path.with_name(f"{path.stem}-ladder.json") if kept else path / ladders.FILE
        if not file.is_file():
            continue
        read = files.read_json(file)
        try:
            if not kept and not _is_of_last(Run(path), read):
                click.echo(
                    f"left out, {file}: not of the last checkpoint that was evaluated; diagnose the run again", err=True
                )
                continue
            found[path] = [Rung(**row) for row in (read if kept else read["rungs"])]
        except (KeyError, TypeError):
            raise UserError(
                f"{file}: no ladder as `lawm-train diagnose` writes it now; diagnose the run again"
            ) from None
    names = {path: path.stem if path.suffix == ".csv" else Run(path).name for path in found}
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {str(path) if names[path] in shared else names[path]: walked for path, walked in found.items()}


def _settings(settings: Mapping[str, dict[str, Any]], records: Sequence[Record]) -> str:
    """What settings have unlike those of runs with default names, or else the first, by their digest.

    Empty where all are the same, or none is known: evidence of earlier versions has the digest alone.
    """
    known = {digest: dict(_flat(values)) for digest, values in settings.items()}
    named: dict[str, str] = {}
    for record in sorted(records, key=lambda record: not record.has_default_name):
        named.setdefault(record.settings, record.run)
    if len(named) < 2 or not known.keys() & named.keys():
        return ""
    base = next(digest for digest in named if digest in known)
    unlike = {digest: _unlike(known[digest], known[base]) for digest in known}
    rows = [[digest[:SHORT], run, unlike.get(digest, "known by its digest alone")] for digest, run in named.items()]
    return tables.markdown(["settings", "first run", f"unlike {base[:SHORT]}"], rows)


def _unlike(own: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    keys = [key for key in {**base, **own} if base.get(key, "-") != own.get(key, "-")]
    return ", ".join(f"{key} {own.get(key, '-')} (not {base.get(key, '-')})" for key in keys)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """`agent.clap.eps` and its value, for each setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _is_of_last(run: Run, ladder: dict[str, Any]) -> bool:
    """Whether it is of the checkpoint that was evaluated last, or of one after that."""
    rows = list(run.metrics())
    phases = results.phases_of(rows)
    evaluated = [(phases.index(row["phase"]), row["update"]) for row in rows if row["kind"] == "evaluate"]
    return bool(evaluated) and (ladder["phase"], ladder["update"]) >= max(evaluated)
