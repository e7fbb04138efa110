"""The records that reports are made of, read from run folders, or from their evidence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.parsing import parse
from lawm_data.runs import Run, why_unscored
from lawm_train import evidence
from lawm_train.record import ORACLE, PRIOR, PRIOR_PHASE, STOPPED, Evaluation, Record

IDM_PHASE = "idm"  # there none is trained yet
DIGITS = 12  # of each digest and commit
NO_SIMULATOR = "no simulator here made their data, so none has a score; act through lawm_train.policy in your own"


@dataclass(frozen=True)
class Score:
    """Raw returns of the checkpoint after `update` updates of phase number `phase`; in RUN/evaluation-<policy>.json."""

    phase: int
    update: int
    mean: float
    std: float
    returns: list[float]

    @staticmethod
    def file(run: Path, policy: str) -> Path:
        return run / f"evaluation-{policy}.json"

    @classmethod
    def of(cls, run: Path, policy: str) -> Score | None:
        """That of a run folder, None where there is none. UserError when it is damaged."""
        path = cls.file(run, policy)
        cure = "remove it and evaluate the run again"
        if not path.is_file():
            return None
        score = parse(cls, files.read_json(path), str(path), cure)
        if not score.returns:
            raise UserError(f"{path}: a score of no episode; {cure}")
        return score


def gather(paths: Iterable[Path]) -> tuple[list[Record], dict[str, list[Path]]]:
    """Records of run folders and evidence files in the order given, and by reason the runs that have none.

    UserError when a run is given twice.
    """
    records: list[Record] = []
    without: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix == ".csv":
            records += evidence.from_csv(path)
        elif reason := why_unscored(path):
            without.setdefault(reason, []).append(path)
        elif Run(path).config["repeat"] is None:  # finished or stopped
            without.setdefault(NO_SIMULATOR, []).append(path)
        elif own := of_run(path):
            records += own
        else:
            without.setdefault("nothing was evaluated yet", []).append(path)
    _check_given_once(records)
    return records, without


def of_run(path: Path) -> list[Record]:
    """The agent's record and, of a model-based run, the prior policy's; none of what was not evaluated yet.

    A score of `lawm-train evaluate` stands for the evaluation of the same checkpoint, or behind those of earlier ones.
    A seed that was stopped before its first evaluation has its record all the same: it counts as stopped.
    """
    run = Run(path)
    rows = list(run.metrics())
    agent: list[Evaluation] = []
    prior: list[Evaluation] = []
    for row in rows:
        if row["kind"] == "evaluate":
            own = prior if row["phase"] == PRIOR_PHASE else agent
            own.append(Evaluation(row["phase"], row["update"], _rounded(row["returns"])))
    phases = phases_of(rows)
    scored = _scored(path, "agent", phases)
    if scored and not _is_before(scored, agent[-1:], phases):
        agent = [*(one for one in agent if one[:2] != scored[:2]), scored]
    of_prior = _scored(path, "prior", phases)
    if of_prior and agent and not _is_before(of_prior, agent[-1:], phases):
        prior = [of_prior]
    try:
        record = _constants(run)
    except KeyError as error:  # of a part that `Trained` leaves to its readers
        raise UserError(f"{path}: config.json has no {error}, so another version wrote it; train it again") from None
    pairs = [(record, agent), (replace(record, method=record.method + PRIOR), prior)]
    made = [replace(one, evaluations=tuple(evaluations)) for one, evaluations in pairs]
    return [one for one in made if one.evaluations or (one.method == record.method and one.state == STOPPED)]


def phases_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The names of the phases by their numbers: they are logged in the order in which they train."""
    return list(dict.fromkeys(row["phase"] for row in rows))


def settings_digest(settings: dict[str, Any]) -> str:
    """Of the recipe sections in config.json: the same for all methods of one grid whose data fit into the pool."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGITS]


def settings_file(folder: Path, digest: str) -> Path:
    """Where evidence keeps the settings that its rows name by their digest."""
    return folder / f"settings-{digest}.json"


def settings_of(paths: Sequence[Path], records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """By their digest, the settings of records as far as run folders or files beside their evidence tell them.

    UserError when a file holds other settings than its name says.
    """
    runs = [Run(path) for path in paths if path.suffix != ".csv"]
    of_runs = [run.config["settings"] for run in runs if run.exists and run.trains]
    known = {settings_digest(settings): settings for settings in of_runs}
    folders = {path.parent for path in paths if path.suffix == ".csv"}
    unknown = {record.settings for record in records} - known.keys()
    for path in (settings_file(folder, digest) for folder in folders for digest in unknown):
        if path.is_file():
            settings = files.read_json(path)
            digest = settings_digest(settings)
            if path != settings_file(path.parent, digest):
                raise UserError(f"{path}: not the settings that its name says; restore it, or remove it")
            known[digest] = settings
    return known


def _constants(run: Run) -> Record:
    saved, finished = run.config, run.finished or {}
    code = saved["code"]
    return Record(
        run=run.name,
        env=saved["env"],
        slice=saved["slice"],
        dataset=saved["dataset"]["digest"][:DIGITS],
        method=_method(saved),
        label_frac=saved["label_frac"],
        label_seed=None if saved["oracle"] or saved["label_frac"] is None else saved["label_seed"],
        seed=saved["seed"],
        labeled=saved["labeled"],
        settings=settings_digest(saved["settings"]),
        code=code and code[:DIGITS] + ("+" if code.endswith("+") else ""),
        state=STOPPED if run.stopped else "finished" if finished else "unfinished",
        seconds=finished.get("seconds"),
        memory_mb=finished.get("memory_mb"),
        beside=finished.get("seeds"),
    )


def _method(saved: dict[str, Any]) -> str:
    """As `Record.method`."""
    prior = saved["settings"]["model"]["prior"]
    learns_a_model = saved["method"].removeprefix("idm-") in ("lawm", "clap")
    oracle = ORACLE if saved["oracle"] else ""
    return saved["method"] + oracle + (f" {prior}-prior" if prior and learns_a_model else "")


def _scored(path: Path, policy: str, phases: list[str]) -> Evaluation | None:
    """What `lawm-train evaluate` found; None for an agent whose phase has not begun."""
    score = Score.of(path, policy)
    if score is None or score.phase >= len(phases):
        return None
    if policy == "agent" and phases[score.phase] in (IDM_PHASE, PRIOR_PHASE):
        return None
    return Evaluation(phases[score.phase], score.update, _rounded(score.returns))


def _is_before(one: Evaluation, others: Iterable[Evaluation], phases: list[str]) -> bool:
    """Whether it is of an earlier checkpoint than one of the others."""
    return any((phases.index(one.phase), one.update) < (phases.index(a.phase), a.update) for a in others)


def _rounded(returns: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in returns)


def _check_given_once(records: Iterable[Record]) -> None:
    seen = set()
    for record in records:
        key = (record.run, record.method, record.training)
        if key in seen:
            raise UserError(f"{record.run} ({record.method}) is given twice; name each run, or its evidence, once")
        seen.add(key)
