"""Laws of the settings: four layers in order, every value of its type, every error names its key and its place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from lawm_data import config
from lawm_data.errors import UserError


@dataclass(frozen=True)
class Clap:
    eps: float = 2.0
    horizon: int = 5


@dataclass(frozen=True)
class Agent:
    name: Literal["clap", "bc"] = "clap"
    clap: Clap = field(default_factory=lambda: Clap(horizon=7))
    lr: float = 3e-4
    sizes: tuple[int, ...] = (128, 128)
    betas: tuple[float, ...] = (0.9, 0.99)
    clip: float | None = 100.0
    joint: bool = False
    updates: int = 10


SECTIONS = {"agent": Agent}
RECIPES = Path(__file__).parent.parent / "recipes"


def recipe(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_each_layer_covers_the_one_below(tmp_path: Path) -> None:
    mine = recipe(tmp_path, "agent: {updates: 20, lr: 1, joint: true, clap: {eps: 4}}")
    flags = {"agent": {"updates": 40, "lr": None}}
    agent = config.load(mine, ["agent.updates=30", "agent.joint=false"], SECTIONS, flags)["agent"]
    assert agent == Agent(updates=40, lr=1.0, joint=False, clap=Clap(eps=4.0, horizon=7))


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("agent.lr=1e-4", "lr", 1e-4),
        ("agent.lr=1", "lr", 1.0),
        ("agent.clip=null", "clip", None),
        ("agent.clip=3", "clip", 3.0),
        ("agent.sizes=[3]", "sizes", (3,)),
        ("agent.betas=[0, 1]", "betas", (0.0, 1.0)),
        ("agent.name=bc", "name", "bc"),
        ("agent.clap.eps=1", "clap", Clap(1.0, 7)),
    ],
)
def test_values_take_the_type_of_the_field(tmp_path: Path, setting: str, key: str, value: object) -> None:
    found = getattr(config.load(recipe(tmp_path, ""), [setting], SECTIONS, {})["agent"], key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("agnet: {}", r"mine.yaml: unknown section 'agnet'; did you mean agent"),
        ("agent: {update: 3}", r"mine.yaml: unknown key 'agent.update'; did you mean updates"),
        ("agent: {clap: {epsilon: 3}}", r"unknown key 'agent.clap.epsilon'"),
        ("agent: {updates: true}", r"mine.yaml: agent.updates is True, expected a whole number"),
        ("agent: {updates: 1.5}", r"agent.updates is 1.5, expected a whole number"),
        ("agent: {updates: }", r"agent.updates is None"),
        ("agent: {joint: 1}", r"agent.joint is 1, expected true or false"),
        ("agent: {lr: fast}", r"agent.lr is 'fast', expected a finite number"),
        ("agent: {lr: true}", r"agent.lr is True"),
        ("agent: {lr: .nan}", r"agent.lr is nan"),
        ("agent: {clip: []}", r"agent.clip is \[\], expected a finite number or null"),
        ("agent: {sizes: 3}", r"agent.sizes is 3, expected a list of a whole number"),
        ("agent: {sizes: [a]}", r"agent.sizes is \['a'\]"),
        ("agent: {name: lawm}", r"agent.name is 'lawm', expected one of clap, bc"),
        ("agent: {clap: 3}", r"agent.clap is 3, expected keys and values"),
        ("agent: 3", r"agent is 3, expected keys and values"),
        ("[]", r"the recipe is \[\]"),
        ("agent: {", r"mine.yaml: not readable as YAML"),
    ],
)
def test_bad_recipe_is_one_line_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        config.load(recipe(tmp_path, text), [], SECTIONS, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("agent.updates", "--set agent.updates: expected SECTION.KEY=VALUE"),
        ("updates=3", "--set updates=3: expected SECTION.KEY=VALUE"),
        ("agent.updates=x", "--set agent.updates=x: agent.updates is 'x'"),
        ("agent.name=[", r"agent.name: '\[' is not a YAML value"),
        ("nobody.x=1", "unknown section 'nobody'"),
    ],
)
def test_bad_setting(tmp_path: Path, setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        config.load(recipe(tmp_path, ""), [setting], SECTIONS, {})


def test_sections_of_other_commands_are_left_unread(tmp_path: Path) -> None:
    mine = recipe(tmp_path, "collect: {anything: at all}\nagent: {updates: 2}")
    assert config.load(mine, [], SECTIONS, {})["agent"].updates == 2


def test_a_setting_that_the_command_does_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set train.what=3: this command does not read train, only agent"):
        config.load(recipe(tmp_path, ""), ["train.what=3"], SECTIONS, {})


@pytest.mark.parametrize(
    "value", ["2024-13-01", "1" * 5000, "9" * 400, "!!bool maybe", "!!timestamp x", "!!int ''", "[" * 2000]
)
def test_what_only_looks_like_a_date_or_a_number_is_one_line(tmp_path: Path, value: str) -> None:
    for given, settings in ((f"agent: {{lr: {value}}}", []), ("", [f"agent.lr={value}"])):
        with pytest.raises(UserError, match="not readable as YAML|--set agent.lr=|expected a finite number"):
            config.load(recipe(tmp_path, given), settings, SECTIONS, {})


def test_saved_settings_come_back(tmp_path: Path) -> None:
    loaded = config.load(recipe(tmp_path, "agent: {clip: null, sizes: [1, 2]}"), ["agent.clap.eps=1"], SECTIONS, {})
    saved = json.loads(json.dumps(config.as_dict(loaded)))
    assert saved == config.as_dict(loaded)
    assert config.from_dict(saved, SECTIONS, "config.json") == loaded


def test_recipe_by_name_and_by_path(tmp_path: Path) -> None:
    assert config.recipe_path("cpu").name == "cpu.yaml"
    mine = recipe(tmp_path, "")
    assert config.recipe_path(mine) == Path(mine)
    with pytest.raises(UserError, match="no recipe 'ppaer' .* did you mean paper"):
        config.recipe_path("ppaer")
    with pytest.raises(UserError, match="none.yaml: no such recipe file"):
        config.recipe_path("none.yaml")


def real_sections() -> dict[str, type]:
    from lawm_data import collect, slicing
    from lawm_train import grid, policy

    return {"collect": collect.Config, "split": slicing.Config, **policy.SECTIONS, "grid": grid.Config}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_recipes_fit_the_settings_of_every_command(name: str) -> None:
    sections = real_sections()
    assert set(sections) == set(config.SECTIONS)
    loaded = config.load(name, [], sections, {})
    assert config.from_dict(json.loads(json.dumps(config.as_dict(loaded))), sections, name) == loaded


def test_recipe_paper_is_the_papers() -> None:
    loaded = config.load("paper", [], real_sections(), {})
    assert (loaded["collect"].seeds, loaded["collect"].episodes) == (5, 3000)
    assert (loaded["split"].label_frac, loaded["split"].strict) == (0.05, True)
