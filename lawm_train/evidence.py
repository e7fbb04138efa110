"""What reports are made of: a run's evaluations with what they depend on, read from run folders or from CSV files.

The CSV of a run is its evidence: small enough to keep beside the tables, which are made from nothing else.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.manifest import folder_name
from lawm_data.parsing import parse
from lawm_data.runs import Run

MOST_BYTES = 50_000  # of one run's evidence
PRIOR_PHASE = "model"  # there the evaluated policy is the prior-policy control
ORACLE = " oracle"  # in the name of a method with all actions; behind it ` <kind>-prior` and PRIOR may stand
PRIOR = " prior-policy"
DIGITS = 12  # of each digest and commit
STOPPED = "stopped"  # the state of a seed that diverged
STATES = (STOPPED, "finished", "unfinished")
NO_SIMULATOR = "no simulator here made their data, so none has a score; act through lawm_train.policy in your own"


def default_name(env: str, slice_name: str, method: str, oracle: bool, redrawn: float | None = None) -> str:
    """What runs are called but for their seed: `walker-walk-medium-replay-td3bc-oracle`.

    redrawn: the fraction of labels, where it is not the dataset's own.
    """
    name = f"{folder_name(env)}-{slice_name}-{method}{'-oracle' if oracle else ''}"
    return name if redrawn is None else f"{name}-frac{redrawn:g}"


class Evaluation(NamedTuple):
    """Raw returns of one evaluation, to the decimal that is printed."""

    phase: str
    update: int
    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.returns)


@dataclass(frozen=True)
class Record:
    """The evaluations of one policy of one run; its prior-policy control is a record, and a method, of its own.

    method: as in the recipes, with ` oracle`, ` <kind>-prior` or ` prior-policy` behind; label_seed: None for an
    oracle; dataset, settings: digests; state: finished, stopped or unfinished; seconds and memory_mb: of the process,
    which trained `beside` seeds, None until it is finished. Without evaluations only where a seed was stopped before
    its first.
    """

    run: str
    env: str
    slice: str
    dataset: str
    method: str
    label_frac: float | None
    label_seed: int | None
    seed: int
    labeled: int
    settings: str
    code: str | None
    state: str
    seconds: float | None
    memory_mb: int | None
    beside: int | None
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def series(self) -> str:
        """The part of its name that runs share which differ by their seed alone."""
        return self.run.removesuffix(f"-s{self.seed}")

    @property
    def has_default_name(self) -> bool:
        """Whether it is called so; settings that were tried have names of their own."""
        method, oracle = self.method.split()[0], ORACLE in self.method
        names = [default_name(self.env, self.slice, method, oracle, share) for share in (None, self.label_frac)]
        return self.series in names

    @property
    def last(self) -> Evaluation:
        return self.evaluations[-1]

    @cached_property
    def best(self) -> Evaluation:
        return max(self.evaluations, key=lambda evaluation: evaluation.mean)

    @property
    def kept(self) -> float:
        """Last / best."""
        return self.last.mean / self.best.mean if self.best.mean else 1.0


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


CONSTANT = tuple(field.name for field in fields(Record) if field.name != "evaluations")
EVALUATED = ("phase", "update", "mean", "returns")  # empty where a seed was stopped before its first evaluation
COLUMNS = (*CONSTANT, *EVALUATED)


def gather(paths: Iterable[Path]) -> tuple[list[Record], dict[str, list[Path]]]:
    """Records of run folders and evidence files in the order given, and by reason the runs that have none.

    UserError when a run is given twice.
    """
    records: list[Record] = []
    without: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix == ".csv":
            records += from_csv(path)
        elif not Run(path).trains:
            without.setdefault("collectors have no score", []).append(path)
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


def is_prior(method: str) -> bool:
    """Whether it is a prior-policy control."""
    return method.endswith(PRIOR)


def write(records: Sequence[Record], folder: Path) -> None:
    """FOLDER/<run>.csv for each run among the records, in the place of what is there of the same run.

    UserError when one is too large to keep, two share a name, or a file holds evaluations that would be lost.
    """
    by_run: dict[str, list[Record]] = {}
    for record in records:
        own = by_run.setdefault(record.run, [])
        own.append(record)
        if (record.dataset, record.settings) != (own[0].dataset, own[0].settings):
            raise UserError(f"{record.run}: two runs have this name; keep their evidence in two folders")
    texts = {folder / f"{run}.csv": as_csv(own) for run, own in by_run.items()}
    for run, own in by_run.items():
        _check_kept(folder / f"{run}.csv", own)
    for path, text in texts.items():
        if len(text) > MOST_BYTES:
            raise UserError(f"{path}: {len(text)} bytes of evaluations, at most {MOST_BYTES}; evaluate less often")
    for path, text in texts.items():
        files.write_text(path, text)


def _check_kept(path: Path, records: Sequence[Record]) -> None:
    """A run that went on for longer has other settings, and all that was evaluated before; in the place of the score of
    what was its last checkpoint stands the evaluation while training.
    """
    run, now = records[0], {evaluation for record in records for evaluation in record.evaluations}
    kept = from_csv(path) if path.exists() else []
    more = len(now) > sum(len(old.evaluations) for old in kept)
    for old in kept:
        same = (old.dataset, old.settings) == (run.dataset, run.settings)
        whose = (old.dataset, old.label_seed, old.seed) == (run.dataset, run.label_seed, run.seed)
        held = now.issuperset(old.evaluations[:-1]) and {one[:2] for one in old.evaluations} <= {one[:2] for one in now}
        if not same and not (more and whose and held):
            what = f"another run of this name (dataset {old.dataset}, settings {old.settings})"
            raise UserError(f"{path}: holds {what}; keep this one's evidence in another folder")


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
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("no row")
        records: dict[tuple[str, ...], Record] = {}
        for row in rows:
            key = (row["run"], row["method"], row["dataset"], row["settings"])
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


def settings_digest(settings: dict[str, Any]) -> str:
    """Of the recipe sections in config.json: the same for all methods of one grid whose data fit into the pool."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:DIGITS]


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
        label_seed=None if saved["oracle"] else saved["label_seed"],
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
    prior = saved["settings"]["model"]["prior"]
    learns_a_model = saved["method"].removeprefix("idm-") in ("lawm", "clap")
    return saved["method"] + ORACLE * saved["oracle"] + (f" {prior}-prior" if prior and learns_a_model else "")


