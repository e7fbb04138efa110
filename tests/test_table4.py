"""The paper's Table 4 beside ours, and Figure 3: in `stats`, in the card."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from given import run, succeed
from helpers import random_episode
from PIL import Image
from test_split import made, store

from lawm_data import slicing, statistics, table4
from lawm_data.episode import Episode
from lawm_data.store import Store


def walker(count: int) -> list[Episode]:
    return [random_episode(k, 30, 24, 6, env="walker-walk", mean_reward=k / 50) for k in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two datasets."""
    root = tmp_path_factory.mktemp("workspace")
    store(root, made(30))
    meta = {"layout": [["all", 24]], "action_size": 6, "repeat": 2, "collected": "", "credits": None, "slice": None}
    Store(root / "raw").create("walker-walk", "made", meta, walker(30))
    for env in ("walker-walk", "custom:made"):
        succeed(f"lawm-data split --root {root} --env {env} --label-frac 0.2 --set split.validation=0")
    return root


def test_every_slice_of_the_paper_lies_within_the_rule_that_cuts_it() -> None:
    for (env, name), values in table4.PAPER.items():
        row = dict(zip(table4.COLUMNS, values, strict=True))
        ordered = [row[key] for key in ("min", "p25", "median", "p75", "max")]
        assert ordered == sorted(ordered) and row["min"] <= row["mean"] <= row["max"], (env, name)
        rule = slicing.PAPER[env].get(name, slicing.Rule())
        assert rule.min_return is None or rule.min_return <= row["min"], (env, name)
        assert rule.max_return is None or row["max"] <= rule.max_return, (env, name)
    assert len(table4.PAPER) == 12


def test_difference_is_ours_minus_the_papers() -> None:
    ours = dict.fromkeys(table4.COLUMNS, 100.0)
    paper = table4.paper("hopper-stand", "medium-replay")
    assert paper is not None and table4.difference(ours, paper)["median"] == 90.8
    assert table4.difference(paper, paper) == dict.fromkeys(table4.COLUMNS, 0)
    assert table4.paper("walker-walk", None) is None is table4.paper("custom:made", "medium")


def test_stats_print_the_distance_to_table_4(root: Path) -> None:
    found = {row["env"]: row for row in json.loads(run(f"lawm-data stats --root {root} --json").stdout)["slices"]}
    assert found["custom:made"]["table4"] is None
    ours, paper = found["walker-walk"], found["walker-walk"]["table4"]
    assert paper == table4.paper("walker-walk", "medium-replay")
    below = run(f"lawm-data stats --root {root}").stdout.partition("minus the paper's Table 4\n")[2].splitlines()
    assert len(below) == 2 and below[0].split() == ["env", "slice", *table4.COLUMNS]
    differences = [f"{ours[key] - paper[key]:+.1f}" for key in table4.COLUMNS]
    assert below[1].split() == ["walker-walk", "medium-replay", *differences]


def test_the_raw_history_by_hand(tmp_path: Path) -> None:
    episodes = [episode if episode.order < 10 else episode.stripped() for episode in made(30)]
    store(tmp_path, episodes)
    (row,) = statistics.collect_stats(tmp_path)["raw"]
    returns = [episode.episode_return for episode in episodes]
    assert [row[key] for key in ("episodes", "with_actions", "steps")] == [30, 10, 30 * 30]
    last = {"mean": np.mean(returns), "min": min(returns), "max": max(returns), "last20": np.mean(returns[-20:])}
    assert {key: row[key] for key in last} == pytest.approx(last)


def test_the_card_shows_the_papers_row_beside_ours(root: Path) -> None:
    card = (root / "dataset/walker-walk/README.md").read_text()
    assert "| medium-replay, the paper's Table 4 | 2000 | 333.3 | 182.5 | 4.8 |" in card
    assert "| medium-replay, difference |  | -" in card
    assert "Table 4" not in (root / "dataset/custom-made/README.md").read_text()


def test_figure_3_has_a_row_of_histograms_a_dataset(root: Path) -> None:
    succeed(f"lawm-data stats --root {root} --figure two.png")
    assert Image.open("two.png").size == (400, 600)
    one = Image.open(BytesIO((root / "dataset/walker-walk/figures/returns.png").read_bytes()))
    assert one.size == (400, 300)
