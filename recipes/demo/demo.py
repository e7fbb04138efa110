"""make demo: from nothing to a trained latent-action policy, each step one of the commands that users type.

A policy search on cheetah-run is recorded, 10 of its trajectories keep their actions, the dataset goes to a Hub on this
machine, is streamed back, and LAWM, C-LAP and behaviour cloning learn from it. Four to ten minutes on two cores.
Cut it at any moment: run again, it continues. `--seed` sets the search, the draw of labels and the training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click

from lawm_data.manifest import Manifest
from lawm_train import report, results

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))  # the loopback Hub
ENV, REPO = "cheetah-run", "demo/lawm-cheetah"
METHODS = ("lawm", "clap", "bc")
RANDOM_EPISODES = 20


class Demo:
    """The commands, their folder and their environment."""

    def __init__(self, folder: Path, seed: int, hub: dict[str, str]):
        self.folder, self.seed = folder, seed
        self.environment = {**os.environ, **hub, "OMP_NUM_THREADS": "1", "MUJOCO_GL": "disable"}
        self.began = time.perf_counter()

    def start(self, *command: str, log: Path | None = None) -> subprocess.Popen:
        """Print a command as a user would type it, and start it; its output goes to `log` where given."""
        click.secho(f"\n[{time.perf_counter() - self.began:4.0f} s] $ {' '.join(command)}", bold=True)
        program = [sys.executable, *command[1:]] if command[0] == "python" else [_script(command[0]), *command[1:]]
        sink = open(log, "w") if log else None  # noqa: SIM115 (the process owns it)
        return subprocess.Popen(program, env=self.environment, stdout=sink, stderr=sink)

    def run(self, *command: str) -> None:
        _finish(self.start(*command), command)

    def make_data(self) -> None:
        """Record the search, import, split and push it."""
        search = self.folder / "search.hdf5"
        if not search.exists():
            self.run("python", str(HERE / "search.py"), "--out", str(search), "--seed", str(self.seed))
        root = ("--root", str(self.folder))
        self.run("lawm-data", "import", "d4rl", str(search), "--env", ENV, *root)
        self.run("lawm-data", "split", "--recipe", "demo", "--label-seed", str(self.seed), *root)
        self.run("lawm-data", "push", "--repo", REPO, *root)

    def train(self) -> list[Path]:
        """Train every method on what the Hub gives, two at a time; returns the run folders."""
        commands = {method: self._training(method) for method in METHODS}
        log = self.folder / "clap.log"
        beside = self.start(*commands["clap"], log=log)
        try:
            self.run(*commands["lawm"])
            self.run(*commands["bc"])
            click.echo(f"waiting for C-LAP ({log})")
            _finish(beside, commands["clap"])
        finally:
            beside.terminate()
        return [next((self.folder / method / "runs").glob("*")) for method in METHODS]

    def random_return(self) -> float:
        """Mean return of uniformly random actions."""
        root = ("--root", str(self.folder / "random"))
        self.run("lawm-data", "collect", "--env", ENV, "--policy", "random", "--episodes", str(RANDOM_EPISODES), *root)
        stats = subprocess.run(
            [_script("lawm-data"), "stats", "--json", *root], env=self.environment, capture_output=True, check=True
        )
        return json.loads(stats.stdout)["raw"][0]["mean"]

    def _training(self, method: str) -> tuple[str, ...]:
        seed, root = ("--first-seed", str(self.seed)), ("--root", str(self.folder / method))
        return ("lawm-train", "--hub-dataset", REPO, "--method", method, "--recipe", "demo", *seed, *root)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(folder: Path, seed: int) -> None:
    """Run the whole way once."""
    from loopback_hub import LoopbackHub

    folder.mkdir(parents=True, exist_ok=True)
    with LoopbackHub(folder / "hub") as hub:
        demo = Demo(folder, seed, hub.environment(home=folder.resolve() / "huggingface"))
        demo.make_data()
        runs = demo.train()
        random_return = demo.random_return()
    slice_ = Manifest.load(folder / "dataset" / ENV).slices["medium-replay"]
    click.echo("\n" + summary(runs, random_return, slice_.statistics, folder / "report"))
    click.echo(f"\n{time.perf_counter() - demo.began:.0f} s; curves: {folder / 'report' / 'curves.png'}")


def summary(runs: list[Path], random_return: float, statistics: dict[str, float], out: Path) -> str:
    """Write the report; the table of what a return of the last checkpoint is worth."""
    report.write(runs, out, reference=statistics["mean"])
    found, _ = results.gather(runs)
    labeled = int(statistics["labeled"])
    rows = [
        ("random actions", random_return),
        (f"mean of the data ({statistics['episodes']} episodes)", statistics["mean"]),
    ]
    names = {"bc": f"behaviour cloning, {labeled} labeled episodes", "clap": f"C-LAP, {labeled} labeled episodes"}
    names["lawm"] = f"LAWM, {labeled} labeled and {int(statistics['episodes']) - labeled} unlabeled episodes"
    for method, name in names.items():
        (run,) = [record for record in found if record.method == method]
        rows.append((name, run.last.mean))
    width = max(len(name) for name, _ in rows)
    lines = [f"{'cheetah-run':{width}}  return (of 1000)", *(f"{name:{width}}  {value:6.1f}" for name, value in rows)]
    return "\n".join(lines)


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _finish(process: subprocess.Popen, command: tuple[str, ...]) -> None:
    if process.wait():
        raise SystemExit(
            f"error: `{' '.join(command)}` exited with {process.returncode}; run make demo again to continue"
        )


if __name__ == "__main__":
    main()
