"""A trained policy on the Hub: pushed by one process, loaded by another without the workspace, the same to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from processes import python
from test_train import SETTINGS

from lawm_data import config, files
from lawm_data.errors import UserError
from lawm_data.runs import Position, Run
from lawm_train import policy, pretrained, results, share, stream, train
from lawm_train.policy import Policy
from lawm_train.record import Evaluation, is_prior
from lawm_train.results import Score

REPO = "tester/policy"
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)  # [T, B, O]
ACT = """
import sys
import numpy as np
from lawm_data.errors import UserError
from lawm_train.policy import Policy
try:
    policy = Policy.from_pretrained(sys.argv[1])
except UserError as error:
    sys.exit(f"error: {error}")
policy.reset()
print(np.stack([policy(row) for row in np.load(sys.argv[2])]).tobytes().hex())
"""


@pytest.fixture(scope="module", params=["lawm", pytest.param("bc", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("workspace")
    make_dataset(root / "dataset", made_episodes(15))
    configs = config.load("cpu", SETTINGS, policy.SECTIONS, {})
    dataset = stream.open_dataset(str(root / "dataset"))
    return train.train(train.Job(dataset, "medium-replay", request.param, [0], configs, "cpu"), root / "runs")[0]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def actions(acting: Policy) -> np.ndarray:
    acting.reset()
    return np.stack([acting(row) for row in OBSERVATIONS])


def test_pushed_policy_acts_elsewhere_bit_for_bit(run: Run, hub: LoopbackHub, tmp_path: Path) -> None:
    hub.repositories.clear()
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    said = python(hub, "-m", "lawm_train.cli", "push", run.path, "--private", "--tag", "v1")
    assert said.returncode == 0, said.stderr
    repo = f"tester/lawm-{run.name}"
    repository = hub.repositories["models", repo]
    assert repository.private and repository.tags == {"v1": repository.branches["main"]}
    found = python(hub, "-c", ACT, f"{repo}@v1", tmp_path / "observations.npy", HF_HOME=str(tmp_path / "home"))
    assert found.stdout.strip() == actions(Policy.from_pretrained(run.path)).tobytes().hex(), found.stderr

    again = python(hub, "-m", "lawm_train.cli", "push", run.path)
    assert "no commit made" in again.stdout and len(repository.commits) == 2
    absent = python(hub, "-c", ACT, "tester/absent", tmp_path / "observations.npy")
    assert absent.stderr.splitlines()[-1].startswith("error: tester/absent: no such model")


def test_a_policy_takes_the_place_of_its_own_earlier_state_alone(run: Run, hub: LoopbackHub, tmp_path: Path) -> None:
    hub.repositories.clear()
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    files.write_json(other.path / "config.json", run.config | {"seed": 1})
    push = ("-m", "lawm_train.cli", "push", "--repo", REPO)
    assert python(hub, *push, run.path).returncode == 0
    refused = python(hub, *push, other.path)
    assert refused.stderr.strip() == f"error: {REPO}: holds a model of seed 0, not 1; name another with --repo"
    files.write_json(other.path / "config.json", run.config | {"label_frac": 0.5})
    assert " of label_frac 0.273, not 0.5; name another" in python(hub, *push, other.path).stderr
    assert len(hub.repositories["models", REPO].commits) == 2
    files.write_json(other.path / "config.json", run.config | {"code": "c" * 40})
    assert "commit" in python(hub, *push, other.path).stdout and len(hub.repositories["models", REPO].commits) == 3


def test_a_run_whose_name_no_repository_can_have_is_told_to_name_one(
    run: Run, hub: LoopbackHub, tmp_path: Path
) -> None:
    shutil.copytree(run.path, tmp_path / "läuft gut")
    refused = python(hub, "-m", "lawm_train.cli", "push", tmp_path / "läuft gut")
    says = "error: läuft gut: the Hub takes no such name for a repository; name one with --repo\n"
    assert (refused.returncode, refused.stderr) == (2, says)


def test_the_card_gives_a_score_of_the_very_checkpoint_or_none(run: Run, tmp_path: Path) -> None:
    """An interrupted training was evaluated before its last checkpoint."""
    cut = Run(shutil.copytree(run.path, tmp_path / "run"))
    rows = [row for row in run.metrics() if row["kind"] not in ("evaluate", "finished")]
    rows.append({"kind": "evaluate", "phase": rows[-1]["phase"], "update": run.newest.update - 1, "returns": [7.0]})
    (cut.path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def card() -> ModelCard:
        share.write(cut, tmp_path / "out", REPO)
        return ModelCard.load(tmp_path / "out" / "README.md")

    assert not card().data.eval_results and "7.0 | 1 |" in card().text
    assert f"after {run.newest.update} updates; its training has not ended" in card().text
    score = Score(**run.newest._asdict(), mean=9.0, std=0.0, returns=[9.0, 9.0])
    files.write_json(Score.file(cut.path, "agent"), asdict(score))
    (result,) = card().data.eval_results
    assert result.metric_value == 9.0 and "9.0 | 2 |" in card().text
    (record,) = [one for one in results.of_run(cut.path) if not is_prior(one.method)]
    assert [evaluation.mean for evaluation in record.evaluations] == [7.0, 9.0], "reports have it too"


def test_policy_carries_its_state_until_reset(run: Run) -> None:
    acting = Policy.from_pretrained(run.path)
    whole = actions(acting)
    assert whole.shape == (4, 3, 2) and whole.dtype == np.float32 and (np.abs(whole) <= 1).all()
    assert (actions(acting) == whole).all()
    act = policy.load(run, run.newest).policy()
    rows = (torch.from_numpy(row)[None] for row in OBSERVATIONS)
    by_hand = [act(row, torch.full((1, 3), step == 0))[0].detach().numpy() for step, row in enumerate(rows)]
    np.testing.assert_allclose(whole, np.stack(by_hand), rtol=1e-5, atol=1e-6)
    acting.reset()
    alone = np.stack([acting(row[1]) for row in OBSERVATIONS])
    np.testing.assert_allclose(alone, whole[:, 1], rtol=1e-5, atol=1e-6)
    backwards = OBSERVATIONS[0][::-1, ::-1]
    given = []
    for observation in (backwards, backwards.copy()):
        acting.reset()
        given.append(acting(observation))
    assert (given[0] == given[1]).all(), "however it lies in memory"
    with pytest.raises(ValueError, match="expected \\(5,\\)"):
        acting(np.zeros(4))
    acting.reset()
    kept = []
    for row in OBSERVATIONS:
        action = acting(row)
        kept.append(action.copy())
        action *= 100  # the caller's own
    assert (np.stack(kept) == whole).all()


@pytest.mark.parametrize(("part", "says"), [("sizes", "missing key 'action'"), ("dataset", "missing key 'digest'")])
def test_a_run_whose_settings_lack_a_part_is_one_line(run: Run, tmp_path: Path, part: str, says: str) -> None:
    cut = Run(tmp_path / run.name)
    shutil.copytree(run.path, cut.path)
    files.write_json(cut.path / "config.json", run.config | {part: {}})
    with pytest.raises(UserError, match=f"config.json.*{says}.* train the run again"):
        Policy.from_pretrained(cut.path)


def test_what_is_published_holds_nothing_of_this_machine(run: Run, tmp_path: Path) -> None:
    share.write(run, tmp_path, REPO)
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", pretrained.NAME, pretrained.TENSORS}
    for file in tmp_path.iterdir():
        assert str(run.path.parent).encode() not in file.read_bytes()
    published = safetensors.torch.load_file(tmp_path / pretrained.TENSORS)
    assert (
        0 < sum(x.numel() for x in published.values()) < sum(x.numel() for x in run.load(run.newest)[0].values()) / 2
    ), "the optimiser's moments stay at home"


def test_card_is_what_the_hub_expects(run: Run, tmp_path: Path) -> None:
    description = {
        **policy.export(run, tmp_path).description,
        "about": {"dataset": "org/data", "layout": [["state", 5]]},
    }
    points = [Evaluation("agent", update, (100.0, 300.0)) for update in (3, description["update"])]
    card = ModelCard(share.render(description, points, "org/policy"))
    data = card.data.to_dict()
    assert data["datasets"] == ["org/data"] and data["pipeline_tag"] == "reinforcement-learning"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("mean_reward", 200.0, "org/data")
    assert 'Policy.from_pretrained("org/policy")' in card.text and "@article" in card.text
    assert "3 trajectories\nhave actions (27.3% of all, label seed 0)" in card.text
    oracle = share.render({**description, "oracle": True, "label_frac": None}, points, "org/policy")
    assert "have actions (an oracle: the withheld ones were given back)" in oracle
    assert "from trajectories with few action labels" in card.text and "few action labels" not in oracle
    assert "`state` 5" in card.text and description["dataset"]["digest"] in card.text


def test_a_run_that_continues_from_the_hub_is_the_same_run(run: Run) -> None:
    """What a dataset is called is recorded and may change; its digest may not."""
    saved = run.config
    run.begin({**saved, "about": {"dataset": "org/elsewhere", "layout": []}})
    with pytest.raises(UserError, match="dataset.digest"):
        run.begin({**saved, "dataset": {**saved["dataset"], "digest": "other"}})


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def tensors(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace the tensors, with a right digest."""

    def attack(folder: Path) -> None:
        data = make((folder / pretrained.TENSORS).read_bytes())
        (folder / pretrained.TENSORS).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": 0}
        described(lambda value: value.update(tensors=entry))(folder)

    return attack


