"""`lawm-train bench` times a training's phases, counts their matrix products, and leaves a trace of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from given import dataset, file_size_limit
from loopback_hub import LoopbackHub
from processes import python
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lawm_data import config
from lawm_data.errors import UserError
from lawm_data.nets.blocks import MLP, Init
from lawm_data.nets.filtering import Filtering
from lawm_data.nets.rssm import RSSM
from lawm_train import bench, policy, stream, train
from lawm_train.job import Job
from lawm_train.methods import Phase

FOLDER = "lawm/dataset/custom-made"
SMALL = [
    "model.deter=8", "model.stoch=4", "model.embed=6", "model.hidden=6", "model.units=6", "model.latent_action=3",
    "agent.clap.updates=30", "agent.clap.units=6", "train.updates=20", "train.batch=4", "train.window=8",
    "train.joint=false",
]  # fmt: skip
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]
MODELS, ROWS = 2, 5


def small(method: str = "lawm", seeds: int = 1, *settings: str) -> bench.Training:
    dataset()
    opened = stream.open_dataset(FOLDER)
    configs = config.load("cpu", [*SMALL, *settings], policy.SECTIONS, {})
    return bench.Training(Job(opened, "medium-replay", method, range(seeds), configs, "cpu"), repeats=1)


def counted(action: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def weights_of(*modules: torch.nn.Module) -> int:
    """How many numbers multiply a row: biases [N, 1, F] do not."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.shape[1] > 1)


def test_command_prints_every_row_and_leaves_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset()
    with LoopbackHub(tmp_path / "hub") as hub:
        command = ("-m", "lawm_train.cli", "bench", FOLDER, "--seeds", "2", "--repeats", "1", *SETTINGS)
        said = python(hub, *command, "--profile", "trace.json")
    assert said.returncode == 0, said.stderr
    header, _, _, _, *rows = said.stdout.splitlines()
    assert "cores" in header and "torch threads" in header
    updates = [f"{name} update, 2 seeds side by side" for name in ("model", "agent")]
    named = [f"{update}{part}" for update in updates for part in ("", ": products", ": share of the floor")]
    named = ["matrix rate", *named, "20 model updates", "30 agent updates", "peak memory"]
    cells = [row.split(" | ") for row in rows if row.startswith("| ")]
    assert [cell[0].removeprefix("| ") for cell in cells] == named
    assert [cell[1].split()[-1] for cell in cells[:3]] == ["GFLOP/s", "ms", "GFLOP"]
    assert rows[-1].startswith("trace.json: ") and "ui.perfetto.dev" in rows[-1]
    events = json.loads(Path("trace.json").read_text())["traceEvents"]
    seen = {event["name"] for event in events if event.get("ph") == "X"}
    assert {"aten::baddbmm", "aten::bmm", "model update 0", "agent update 2"} <= seen
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "lawm", "trace.json"]


def test_a_layers_products_are_counted() -> None:
    """Two operations for each weight and row; backward as many for the weight, and again for the input if asked."""
    layers = MLP(Init(range(MODELS)), inputs=3, units=7, layers=1, outputs=4)
    x = torch.randn(MODELS, ROWS, 3)
    forward = 2 * MODELS * ROWS * (3 * 7 + 7 * 4)
    assert counted(lambda: layers(x)) == forward
    first = 2 * MODELS * ROWS * 3 * 7
    assert counted(lambda: layers(x).sum().backward()) == 3 * forward - first
    assert counted(lambda: layers(x.requires_grad_()).sum().backward()) == 3 * forward


def test_the_filters_own_node_is_counted_both_ways() -> None:
    """Its loop is an autograd.Function: what it multiplies, on the way back too, must not be missed."""
    steps = 6
    rssm = RSSM(Init(range(MODELS)), action=2, embed=5, deter=7, stoch=4, hidden=6)
    embed, noise = torch.randn(steps, MODELS, ROWS, 5, requires_grad=True), torch.randn(steps, MODELS, ROWS, 4)
    loop = Filtering(rssm, embed, torch.randn(steps - 1, MODELS, ROWS, 2), noise)
    found: list[Tensor] = []
    weights = weights_of(rssm.input, rssm.cell, rssm.posterior_head)
    assert counted(lambda: found.append(loop.states().feat)) == 2 * steps * ROWS * weights
    assert counted(lambda: found[0].sum().backward()) == 4 * steps * ROWS * weights


def test_products_of_an_update_grow_with_what_it_multiplies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flops = []
    for seeds, batch in ((1, 4), (1, 8), (2, 8)):
        training = small("bc", seeds, f"agent.bc.batch={batch}", "agent.bc.units=6")
        flops.append(training.cost(training.phases[0]).flop)
    assert flops[0] > 0 and flops == [flops[0], 2 * flops[0], 4 * flops[0]]


def test_the_floor_is_the_products_at_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    training = small()
    time, products, share = training.cost_rows(training.phases[0], bench.Cost(0.14, 3.5e9), rate=100e9)
    assert (time.figure, products.figure, share.figure) == ("140 ms", "3.5 GFLOP", "25.0%")


def test_time_is_of_one_update_and_steps_go_on() -> None:
    taken: list[int] = []
    phase = Phase("made", 100, lambda i: taken.append(i) or {}, None)  # type: ignore[func-returns-value]
    assert bench.seconds_per_update(phase, "cpu", updates=3, repeats=2) > 0
    assert taken == list(range(9))


def test_a_training_announces_the_time_of_all_its_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is one way to time a phase: the first line of a training tells what it gives for all its updates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        train, "seconds_per_update", lambda phase, *_, **__: {"model": 60.0, "agent": 120.0}[phase.name]
    )
    monkeypatch.setattr(train, "fit", lambda *_: None)
    train.train(small().job, Path("runs"))
    assert f"about {20 + 2 * 30:.1f} min" in capsys.readouterr().out


def test_a_trace_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    training = small()
    with file_size_limit(4000), pytest.raises(UserError, match=r"full\.json: no trace.* free some space"):
        training.trace(Path("full.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["lawm"]
