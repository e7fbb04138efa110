"""Settings come to the same where a method reads the same of them: its runs are one cell, with their own digests."""

from functools import reduce
from operator import getitem

import pytest
import torch
from click.testing import CliRunner
from made_runs import make_run, records, row
from test_train import final, job

from lawm_data import config, files
from lawm_data.errors import UserError
from lawm_train import alike, cells, cli, evidence, methods, policy, report, results, train

OLD = {"model": {"prior": None}, "agent": {"clap": {"eps": 2.0}, "bc": {"units": 8}}, "train": {"batch": 16}}
NEW = {
    "model": {"prior": None, "normalize": True},
    "agent": {"clap": {"eps": 2.0, "critics": 2}, "bc": {"units": 9}},
    "train": {"batch": 16},
}


def runs(folder, method, *settings):
    """One of each seed, with these settings in turn."""
    return [make_run(folder / f"{k}", method, k, [100.0 + k], settings=own) for k, own in enumerate(settings)]


def columns(paths):
    """By title, how many runs a column has."""
    made = records(paths)
    found = cells.of(alike.pooled(made, results.settings_of(paths, made)))
    return {column.title: len(cell.runs) for own in found.values() for column, cell in own.items()}


def test_what_a_version_did_not_know_and_what_a_method_does_not_read_keeps_no_runs_apart(tmp_path):
    paths = runs(tmp_path, "lawm", OLD, NEW)
    assert columns(paths) == {"LAWM": 2}
    report.write(paths, tmp_path / "out", keep=tmp_path / "kept")
    text = report.write([tmp_path / "kept"], tmp_path / "out")
    assert "| 2 | 1 | 100.5 ± 0.7 |" in row(text, "walker-walk", "LAWM", "100.5 ± 0.7", "2 |")


@pytest.mark.parametrize(("method", "wanted"), [("bc", {"BC": 2}), ("idm-td3bc", {"IDM-TD3+BC": 2})])
def test_how_often_a_method_is_evaluated_keeps_no_runs_apart(tmp_path, method, wanted):
    longer = {**OLD, "train": {"batch": 16, "updates": 20}}
    assert columns(runs(tmp_path / method, method, OLD, longer)) == wanted
    assert len(columns(runs(tmp_path / "clap", "clap", OLD, longer))) == 2


def test_a_pool_that_moved_keeps_runs_apart_from_those_that_held_all(tmp_path):
    """Also one of the default's size, which is not told where all fits."""
    moving = {**OLD, "train": {"batch": 16, "pool_gb": 4.0}}
    assert sorted(columns(runs(tmp_path, "lawm", OLD, moving)).values()) == [1, 1]


def test_settings_of_few_sections_are_filled_too(tmp_path):
    assert columns(runs(tmp_path, "lawm", {"model": {"prior": None}}, {"model": {"prior": None}, "agent": {}})) == {
        "LAWM": 2
    }


def test_what_a_method_reads_keeps_runs_apart(tmp_path):
    other = {**OLD, "agent": {"clap": {"eps": 1.0}, "bc": {"units": 8}}}
    assert sorted(columns(runs(tmp_path / "lawm", "lawm", OLD, other)).values()) == [1, 1]
    assert columns(runs(tmp_path / "bc", "bc", OLD, other)) == {"BC": 2}
    assert sorted(columns(runs(tmp_path / "bc-units", "bc", OLD, NEW)).values()) == [1, 1]
    assert columns(runs(tmp_path / "td3bc", "td3bc", OLD, {**other, "model": {"prior": None, "deter": 9}})) == {
        "TD3+BC": 2
    }


def test_what_was_trained_twice_with_the_same_seeds_stays_apart(tmp_path):
    """A method that another's settings were tried beside is no error, and does not count twice."""
    paths = [*runs(tmp_path / "first", "lawm", OLD, OLD), *runs(tmp_path / "tried", "lawm", NEW)]
    assert sorted(columns(paths).values()) == [1, 2]


def test_settings_that_are_not_known_stay_apart(tmp_path):
    foreign = {**OLD, "model": {"prior": None, "of_another_version": 1}}
    assert sorted(columns(runs(tmp_path, "lawm", OLD, foreign)).values()) == [1, 1]
    made = records(runs(tmp_path / "more", "lawm", OLD, NEW))
    assert alike.pooled(made, {}) == made