def described(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        value = json.loads((folder / pretrained.NAME).read_text())
        change(value)
        (folder / pretrained.NAME).write_text(json.dumps(value))

    return attack


def pickled(_: bytes) -> bytes:
    torch.save(Evil(), "evil.pt")
    return Path("evil.pt").read_bytes()


def wide(value: dict[str, Any]) -> None:
    value["settings"]["agent"]["bc"]["units"] = value["settings"]["model"]["deter"] = 10**6


def deep(value: dict[str, Any]) -> None:
    value["settings"]["agent"]["bc"]["layers"] = value["settings"]["model"]["layers"] = 10**9


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (tensors(pickled), "not readable as safetensors"),
        (tensors(lambda data: data[:100]), "not readable as safetensors"),
        (tensors(lambda data: (2**62).to_bytes(8, "little") + data[8:]), "not readable as safetensors"),
        (lambda folder: (folder / pretrained.TENSORS).write_bytes(b"other"), "not the file that policy.json"),
        *(
            (
                described(lambda value, bounds=bounds: value["about"].update(action_bounds=bounds)),
                "not those of 2 columns",
            )
            for bounds in ("abc", 3, [{}, {}], [[-1, 1]], [[-1, 1], [-1, "1"]])
        ),
        (described(wide), "tensors are not those"),
        (described(deep), "more layers than it has tensors"),
        (described(lambda value: value["sizes"].update(observation=10**12)), "sizes of observation"),
        (described(lambda value: value["sizes"].update(action="2")), "'action' is '2'"),
        (described(lambda value: value.update(method="os.system")), "unknown method 'os.system'"),
        (described(lambda value: value.update(settings={"model": {"deeter": 3}})), "model.deeter"),
        (described(lambda value: value.pop("seed")), "missing key 'seed'"),
        (lambda folder: (folder / pretrained.NAME).write_bytes(bytes(2 * 10**6)), "larger than 1 MB"),
    ],
)
def test_hostile_policy_is_refused_in_one_line(
    run: Run, tmp_path: Path, attack: Callable[[Path], None], named: str
) -> None:
    policy.export(run, tmp_path)
    attack(tmp_path)
    with pytest.raises(UserError, match=named) as refused:
        Policy.from_pretrained(tmp_path)
    assert str(refused.value).isprintable() and not Path("pwned").exists()


