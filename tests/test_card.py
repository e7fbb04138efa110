"""The dataset card is what huggingface_hub and `datasets` understand, and says what a reader must know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import DatasetCard
from huggingface_hub.repocard import metadata_load
from test_split import made, store

from lawm_data import card, cli, shards
from lawm_data.manifest import Manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lawm")
    store(root, made(60, source="one"), credits="Someone, CC BY 4.0")
    answer = CliRunner().invoke(cli.main, ["split", "--root", str(root), "--label-frac", "0.1"])
    assert answer.exit_code == 0, answer.output
    return root / "dataset" / "custom-made"


def test_card_tools_of_the_hub_read_the_metadata(folder: Path) -> None:
    found = DatasetCard.load(folder / "README.md")
    assert metadata_load(folder / "README.md") == yaml.safe_load(found.data.to_yaml())
    assert found.data.task_categories == ["reinforcement-learning"] and found.data.size_categories == ["n<1K"]
    assert found.data.license == "other" and "latent-actions" in found.data.tags
    assert {config["config_name"] for config in found.data.configs} == {
        information["config_name"] for information in found.data.to_dict()["dataset_info"]
    }


def test_features_and_sizes_are_those_of_the_shards(folder: Path) -> None:
    assert datasets.Features.from_arrow_schema(shards.SCHEMA)._to_yaml_list() == card.features()
    manifest = Manifest.load(folder)
    for information in metadata_load(folder / "README.md")["dataset_info"]:
        name = information["config_name"]
        rows = {part["name"]: part["num_examples"] for part in information["splits"]}
        slice_name = name.removesuffix("-validation")
        for split, count in rows.items():
            assert count == sum(manifest.files[path].rows for path in manifest.slices[slice_name].splits[split])
        assert information["download_size"] == sum(part["num_bytes"] for part in information["splits"])


def test_plain_datasets_loads_and_verifies_every_config(folder: Path, tmp_path: Path) -> None:
    """Not streaming: `datasets` then compares the rows with the card's numbers."""
    for information in metadata_load(folder / "README.md")["dataset_info"]:
        loaded = datasets.load_dataset(str(folder), information["config_name"], cache_dir=str(tmp_path))
        assert {split: len(rows) for split, rows in loaded.items()} == {
            part["name"]: part["num_examples"] for part in information["splits"]
        }


def test_card_credits_the_sources_and_cites_the_paper(folder: Path) -> None:
    text = DatasetCard.load(folder / "README.md").text
    for words in ("Someone, CC BY 4.0", "@article{", "2512.10016", "o_0 --a_0--> o_1", "label seed 0", "returns.png"):
        assert words in text
    assert 'load_dataset("' in text and "lawm-train --hub-dataset" in text


@pytest.mark.parametrize(
    ("fraction", "share", "title", "ending", "overlap"),
    [
        (None, 1.0, "recorded trajectories", "world model.", False),
        (None, 0.1, "trajectories with few action labels", "world model: most come without their actions.", False),
        (0.9, 0.9, "recorded trajectories", "world model.", True),
        (0.1, 0.1, "trajectories with few action labels", "world model: most come without their actions.", True),
    ],
)
def test_the_introduction_says_what_the_label_fraction_makes_true(
    folder: Path, fraction: float | None, share: float, title: str, ending: str, overlap: bool
) -> None:
    one = Manifest.load(folder)
    (entry,) = one.slices.values()
    labeled = round(share * entry.statistics["episodes"])
    entry = replace(entry, statistics=entry.statistics | {"labeled": labeled})
    two = replace(one, label_fraction=fraction, slices={"medium-replay": entry, "medium": entry})
    text = DatasetCard(card.render(two)).text.lstrip()
    assert text.startswith(f"# custom:made: {title}\n") and f"learning a latent-action {ending}\n" in text
    assert ("most come without" in text) == (share == 0.1) and ("Slices overlap" in text) == overlap
    assert "Slices overlap" not in card.render(one), "of one slice there is no other"


@pytest.mark.parametrize(("env", "tagged"), [("custom:made", False), ("walker-walk", True)])
def test_only_a_simulator_s_data_are_tagged_with_it(folder: Path, env: str, tagged: bool) -> None:
    page = DatasetCard(card.render(replace(Manifest.load(folder), env=env)))
    assert ("dm_control" in page.data.tags) == tagged


@pytest.mark.parametrize("returns", [[1e8 + k * 1.5e-8 for k in range(3)], [0.0, 0.0], [-3.0], [1e20, 1e20]])
def test_returns_that_are_all_but_the_same_have_a_picture(returns: list[float]) -> None:
    assert card.figure({"medium": (returns, returns[:1])}).startswith(b"\x89PNG")