def _scored(path: Path, policy: str, phases: list[str]) -> Evaluation | None:
    """What `lawm-train evaluate` found; None for an agent whose phase has not begun."""
    score = Score.of(path, policy)
    if score is None or score.phase >= len(phases) or (policy == "agent" and phases[score.phase] == PRIOR_PHASE):
        return None
    return Evaluation(phases[score.phase], score.update, _rounded(score.returns))


def _is_before(one: Evaluation, others: Iterable[Evaluation], phases: list[str]) -> bool:
    """Whether it is of an earlier checkpoint than one of the others."""
    return any((phases.index(one.phase), one.update) < (phases.index(a.phase), a.update) for a in others)


def _parsed(row: dict[str, str]) -> Record:
    if not row["method"].strip() or row["state"] not in STATES:
        raise ValueError(f"method {row['method']!r} in state {row['state']!r}")
    kinds = get_type_hints(Record)
    return Record(**{name: _value(row[name], kinds[name]) for name in CONSTANT})


def _value(text: str, kind: Any) -> Any:
    """A field in its type, None where it is empty and may be."""
    kinds = get_args(kind) or (kind,)
    return None if not text and NoneType in kinds else kinds[0](text)


def _rounded(returns: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in returns)


def _check_given_once(records: Iterable[Record]) -> None:
    seen = set()
    for record in records:
        key = (record.run, record.method, record.dataset, record.settings)
        if key in seen:
            raise UserError(f"{record.run} ({record.method}) is given twice; name each run, or its evidence, once")
        seen.add(key)