def test_a_damaged_download_is_fetched_again(run: Run, hub: LoopbackHub, tmp_path: Path) -> None:
    hub.repositories.clear()
    assert python(hub, "-m", "lawm_train.cli", "push", run.path, "--repo", REPO).returncode == 0
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    repository = hub.repositories["models", REPO]
    stored = hub.objects / repository.commits[repository.branches["main"]].files[pretrained.TENSORS].sha256
    good = stored.read_bytes()
    act = ("-c", ACT, REPO, tmp_path / "observations.npy")
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    said = python(hub, *act, HF_HOME=str(tmp_path / "home")).stderr.splitlines()[-1]
    assert said.startswith("error: tester/policy: policy.safetensors is not the file") and "run again" in said
    stored.write_bytes(good)
    found = python(hub, *act, HF_HOME=str(tmp_path / "home"))
    assert found.stdout.strip() == actions(Policy.from_pretrained(run.path)).tobytes().hex(), found.stderr


def test_a_card_says_that_the_agent_was_not_trained_yet(run: Run, tmp_path: Path) -> None:
    early, (phase, *_) = Run(tmp_path / "early"), results.phases_of(run.metrics())
    early.begin(run.config)
    early.log({"kind": "train", "phase": phase, "update": 4})
    early.save(Position(0, 4), *run.load(run.newest))
    share.write(early, tmp_path, REPO)
    said = "the agent's training has not begun" if phase == "model" else "its training has not ended"
    assert (
        f"after 4 updates; {'these are of its model, and ' * (phase == 'model')}{said}"
        in (tmp_path / "README.md").read_text()
    )


def test_an_extended_run_keeps_the_place_of_its_data_with_its_name(run: Run, tmp_path: Path) -> None:
    kept = Run(tmp_path / "kept")
    saved = {**run.config, "dataset": {**run.config["dataset"], "revision": "a" * 40}, "about": {"dataset": "org/a"}}
    kept.begin(saved)
    settings = json.loads(json.dumps(saved["settings"]))
    settings["train"]["updates"] += 5
    elsewhere = {**saved["dataset"], "revision": None}
    kept.begin({**saved, "settings": settings, "dataset": elsewhere, "about": {"dataset": None}}, "train.updates")
    assert kept.config == {**saved, "settings": settings}
