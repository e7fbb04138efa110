"""Runs -> one table (scores of the last checkpoints), one CSV of every evaluation, one picture of the curves."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import policy
from lawm_train.evaluate import Evaluator, check_sizes

PRIOR_PHASE = "model"  # there the evaluated policy is the prior-policy control


class Point(NamedTuple):
    """One evaluation of one run."""

    env: str
    slice: str
    method: str
    seed: int
    labeled: int
    update: int
    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))


def points(paths: Iterable[Path]) -> list[Point]:
    """Every evaluation of every run, in order; the prior-policy control appears as a method of its own."""
    found = []
    for path in paths:
        run = Run(path)
        saved = run.config
        for row in run.metrics():
            if row["kind"] != "evaluate":
                continue
            method = saved["method"] + (" oracle" if saved.get("oracle") else "")
            method += " prior-policy" if row["phase"] == PRIOR_PHASE else ""
            place = saved["env"], saved["slice"], method, saved["seed"], saved["labeled"]
            found.append(Point(*place, row["update"], tuple(row["returns"])))
    return found


def table(found: Sequence[Point]) -> str:
    """Markdown: by method, the last evaluation of every seed, mean and standard deviation over seeds, last / best."""
    lines = [
        "| env | slice | method | labeled episodes | seeds | return, mean ± std over seeds | return / 10 | last / best "
        "| each seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (env, slice_name, method), curves in _by_method(found).items():
        last = np.array([curve[-1].mean for curve in curves])
        best = np.array([max(point.mean for point in curve) for curve in curves])
        spread = f" ± {last.std(ddof=1):.1f}" if len(last) > 1 else ""
        each = ", ".join(f"{value:.0f}" for value in last)
        labeled = curves[0][-1].labeled
        kept = last.mean() / best.mean() if best.mean() else 1.0
        lines.append(
            f"| {env} | {slice_name} | {method} | {labeled} | {len(last)} | {last.mean():.1f}{spread} "
            f"| {last.mean() / 10:.1f} | {kept:.2f} | {each} |"
        )
    return "\n".join(lines)


def write(paths: Sequence[Path], out: Path, reference: float | None = None) -> str:
    """Write OUT/scores.csv and OUT/curves.png and return the table. UserError when no run was evaluated yet.

    reference: a return to draw as a line, such as the data's mean.
    """
    found = points(paths)
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: nothing was evaluated yet; let the training finish")
    files.write_text(out / "scores.csv", as_csv(found))
    with files.new_file(out / "curves.png") as temporary:
        draw(found, temporary, reference)
    return table(found)


def as_csv(found: Iterable[Point]) -> str:
    """One row an evaluation: the columns of Point; returns separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*Point._fields[:-1], "mean", "returns"])
    for point in found:
        returns = " ".join(f"{value:.1f}" for value in point.returns)
        writer.writerow([*point[:-1], f"{point.mean:.2f}", returns])
    return text.getvalue()


def from_csv(path: Path) -> list[Point]:
    """The inverse of `as_csv`, to the printed decimal."""
    with open(path, newline="") as file:
        return [
            Point(
                row["env"],
                row["slice"],
                row["method"],
                int(row["seed"]),
                int(row["labeled"]),
                int(row["update"]),
                tuple(float(value) for value in row["returns"].split()),
            )
            for row in csv.DictReader(file)
        ]


def score(path: Path, episodes: int, policy_name: str = "agent") -> str:
    """Score a run's last checkpoint; keeps the returns in RUN/evaluation-<policy>.json and returns a line of text."""
    run = Run(path)
    saved = run.config
    if saved["repeat"] is None:
        raise UserError(f"{path}: {saved['env']} has no simulator here; act through lawm_train.policy in your own")
    check_sizes(str(path), saved["env"], saved["repeat"], saved["sizes"]["observation"], saved["sizes"]["action"])
    acting = policy.acting(policy.load(Run(path)), policy_name, str(path))
    own = Evaluator(saved["env"], saved["repeat"], 1, episodes).returns(acting)[0]
    mean, std = float(np.mean(own)), float(np.std(own))
    position = run.positions()[-1]
    row = {"phase": position.phase, "update": position.update, "mean": mean, "std": std, "returns": own}
    files.write_json(run.path / f"evaluation-{policy_name}.json", row)
    return f"{path}: return {mean:.1f} ± {std:.1f} over {episodes} episodes, return / 10 = {mean / 10:.1f}"


def _by_method(found: Iterable[Point]) -> dict[tuple[str, str, str], list[list[Point]]]:
    """Curves of each (env, slice, method), one a seed."""
    runs: dict[tuple[str, str, str], dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in found:
        runs[point.env, point.slice, point.method][point.seed].append(point)
    return {key: list(seeds.values()) for key, seeds in runs.items()}


def draw(found: Sequence[Point], path: Path, reference: float | None = None) -> None:
    """A PNG of the curves; the same points give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for color, ((env, slice_name, method), curves) in enumerate(_by_method(found).items()):
        updates = sorted({point.update for curve in curves for point in curve})
        at = {u: [p.mean for curve in curves for p in curve if p.update == u] for u in updates}
        means = [float(np.mean(at[u])) for u in updates]
        share = [100 * u / updates[-1] for u in updates]  # methods count their updates differently
        label = f"{method} ({env} {slice_name})"
        if len(updates) == 1:
            axes.axhline(means[0], color=f"C{color}", linestyle=":", label=label)
            continue
        axes.plot(share, means, color=f"C{color}", marker=".", label=label)
        low, high = [min(at[u]) for u in updates], [max(at[u]) for u in updates]
        axes.fill_between(share, low, high, color=f"C{color}", alpha=0.2)
    if reference is not None:
        axes.axhline(reference, color="gray", linestyle="--", label="data mean")
    axes.set(xlabel="share of the training (%)", ylabel="return, mean and range over seeds")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png", metadata={"Software": None})
    plt.close(figure)