def test_runs_and_evidence_keep_their_own_digests(tmp_path):
    paths = runs(tmp_path, "lawm", OLD, NEW)
    own = {results.settings_digest(settings) for settings in (OLD, NEW)}
    report.write(paths, tmp_path / "out", keep=tmp_path / "kept")
    kept = [record for path in sorted((tmp_path / "kept").glob("*.csv")) for record in evidence.from_csv(path)]
    assert {record.settings for record in kept} == own
    text = (tmp_path / "out" / "report.md").read_text()
    table = text[text.index("## Runs") :]
    assert all(digest[: cells.SHORT] in table for digest in own)


CHANGED = {
    "model": ["model.hidden=7", "model.lr=0.01"],
    "agent.clap": ["agent.clap.units=7", "agent.clap.lr=0.01"],
    "agent.bc": ["agent.bc.units=7", "agent.bc.lr=0.01"],
    "agent.td3bc": ["agent.td3bc.units=7", "agent.td3bc.lr=0.01"],
    "agent.idm": ["agent.idm.units=7", "agent.idm.lr=0.01"],
}


@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_reads_what_it_says_and_nothing_else(dataset, tmp_path, monkeypatch, method):
    monkeypatch.setattr(train, "seconds_per_update", lambda *_, **__: 1.0)
    read = methods.parts_of(method)
    brief = ["train.updates=2", *(f"agent.{part}.updates=2" for part in ("clap", "bc", "td3bc", "idm"))]

    def trained(name, parts):
        settings = [*brief, *(setting for part in parts for setting in CHANGED[part])]
        return final(train.train(job(dataset, method, settings=settings), tmp_path / name)[0])

    def same(one, other):
        return one.keys() == other.keys() and all(
            one[key].shape == other[key].shape and torch.equal(one[key], other[key]) for key in one
        )

    before = trained("before", [])
    assert same(before, trained("unread", CHANGED.keys() - set(read)))
    for part in CHANGED.keys() & set(read):
        assert not same(before, trained(part, [part])), part


def test_methods_of_one_recipe_stay_side_by_side_though_versions_of_it_differ(tmp_path):
    """Most runs of either method may be of another version: the digest that stands for the recipe is one for both."""
    tried = {**NEW, "agent": {"clap": {"eps": 0.5, "critics": 2}, "bc": {"units": 9}}}
    old = {**NEW, "model": {"prior": None}}
    paths = []
    for method, own in (("lawm", [old, old, NEW]), ("idm-clap", [old, NEW, NEW])):
        paths += [
            make_run(tmp_path / f"{method}-s{k}", method, k, [100.0 + k], settings=one) for k, one in enumerate(own)
        ]
        paths += [make_run(tmp_path / f"{method}-eps-s{k}", method, k, [50.0], settings=tried) for k in range(3)]
    text = report.write(paths, tmp_path / "out")
    between = [line for line in text.splitlines() if "LAWM [" in line and "- IDM-C-LAP [" in line]
    assert len(between) == 2, between
    assert all(line.split("|")[6].strip().count("-") == 0 for line in between), "the same settings on both sides"


def test_a_run_of_a_version_that_knew_fewer_settings_goes_on(dataset, tmp_path):
    """As `report` has it: what a version did not know was done by the default."""
    whole = train.train(job(dataset, "lawm", settings=["agent.clap.updates=9"]), tmp_path / "whole")[0]
    (run,) = train.train(job(dataset, "lawm"), tmp_path)
    path = run.path / "config.json"
    saved = files.read_json(path)
    for part, key in (
        (saved["settings"]["model"], "rssm_layers"),
        (saved["settings"]["agent"]["clap"], "soft_returns"),
    ):
        del part[key]
    files.write_json(path, saved)
    assert job(dataset, "lawm").is_of(run, 0)
    train.train(job(dataset, "lawm"), tmp_path)
    with pytest.raises(UserError, match=r"settings.model.rssm_layers was 1, now 2"):
        train.train(job(dataset, "lawm", settings=["model.rssm_layers=2"]), tmp_path)
    train.train(job(dataset, "lawm", settings=["agent.clap.updates=9"]), tmp_path)
    assert all(torch.equal(x, final(whole)[name]) for name, x in final(run).items())


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_is_called_as_the_parts_of_a_recipe_that_it_reads(name):
    recipe = config.as_dict(config.load("cpu", [], policy.SECTIONS, {}))
    for part in methods.parts_of(name):
        assert reduce(getitem, part.split("."), recipe), part
    *sections, key = methods.length_of(name, methods.TrainConfig()).split(".")
    assert key in reduce(getitem, sections, recipe)
    assert name in CliRunner().invoke(cli.main, ["train", "--help"]).output
