"""lawm-train: train on a published dataset or a folder, evaluate, diagnose, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lawm_data import config, files
from lawm_data.cli import Commands, recipe_option, root_option, set_option
from lawm_data.errors import UserError


class DefaultTrain(Commands):
    """`lawm-train --hub-dataset ...` means `lawm-train train --hub-dataset ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--version"):
            args = ["train", *args]
        return super().parse_args(ctx, args)


SEED = click.IntRange(0, 2**62)  # the seeds that follow it stay within 64 bits


class LabelSeed(click.ParamType):
    """A whole number, or `own`."""

    name = "SEED|own"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name  # click prints names in capitals, and OWN is none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "own" else SEED.convert(value, param, ctx)


runs_argument = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group(cls=DefaultTrain, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lawm")
def main() -> None:
    """Learn control from trajectories with few action labels. Without a command: train."""


@main.command()
@click.option("--hub-dataset", required=True, help="org/name[@revision] on the Hub, or a dataset folder")
@click.option("--slice", "slice_", help="[default: medium-replay, or the only one there]")
@click.option("--method", default="lawm", show_default=True, help="lawm, clap, td3bc, bc, idm-td3bc or idm-clap")
@click.option("--oracle", is_flag=True, help="give back the withheld actions: every episode counts as labeled")
@click.option("--label-frac", type=float, help="draw the labels anew, this fraction [default: the dataset's]")
@click.option("--label-seed", type=LabelSeed(), help="draw the labels anew; own: each run by its training seed")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="how many, trained side by side")
@click.option("--first-seed", type=SEED, default=0, show_default=True)
@click.option("--pool-gb", type=float, help="of trajectories in memory; more are read in turns [default: the recipe's]")
@click.option(
    "--name", help="run folders are ROOT/runs/NAME-s0, ... [default: ENV-SLICE-METHOD, with labels drawn anew -fracF]"
)
@recipe_option
@set_option
@root_option
def train(
    hub_dataset: str,
    slice_: str | None,
    method: str,
    oracle: bool,
    label_frac: float | None,
    label_seed: Any,
    seeds: int,
    first_seed: int,
    pool_gb: float | None,
    name: str | None,
    recipe: str,
    settings: tuple[str, ...],
    root: Path,
) -> None:
    """Train a method. Run it again to continue after an interruption."""
    from lawm_train import methods, policy, stream
    from lawm_train import train as training
    from lawm_train.data import Labels
    from lawm_train.job import Job

    labels = Labels(oracle, label_frac, label_seed)
    methods.check(method, labels)  # what is wrong is told before anything is fetched
    configs = config.load(recipe, settings, policy.SECTIONS, {"train": {"pool_gb": pool_gb}})
    dataset = stream.open_dataset(hub_dataset)
    chosen = dataset.choose_slice(slice_)
    job = Job(dataset, chosen, method, range(first_seed, first_seed + seeds), configs, recipe, labels)
    with files.lock(root):
        runs = training.train(job, root / "runs", name)
    stopped = [training.why_stopped(run) for run in runs if run.stopped]
    if len(stopped) < len(runs):
        click.echo("done: " + " ".join(str(run.path) for run in runs if not run.stopped))
    for line in stopped:
        click.echo(line, err=True)
    if stopped:
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("dataset")
@click.option("--slice", "slice_", help="[default: medium-replay, or the only one there]")
@click.option("--method", default="lawm", show_default=True, help="as of a training")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="how many, side by side")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="of each measurement")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="trace a few updates of each phase into this .json",
)
@recipe_option
@set_option
def bench(
    dataset: str,
    slice_: str | None,
    method: str,
    seeds: int,
    repeats: int,
    profile: Path | None,
    recipe: str,
    settings: tuple[str, ...],
) -> None:
    """Measure how fast this machine trains on DATASET, a folder or org/name on the Hub. Nothing is kept."""
    from lawm_train import bench as measuring
    from lawm_train import methods, policy, stream
    from lawm_train.data import Labels
    from lawm_train.job import Job

    methods.check(method, Labels())
    if profile:
        measuring.check_trace(profile)
    configs = config.load(recipe, settings, policy.SECTIONS, {})
    opened = stream.open_dataset(dataset)
    job = Job(opened, opened.choose_slice(slice_), method, range(seeds), configs, recipe)
    training = measuring.Training(job, repeats)
    click.echo(training.table())
    if profile:
        training.trace(profile)
        click.echo(f"{profile}: {measuring.PROFILED} updates of each phase; ui.perfetto.dev opens it")


@main.command()
@click.argument("recipe")
@click.option("--hub-dataset", "datasets", multiple=True, help="in place of the recipe's grid.datasets; repeatable")
@click.option("--name", help="behind the name of each run, e.g. eps05: for settings beside those that ran before")
@set_option
@root_option
def grid(recipe: str, datasets: tuple[str, ...], name: str | None, settings: tuple[str, ...], root: Path) -> None:
    """Run the cells of RECIPE's `grid` section: skip what is done, continue what was cut, go on after a failure."""
    from lawm_train import grid as running
    from lawm_train import policy

    sections = {**policy.SECTIONS, "grid": running.Config}
    configs = config.load(recipe, settings, sections, {"grid": {"datasets": datasets or None}})
    failed = running.run(configs.pop("grid"), configs, recipe, root, name)
    for line in failed:
        click.echo(line, err=True)
    if failed:
        raise click.exceptions.Exit(1)


@main.command()
@runs_argument
@click.option("--episodes", type=click.IntRange(1), default=100, show_default=True)
@click.option("--policy", type=click.Choice(["agent", "prior"]), default="agent", show_default=True)
def evaluate(runs: tuple[Path, ...], episodes: int, policy: str) -> None:
    """Score the last checkpoint of RUNS: raw return and return / 10, mean and spread over episodes."""
    from lawm_train import scoring

    if _each(runs, lambda run: scoring.score(run, episodes, policy)):
        raise click.exceptions.Exit(2)


def _each(runs: tuple[Path, ...], tell: Callable[[Path], str]) -> bool:
    """Print what `tell` says of each run. One that fails is told and stops no other; returns whether any did.

    What is no run of lawm-train, which a pattern matches too, is left out where such runs are named.
    """
    from lawm_data.runs import why_unscored

    unscored = {run: why for run in runs if (why := why_unscored(run))}
    if len(unscored) < len(runs):
        for run, why in unscored.items():
            click.echo(f"left out, {why}: {run.name}", err=True)
        runs = tuple(run for run in runs if run not in unscored)
    failed = False
    for run in runs:
        try:
            click.echo(tell(run))
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            failed = True
    return failed


@main.command()
@runs_argument
@click.option("--hub-dataset", required=True, help="the dataset they were trained on, with its withheld actions")
@click.option("--out", type=click.Path(path_type=Path), help="a PNG of every figure with its bound")
def diagnose(runs: tuple[Path, ...], hub_dataset: str, out: Path | None) -> None:
    """Walk the ladder of diagnostics of RUNS; the first rung that fails names the culprit.

    Trains an inverse dynamics model with the labels of each LAWM run, as long as the run's settings say.
    """
    from lawm_data.runs import Run
    from lawm_train import diagnostics, stream
    from lawm_train import ladders as told

    if out and out.suffix != ".png":
        raise UserError(f"--out {out}: expected a name that ends in .png")
    dataset = stream.open_dataset(hub_dataset)
    ladders: told.Ladders = {}

    def walk(run: Path) -> str:
        name = Run(run).name
        if name in ladders:
            raise UserError(f"{run}: another run of this name is diagnosed; name one of them")
        ladders[name] = diagnostics.ladder(run, dataset)
        return told.as_text(run, ladders[name])

    failed = _each(runs, walk)
    if out and ladders:
        files.write_bytes(out, told.draw(ladders))
    if failed:
        raise click.exceptions.Exit(2)


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="a folder [default: report]")
@click.option(
    "--evidence", type=click.Path(path_type=Path), help="a folder; runs leave their evaluations and settings there"
)
@click.option("--tables", type=click.Path(path_type=Path), help="a Markdown file; make its tables anew")
@click.option("--of", "ours", metavar="METHOD", help="whose paired differences from the others [default: lawm]")
def report(
    runs: tuple[Path, ...], out: Path | None, evidence: Path | None, tables: Path | None, ours: str | None
) -> None:
    """Table 1 of RUNS beside the paper's, cells, paired differences, ladder and curves; files in --out.

    RUNS are run folders, or the CSV files that --evidence left of them.
    """
    from lawm_train import report as reporting

    if not runs and (not tables or out or evidence or ours):
        raise click.UsageError("Missing argument 'RUNS...', which all but --tables FILE needs")
    if runs:
        out, ours = out or Path("report"), ours or "lawm"
        click.echo(reporting.write(list(runs), out, keep=evidence, ours=ours), nl=False)
    if tables:
        reporting.update(tables)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--repo", help="e.g. org/lawm-walker-policy [default: YOUR_NAME/lawm-RUN]")
@click.option("--private", is_flag=True, help="create the repository private")
@click.option("--tag", help="tag the commit, e.g. v1")
def push(run: Path, repo: str | None, private: bool, tag: str | None) -> None:
    """Publish the last checkpoint of RUN as a policy on the Hugging Face Hub, in one commit."""
    from lawm_train import share

    share.push(run, repo, private=private, tag=tag)


if __name__ == "__main__":
    main()
