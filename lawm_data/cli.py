"""lawm-data: collect, import, split, verify and publish datasets. Each command is a thin shell over a function."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from lawm_data import config, files
from lawm_data.errors import UserError, memory_errors


class Commands(click.Group):
    """A group that prints a UserError, or what a file system refuses, as one line and exits with 2.

    A batch system's SIGTERM and a closed terminal end it as Ctrl-C does, with 128 + the signal's number.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _signals_as_interrupts(), memory_errors():
                return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except OSError as error:
            if error.filename is None and error.errno != errno.ENOSPC:
                raise
            place = error.filename or "standard output"  # a full disk is told of files by `files.user_errors`
            click.echo(f"error: {place}: {error.strerror}; check this path", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            click.echo("\ninterrupted: run the same command again to continue", err=True)
            ctx.exit(128 + (error.args or [signal.SIGINT])[0])


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored (as by nohup)."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="LAWM_ROOT",
    default=files.WORKSPACE,
    show_default=True,
    help="workspace folder: raw/ dataset/ runs/ [env LAWM_ROOT]",
)
recipe_option = click.option(
    "--recipe", default="cpu", show_default=True, help="a name (cpu, paper, dev, demo) or a file"
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="a setting of the recipe, in YAML"
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lawm")
def main() -> None:
    """Make datasets for latent-action world models: collect or import, split, push."""


@main.command()
@click.option("--env", required=True, help="dm_control task as domain-task, e.g. cheetah-run")
@click.option(
    "--policy", type=click.Choice(["dreamer", "plan2explore", "random"]), help="who acts [default: the recipe's]"
)
@click.option("--seeds", type=click.IntRange(1), help="collectors, with seeds 0, 1, ... [default: the recipe's]")
@click.option("--episodes", type=click.IntRange(1), help="episodes each [default: the recipe's]")
@click.option("--tensorboard", is_flag=True, default=None, help="write TensorBoard events beside metrics.jsonl")
@click.option("--top-up", type=click.Choice(["medium", "expert"]), help="fill this slice's quota with kept policies")
@recipe_option
@set_option
@root_option
def collect(env: str, top_up: str | None, recipe: str, settings: tuple[str, ...], root: Path, **flags: Any) -> None:
    """Record trajectories of a task. Run it again to continue after an interruption."""
    from lawm_data import collect as collecting
    from lawm_data import slicing, topup

    given = [f"--{name}" for name, value in flags.items() if value is not None]
    if top_up and given:
        raise UserError(f"--top-up rolls out what `collect` kept, so {given[0]} says nothing; leave it out")
    sections = {"split": slicing.Config} if top_up else {"collect": collecting.Config}
    settings_of = config.load(recipe, settings, sections, {"collect": flags})
    with files.lock(root):
        if top_up:
            topup.top_up(root, env, top_up, settings_of["split"])
        else:
            asked = settings_of["collect"]
            click.echo(f"recipe {recipe}, policy {asked.policy}, {asked.seeds} x {asked.episodes} episodes of {env}")
            collecting.collect(root, env, asked)


@main.command("import")
@click.argument("format_", metavar="FORMAT")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--env", required=True, help="domain-task, or custom:NAME for data that no simulator here makes")
@click.option("--slice", "slice_", help="make these episodes that slice, whole (e.g. plan2explore)")
@click.option("--repeat", type=click.IntRange(1), help="control steps to a recorded step, of a task [default: 2]")
@click.option("--only", default=":", metavar="FIRST:STOP", help="which episodes, from 0 [default: all]")
@click.option("--skip-bad", is_flag=True, help="leave out episodes that cannot be used (NaN, actions beyond [-1, 1])")
@click.option("--credit", help="whom the dataset card is to credit, and on what terms")
@root_option
def import_(format_: str, paths: tuple[Path, ...], env: str, slice_: str | None, root: Path, **options: Any) -> None:
    """Import recorded trajectories: FORMAT is aime, d4rl, laom, lerobot or minari; PATHS are files, zips or folders."""
    from lawm_data import importers

    with files.lock(root):
        importers.run(format_, list(paths), env, root / "raw", slice_, **options)


@main.command()
@click.option("--env", help="which task [default: the only one in the workspace]")
@click.option(
    "--label-frac",
    type=float,
    help="fraction of trajectories that keep their actions [default: the recipe's; cpu: all keep theirs]",
)
@click.option("--label-seed", type=int, help="seed of the draw of labeled trajectories [default: the recipe's]")
@click.option("--strict", is_flag=True, default=None, help="a slice short of its quota is an error")
@click.option("--out", type=click.Path(path_type=Path), help="write this folder [default: ROOT/dataset/ENV]")
@recipe_option
@set_option
@root_option
def split(env: str | None, out: Path | None, recipe: str, settings: tuple[str, ...], root: Path, **flags: Any) -> None:
    """Cut the raw history into slices, strip the actions of all but a few, write shards, manifest and card."""
    from lawm_data import slicing, splitting

    settings_of = config.load(recipe, settings, {"split": slicing.Config}, {"split": flags})
    # with --out, recordings that may only be read can be split: nothing writes there that a lock would keep out
    locked = out is None or files.is_writable(root / ".lock")
    with files.lock(root) if locked else nullcontext():
        splitting.split(root, env, settings_of["split"], out)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--figure", type=click.Path(path_type=Path), help="draw the histograms of the returns into this PNG")
@root_option
def stats(as_json: bool, figure: Path | None, root: Path) -> None:
    """What the workspace holds: raw history, and the slices with their return statistics."""
    from lawm_data import statistics

    if figure and figure.suffix != ".png":
        raise UserError(f"--figure {figure}: expected a name that ends in .png")
    found = statistics.collect_stats(root)
    if figure:
        statistics.draw(root, figure)
        click.echo(f"{figure}: drawn", err=True)
    click.echo(json.dumps(found, indent=2) if as_json else statistics.as_text(found, root))


@main.command()
@click.argument("episode_id", required=False)
@click.option("--env", help="which task [default: the only one in the workspace]")
@click.option("--video", is_flag=True, help="film the episode, replayed in the simulator (GIF)")
@click.option(
    "--out", type=click.Path(path_type=Path), help="write this file [default: in ROOT/figures, named after the episode]"
)
@root_option
def show(episode_id: str | None, env: str | None, video: bool, out: Path | None, root: Path) -> None:
    """Draw an episode, ENV/SOURCE/SEED/ORDER: observations, actions, rewards over time. Without a name: the best."""
    from lawm_data import show as showing

    showing.show(root, episode_id, env, video=video, out=out)


@main.command()
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option("--env", help="which task [default: the only one in the workspace]")
@root_option
def verify(dataset: Path | None, env: str | None, root: Path) -> None:
    """Check a dataset folder: every digest, every row, nothing missing, nothing extra."""
    from lawm_data import shards

    folder = _place(dataset, env, root)
    checked = shards.verify(folder)
    click.echo(f"{folder}: verified, {checked}")


@main.command()
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option("--env", help="which task [default: the only one in the workspace]")
@click.option(
    "--repo",
    help="e.g. org/lawm-walker [default: YOUR_NAME/lawm-DOMAIN, of other tasks than the paper's lawm-DOMAIN-TASK]",
)
@click.option("--private", is_flag=True, help="create the repository private")
@click.option("--tag", help="tag the commit, e.g. v1")
@click.option("--with-actions", is_flag=True, help="publish the withheld actions too")
@root_option
def push(
    dataset: Path | None,
    env: str | None,
    repo: str | None,
    private: bool,
    tag: str | None,
    with_actions: bool,
    root: Path,
) -> None:
    """Publish a dataset folder, by default that of the workspace, to the Hugging Face Hub in one commit."""
    from lawm_data import publish

    folder = _place(dataset, env, root)
    workspace = root if dataset is None else files.workspace_of(dataset)
    locked = workspace is not None and files.is_writable(workspace / ".lock")  # else nobody writes there meanwhile
    with files.lock(workspace) if workspace and locked else nullcontext():
        publish.push(folder, repo, private=private, tag=tag, with_actions=with_actions)


@main.command()
@click.argument("dataset", required=False, type=click.Path(path_type=Path))
@click.option("--env", help="which task [default: the only one in the workspace]")
@click.option("--slice", "slice_", help="[default: medium-replay, or the only one there]")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="of each measurement")
@root_option
def bench(dataset: Path | None, env: str | None, slice_: str | None, repeats: int, root: Path) -> None:
    """Measure how fast DATASET, a folder or org/name on the Hub, is fetched, read and cut into windows."""
    from lawm_data import bench as measuring

    click.echo(measuring.bench(str(_place(dataset, env, root)), slice_, repeats))


def _place(dataset: Path | None, env: str | None, root: Path) -> Path:
    """`dataset`, or else the workspace's dataset of `env`; UserError where both are given."""
    from lawm_data import manifest

    if dataset is not None and env is not None:
        raise UserError(f"{dataset} is one dataset, so --env {env} says nothing; leave one of them out")
    return dataset or manifest.find(root / "dataset", env)


if __name__ == "__main__":
    main()
