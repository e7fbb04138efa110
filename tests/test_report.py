"""Runs become tables; the evidence that they leave gives the very same tables back."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from click.testing import CliRunner
from made_runs import make_run, records, row, six

import lawm_train.cli
from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import cells, evidence, ladders, paired, paper, plots, report, results, tables

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def runs(tmp_path):
    return six(tmp_path)


def test_the_paper_s_averages_follow_from_its_cells():
    for method, average in paper.AVERAGE.items():
        assert abs(fmean(row[method].mean for row in paper.TABLE_1.values()) - average) < 0.051


def test_table_1_takes_last_checkpoints_beside_the_paper_and_says_what_was_not_run(runs):
    text = tables.table_1(cells.of(records(runs)))
    line = row(text, "walker-walk", "expert")
    assert (
        "| 5% (5) | 12.0 (92.8 ± 9.7) | not run (93.1 ± 0.5) | not run (89.6 ± 3.5) | 23.0 ± 8.5 (88.0 ± 4.2) |" in line
    )
    assert "| 30.0 ± 14.1 (94.3 ± 0.6) | unfinished | 6.0 ± 1.4 |" in line
    assert row(text, "hopper-stand", "plan2explore").count("not run") == 8
    assert "not all run (62.4)" in row(text, "average") and len(text.splitlines()) == 2 + len(paper.TABLE_1) + 1


def test_table_1_as_csv_has_the_figures_by_hand(runs):
    rows = list(csv.DictReader(tables.table_1_csv(cells.of(records(runs))).splitlines()))
    (ours,) = [
        row for row in rows if (row["environment"], row["dataset"], row["method"]) == ("walker-walk", "expert", "lawm")
    ]
    found = {key: ours[key] for key in ("state", "labeled", "runs", "last", "last_std", "best", "paper", "difference")}
    assert found == {
        "state": "finished",
        "labeled": "5",
        "runs": "2",
        "last": "30.00",  # of 200 and 400
        "last_std": "14.14",
        "best": "35.00",  # of 300 and 400
        "paper": "94.3",
        "difference": "-64.30",
    }


def test_the_average_appears_once_every_row_was_run(tmp_path):
    made = [
        make_run(tmp_path / f"{env}-{slice_}", "lawm", 0, [10.0 * k + 50, 10.0 * k], env=env, slice=slice_)
        for k, (env, slice_) in enumerate(paper.TABLE_1)
    ]
    assert "| 5.5 (62.4) |" in row(tables.table_1(cells.of(records(made))), "average")
    assert "not all run (62.4)" in row(tables.table_1(cells.of(records(made[1:]))), "average")
    env, slice_ = next(iter(paper.TABLE_1))
    settings = {"model": {"prior": None}, "train": {"batch": 8}}
    again = make_run(tmp_path / "again", "lawm", 1, [100], env=env, slice=slice_, settings=settings)
    text = row(tables.table_1(cells.of(records([*made, again]))), "average")
    assert text.endswith("| not run (43.8) | not all run (62.4) | not all run (62.4) | not all run (62.4) |"), text


def test_what_was_run_with_other_labels_alone_is_no_part_of_the_average(tmp_path):
    few = [make_run(tmp_path / "few", "lawm", 0, [50], label_frac=0.01), make_run(tmp_path / "bc", "bc", 0, [90])]
    text = tables.table_1(cells.of(records(few)))
    named = dict(zip(*(line.split(" | ") for line in (text.splitlines()[0], row(text, "average"))), strict=True))
    assert named["LAWM"] == "not run (62.4)" and named["BC |"] == "not all run |"


def test_table_1_as_csv_tells_unfinished_from_not_run(runs):
    rows = csv.DictReader(tables.table_1_csv(cells.of(records(runs))).splitlines())
    states = {row["method"]: row["state"] for row in rows if row["dataset"] == "expert" and row["digest"]}
    assert (states["lawm"], states["bc"], states["td3bc"]) == ("finished", "unfinished", "not run")


def test_last_and_best_are_separate_and_a_run_that_lost_is_marked(runs):
    found = records(runs)
    cell = row(tables.cell_table(cells.of(found)), "| LAWM |")
    assert "| 2 | 3 | 300.0 ± 141.4 | 4 | 350.0 ± 70.7 | 1 of 2 | -64.3 | 1.0 (2 side by side) | 700 |" in cell
    text = tables.run_table(found)
    assert "| finished | 200.0 | 4 | 300.0 (2) | 0.67 **below 0.85** |" in row(text, "| a | LAWM |")
    assert "| finished | 400.0 | 4 | 400.0 (2) | 1.00 |" in row(text, "| b | LAWM |")
    assert "| unfinished | 90.0 | 4 |" in row(text, "| f | BC |")


def test_a_run_that_never_earned_has_lost_nothing(tmp_path):
    text = tables.run_table(records([make_run(tmp_path / "a", "lawm", 0, [0, 0])]))
    assert row(text, "| a |").split(" | ")[9] == "1.00"


def test_a_cell_costs_the_mean_time_and_the_most_memory_of_its_runs(runs):
    measured = {0: {"seconds": 60.0, "memory_mb": 700}, 1: {"seconds": 180.0, "memory_mb": 500}}
    found = [replace(one, **measured[one.seed]) for one in records(runs[:2])]
    assert "| 2.0 (2 side by side) | 700 |" in row(tables.cell_table(cells.of(found)), "| LAWM |")


def test_returns_while_training_are_means_of_runs_that_were_all_evaluated_then(runs, tmp_path):
    other = {"settings": {"model": {"prior": None}, "train": {"batch": 32}}}
    named = [
        make_run(tmp_path / f"x-s{seed}", "clap", seed, means, **other) for seed, means in enumerate([[1, 3], [5]])
    ]
    text = tables.evaluation_table(records([*runs, *named]))
    assert row(text, "| x | C-LAP |").endswith("| 2 | 1 | 3 |")
    assert row(text, "| a | LAWM |").endswith("| 1 | 1, 2, 3 | 100, 300, 200 |")
    same_name = [make_run(tmp_path / "y" / f"x-s{seed}", "clap", seed, [10, 20]) for seed in (0, 1)]
    text = tables.evaluation_table(records([*named, *same_name]))
    for own, end in ((named, "| 2 | 1 | 3 |"), (same_name, "| 2 | 1, 2 | 10, 20 |")):
        settings = records(own)[0].settings[:6]
        assert row(text, f"| x | C-LAP | {settings} |").endswith(end), "told apart by their settings"


def test_pairs_have_the_same_label_seed_and_training_seed(runs, tmp_path):
    text = tables.paired_table(cells.of(records(runs)))
    assert "| 2 | 30, 110 | 70.0 | -438.2 .. 578.2 | no |" in row(text, "LAWM - C-LAP")
    assert "| 1 | 80 | 80.0 | one pair has none | no |" in row(text, "LAWM - TD3+BC oracle")
    assert "BC |" not in text.replace("TD3+BC", ""), "an unfinished run is no pair"
    other_draw = make_run(tmp_path / "g", "clap", 0, [0], label_seed=7)
    ours = records(runs[:1])
    assert not cells.pairs(ours[:1], records([other_draw]))


def test_a_folder_of_evidence_stands_for_its_files(runs, tmp_path):
    from_runs = report.write(runs, tmp_path / "one", keep=tmp_path / "evidence")
    assert report.write([tmp_path / "evidence"], tmp_path / "two") == from_runs


def test_notes_beside_evidence_cost_none_of_it_and_a_report_does_not_go_among_it(runs, tmp_path):
    text = report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    (tmp_path / "kept" / "report.md").write_text("our own words")
    assert report.write([tmp_path / "kept"], tmp_path / "again") == text
    for out in ("kept", "kept/../kept"):
        with pytest.raises(UserError, match="--out is what is reported"):
            report.write([tmp_path / "kept"], tmp_path / out)
    assert (tmp_path / "kept" / "report.md").read_text() == "our own words"
    with pytest.raises(UserError, match="no run is there: .*again"):
        report.write([tmp_path / "again"], tmp_path / "third")


def test_runs_that_differ_in_their_labels_alone_are_one_against_an_oracle(tmp_path):
    ours = [make_run(tmp_path / f"w{k}", "lawm", 0, [value], label_seed=k) for k, value in enumerate((100, 300))]
    oracle = make_run(tmp_path / "o", "clap", 0, [150], oracle=True)
    assert cells.pairs(records(ours), records([oracle])) == [50.0]
    assert cells.pairs(records([oracle]), records(ours)) == [-50.0]
    assert cells.pairs(records(ours), records(ours)) == [0.0, 0.0]


def test_another_method_s_differences_are_lawm_s_with_the_sign_turned(runs, tmp_path):
    """An oracle has one draw of labels with everyone, whichever side it stands on."""
    answer = CliRunner().invoke(
        lawm_train.cli.main, ["report", *map(str, runs), "--out", str(tmp_path), "--of", "clap"]
    )
    assert "| 2 | -30, -110 | -70.0 | -578.2 .. 438.2 | no |" in row(answer.output, "C-LAP - LAWM |")
    assert "| 1 | 50 | 50.0 |" in row(answer.output, "C-LAP - TD3+BC oracle") and "| LAWM - " not in answer.output
    oracle = tables.paired_table(cells.of(records(runs)), "td3bc oracle")
    assert "| 1 | -80 | -80.0 |" in row(oracle, "TD3+BC oracle - LAWM |")
    answer = CliRunner().invoke(lawm_train.cli.main, ["report", str(runs[0]), "--out", str(tmp_path), "--of", "sac"])
    assert answer.exit_code == 2 and "no run of 'sac' to set against the others; there are lawm" in answer.output


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_t_quantiles_are_those_of_the_printed_tables(freedom, t):
    differences = [float(k % 3) for k in range(freedom + 1)]
    half = t * stdev(differences) / math.sqrt(len(differences))
    assert paired.interval(differences).half == pytest.approx(half, rel=1e-4)


def test_an_interval_of_two_differences_by_hand():
    mean, half = paired.interval([10.0, 20.0])
    assert mean == 15 and half == pytest.approx(12.7062 * math.sqrt(50) / math.sqrt(2), rel=1e-5)
    assert not paired.Interval(mean, half).excludes_zero and paired.Interval(15, 14.9).excludes_zero


def test_the_evidence_of_a_run_gives_the_same_tables_back(runs, tmp_path):
    report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    kept = sorted((tmp_path / "kept").glob("*.csv"))
    assert [path.stem for path in kept] == list("abcdef")
    assert report.write(kept, tmp_path / "again") == report.write(runs, tmp_path / "out")
    names = {"report.md", "table1.csv", "scores.csv", "curves.png"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert sorted(records([tmp_path / "out" / "scores.csv"]), key=str) == sorted(records(kept), key=str)


def test_damaged_evidence_is_one_line(tmp_path):
    evidence.write(records([make_run(tmp_path / "a", "lawm", 0, [100, 200], episodes=1)]), tmp_path / "kept")
    path = tmp_path / "kept" / "a.csv"
    whole = path.read_text()
    last_row = whole.rindex("\n", 0, -1) + 1
    cut_off = [whole[:end] for end in range(last_row + 1, len(whole) - 3)]  # before the decimal of the last number
    for damaged in (
        *cut_off,
        whole.replace("update", "when"),
        whole.replace("lawm", ""),
        whole.replace("finished", "done"),
        whole.replace("\na,", "\n../../a,"),
        whole.replace("\na,", "\n..,"),
        whole.replace("\na,", "\n,"),
    ):
        path.write_text(damaged)
        with pytest.raises(UserError, match="not readable as evidence of a run"):
            evidence.from_csv(path)


def test_evidence_takes_the_place_of_what_it_holds_and_of_nothing_else(tmp_path):
    def keep(name, means, **changes):
        evidence.write(records([make_run(tmp_path / name / "a", "lawm", 0, means, **changes)]), tmp_path / "kept")
        return (tmp_path / "kept" / "a.csv").read_text()

    longer = {"settings": {"model": {"prior": None}, "train": {"batch": 16, "updates": 3}}}
    short, long = keep("short", [100, 200]), keep("long", [100, 200, 300], **longer)
    assert len(long) > len(short)
    for other in ({"dataset": {"digest": "e" * 64, "revision": None}}, {}):
        with pytest.raises(UserError, match=r"kept/a.csv: holds another run of this name \(dataset dddddddddddd"):
            keep(f"other{len(other)}", [100, 250], **other)
    assert (tmp_path / "kept" / "a.csv").read_text() == long


def test_evidence_of_other_labels_of_another_method_or_of_more_evaluations_stays(tmp_path):
    """Settings are those of a whole grid, so they tell neither methods nor draws of labels apart."""
    kept = tmp_path / "kept" / "a.csv"
    first = make_run(tmp_path / "first" / "a", "lawm", 0, [100, 200], prior=50)
    evidence.write(records([first]), kept.parent)
    before = kept.read_text()
    draw = make_run(tmp_path / "draw" / "a", "lawm", 0, [110, 210, 310], label_seed=3)
    method = make_run(tmp_path / "method" / "a", "bc", 0, [110, 210, 310])
    for other in (draw, method):
        with pytest.raises(UserError, match=r"holds another run of this name .*, lawm, label seed 0\)"):
            evidence.write(records([other]), kept.parent)
    evidence.write(records([first]), kept.parent)  # of what is there
    nothing = make_run(tmp_path / "nothing" / "b", "lawm", 0, [])
    for policy in ("agent", "prior"):  # alike, as where nothing is earned
        score = {"phase": 0, "update": 9, "mean": 0.0, "std": 0.0, "returns": [0.0, 0.0]}
        Run(nothing).log({"kind": "train", "phase": "joint", "update": 9, "loss": 1.0})
        files.write_json(nothing / f"evaluation-{policy}.json", score)
    assert [one.last.returns for one in records([nothing])] == [(0.0, 0.0)] * 2
    for _ in range(2):
        evidence.write(records([nothing]), kept.parent)
    shorter = make_run(tmp_path / "shorter" / "a", "lawm", 0, [100], prior=50, finished=False)
    with pytest.raises(UserError, match="holds more evaluations of this run"):
        evidence.write(records([shorter]), kept.parent)
    assert kept.read_text() == before
    for other in (draw, method):
        with pytest.raises(UserError, match="two runs have this name"):
            evidence.write(records([first, other]), tmp_path / "elsewhere")
    assert len(records([first, draw])) == 3, "two draws of one name are reported together"
    evidence.write(records([draw]), tmp_path / "second")
    assert [own.label_seed for own in records([kept, tmp_path / "second" / "a.csv"])] == [0, 0, 3]


def test_where_every_action_is_kept_a_label_seed_tells_no_runs_apart(tmp_path):
    kept = {"label_frac": None, "label_seed": 0}
    ours = [make_run(tmp_path / f"w{k}", "lawm", k, [100 + k], **kept) for k in (0, 1)]
    theirs = [make_run(tmp_path / f"c{k}", "clap", k, [90], **{**kept, "label_seed": k}) for k in (0, 1)]
    assert cells.pairs(records(ours), records(theirs)) == [10, 11]


def test_several_fractions_of_labels_are_drawn_an_oracle_as_all_of_them(runs, tmp_path):
    report.write(runs, tmp_path / "one")
    assert not (tmp_path / "one" / "fractions.png").exists(), "no method was run with two fractions"
    few = make_run(tmp_path / "few", "clap", 0, [50], label_frac=0.01)
    longer = {"model": {"prior": None}, "train": {"batch": 32}}
    unlike = make_run(tmp_path / "unlike", "clap", 0, [60], label_frac=0.02, settings=longer)
    oracle = make_run(tmp_path / "oracle", "clap", 0, [300, 250], oracle=True)
    other = make_run(
        tmp_path / "other", "lawm", 0, [70], label_frac=0.2, dataset={"digest": "e" * 64, "revision": None}
    )
    lines = plots.by_fraction(records([*runs, few, unlike, oracle, other]))
    ((key, line),) = lines.items()
    assert (key.slice, key.dataset, key.method) == ("expert", "d" * 12, "clap")
    assert line == {0.01: [50], 0.05: [170, 290], 1.0: [250]}
    report.write([*runs, few, oracle, other], tmp_path / "three")
    assert (tmp_path / "three" / "fractions.png").read_bytes()[:4] == b"\x89PNG"
    report.write(runs, tmp_path / "three")
    assert not (tmp_path / "three" / "fractions.png").exists(), "it was of other runs"


def test_evidence_says_what_a_number_depends_on_and_stays_small(tmp_path):
    path = make_run(tmp_path / "run", "lawm", 3, [123.456] * 20, episodes=50)
    report.write([path], tmp_path / "out", keep=tmp_path / "kept")
    file = tmp_path / "kept" / "run.csv"
    assert file.stat().st_size < evidence.MOST_BYTES
    (record,) = records([file])
    assert (record.dataset, record.code, record.label_seed, record.seed) == ("d" * 12, "c" * 12 + "+", 3, 3)
    assert record.last.returns == (122.5, 124.5) * 50 and len(record.evaluations) == 20
    large = make_run(tmp_path / "large", "lawm", 3, [123.456] * 20, episodes=500)
    with pytest.raises(UserError, match="bytes of evaluations"):
        report.write([large], tmp_path / "out2", keep=tmp_path / "kept2")
    assert not (tmp_path / "kept2").exists() and not (tmp_path / "out2").exists()


def test_the_settings_digest_changes_with_the_settings_alone(tmp_path):
    def digest(name, seed=0, **changes):
        return records([make_run(tmp_path / name, "lawm", seed, [1], **changes)])[0].settings

    plain = digest("a")
    assert plain == digest(
        "b", seed=5, label_seed=9, labeled=7, code=None, dataset={"digest": "e" * 64, "revision": None}
    )
    assert plain != digest("c", settings={"model": {"prior": None}, "train": {"batch": 8}})


def test_runs_of_one_name_on_two_datasets_stay_apart(tmp_path):
    """As default names are in two workspaces."""
    datasets = ({"digest": letter * 64, "revision": None} for letter in "de")
    paths = [make_run(tmp_path / d["digest"][0] / "a", "lawm", 0, [100], dataset=d) for d in datasets]
    found = records(paths)
    (tmp_path / "scores.csv").write_text(evidence.as_csv(found))
    assert evidence.from_csv(tmp_path / "scores.csv") == found and len(found) == 2
    with pytest.raises(UserError, match="a: two runs have this name"):
        evidence.write(found, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    for path in paths:
        rung = {"name": "1", "passed": True, "figures": {}, "bounds": {}, "verdict": "fine"}
        files.write_json(path / ladders.FILE, {"phase": 0, "update": 1, "rungs": [rung]})
    text = report.write(paths, tmp_path / "out")
    assert all(row(text, f"| {path} | 1 |", "fine") for path in paths)


def test_paired_differences_say_of_which_labels_they_are(tmp_path):
    paths = [
        make_run(tmp_path / f"{method}{share}", method, 0, [100], label_frac=share)
        for method in ("lawm", "clap")
        for share in (0.01, 0.2)
    ]
    text = tables.paired_table(cells.of(records(paths)))
    assert row(text, "LAWM - C-LAP", "| 1% |") and row(text, "LAWM - C-LAP", "| 20% |")


def test_a_prior_policy_is_compared_with_its_own_agent_alone(tmp_path):
    paths = [make_run(tmp_path / method, method, 0, [100], prior=prior) for method, prior in (("lawm", 7), ("clap", 9))]
    text = tables.paired_table(cells.of(records(paths)))
    assert "| 1 | 93 | 93.0 |" in row(text, "| LAWM - LAWM prior-policy |") and "C-LAP prior-policy" not in text


def tried(folder):
    """LAWM with two settings, the first ones first, and C-LAP with these; the digests of the settings."""
    settings = {"model": {"prior": None, "lr": 0.5}, "train": {"batch": 8}}
    first = [make_run(folder / f"z-s{seed}", "lawm", seed, [mean], prior=7) for seed, mean in enumerate((10, 20))]
    other = [
        make_run(folder / f"a-s{seed}", "lawm", seed, [mean], settings=settings) for seed, mean in enumerate((40, 80))
    ]
    paths = [*first, *other, make_run(folder / "c", "clap", 0, [5]), make_run(folder / "d", "bc", 0, [1])]
    paths.append(make_run(folder / "e", "bc", 1, [2], settings=settings))
    return paths, [records([group[0]])[0].settings[:6] for group in (first, other)]


def test_settings_of_one_method_are_told_apart_and_compared(tmp_path):
    paths, (first, other) = tried(tmp_path)
    text = report.write(paths, tmp_path / "out", keep=tmp_path / "kept")
    table, rest = text.split("## Cells")
    names = [name.strip() for name in table.splitlines()[2].split("|")]
    assert names.index(f"LAWM [{other}]") == names.index(f"LAWM [{first}]") + 1, "in the order given"
    values = [value.strip() for value in row(table, "walker-walk | expert").split("|")]
    assert values[names.index(f"LAWM [{first}]")] == "1.5 ± 0.7 (94.3 ± 0.6)"
    assert values[names.index(f"LAWM [{other}]")] == "6.0 ± 2.8 (94.3 ± 0.6)"
    assert values[names.index("LAWM")] == ""
    elsewhere = [value.strip() for value in row(table, "walker-walk | medium |").split("|")]
    assert elsewhere[names.index(f"LAWM [{other}]")] == "" and elsewhere[names.index("LAWM")] == "not run (91.4 ± 1.1)"
    assert f"| LAWM [{other}] - LAWM [{first}] (a - z) | 1 | {other} - {first} | 2 | 30, 60 |" in rest
    assert f"| LAWM [{first}] - C-LAP | 1 | {first} | 1 | 5 |" in rest
    assert f"| LAWM [{other}] - C-LAP | 1 | {other} - {first} | 1 | 35 |" in rest
    assert (
        f"| LAWM [{other}] - BC [{other}] | 1 | {other} | 1 | 78 |" in rest
        and f"LAWM [{other}] - BC [{first}]" not in rest
    )
    assert f"| {other} | a-s0 | train.batch 8 (not 16), model.lr 0.5 (not -) |" in rest
    kept = [tmp_path / "kept" / f"{path.name}.csv" for path in paths]
    assert report.write(kept, tmp_path / "again", keep=tmp_path / "moved") == text, "their settings lie beside them"
    assert report.write([tmp_path / "moved" / path.name for path in kept], tmp_path / "again") == text
    with open(tmp_path / "out" / "table1.csv") as file:
        rows = [line for line in csv.DictReader(file) if line["method"].startswith("lawm")]
    ours = [line for line in rows if line["environment"] == "walker-walk" and line["dataset"] == "expert"]
    assert [line["method"] for line in ours] == ["lawm", "lawm", "lawm prior-policy"]
    assert [line["settings"][:6] for line in ours] == [first, other, first]
    assert [line["paper"] for line in ours] == ["94.3", "94.3", ""]
    assert {line["method"] for line in rows if line["dataset"] == "medium"} == {"lawm"}


def test_settings_without_pairs_or_a_second_method_are_told_all_the_same(tmp_path):
    one = make_run(tmp_path / "a", "bc", 0, [1])
    other = make_run(tmp_path / "b", "bc", 1, [3], settings={"model": {"prior": None}, "train": {"batch": 8}})
    text = report.write([one, other], tmp_path / "out")
    assert "Paired differences" not in text
    assert len([line for line in text.splitlines() if "| BC [" in line and "| 0 of 1 |" in line]) == 2


def test_a_stopped_seed_stays_with_the_settings_of_its_name(tmp_path):
    paths, (first, other) = tried(tmp_path)
    stopped = make_run(tmp_path / "a-s2", "lawm", 2, [5], finished=False, settings={"model": {"prior": None}})
    Run(stopped).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
    text = tables.table_1(cells.of(records([stopped, *paths])))
    assert "1.5 ± 0.7 (94.3 ± 0.6) | 6.0 ± 2.8 (1 stopped) (94.3 ± 0.6)" in row(text, "walker-walk | expert")


def test_an_earlier_attempt_at_a_finished_seed_that_was_stopped_stands_for_itself(tmp_path):
    paths, (first, other) = tried(tmp_path)
    stopped = make_run(
        tmp_path / "before" / "a-s1", "lawm", 1, [5], finished=False, settings={"model": {"prior": None}}
    )
    Run(stopped).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
    text = tables.table_1(cells.of(records([stopped, *paths])))
    assert "1.5 ± 0.7 (94.3 ± 0.6) | 6.0 ± 2.8 (94.3 ± 0.6) | unfinished (1 stopped)" in row(
        text, "walker-walk | expert"
    )


def test_settings_whose_seeds_all_diverged_stand_for_themselves(tmp_path):
    paths, (first, _) = tried(tmp_path)
    for seed in (0, 1):
        path = make_run(tmp_path / f"b-s{seed}", "lawm", seed, [5], finished=False, settings={"model": {"prior": None}})
        Run(path).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
        paths.append(path)
    lost = records(paths[-1:])[0].settings[:6]
    text = tables.table_1(cells.of(records(paths)))
    names, values = (
        [word.strip() for word in line.split("|")] for line in (text.splitlines()[0], row(text, "| expert | 5% (5)"))
    )
    told = dict(zip(names, values, strict=True))
    assert told[f"LAWM [{lost}]"] == "unfinished (2 stopped) (94.3 ± 0.6)" and told[f"LAWM [{first}]"].startswith("1.5")


def test_settings_are_set_against_those_of_the_runs_with_default_names(tmp_path):
    """Whatever the order, as `runs/*` has `lawm-eps05-s0` before `lawm-s0`."""
    settings = {"model": {"prior": None}, "train": {"batch": 8}}
    fast = [
        make_run(tmp_path / f"walker-walk-expert-lawm-fast-s{s}", "lawm", s, [s + 9], settings=settings) for s in (0, 1)
    ]
    plain = [make_run(tmp_path / f"walker-walk-expert-lawm-s{s}", "lawm", s, [s + 1]) for s in (0, 1)]
    one, other = (records(own[:1])[0].settings[:6] for own in (fast, plain))
    text = report.write([*fast, *plain], tmp_path / "out")
    assert f"| LAWM [{one}] - LAWM [{other}] (walker-walk-expert-lawm-fast - walker-walk-expert-lawm) |" in text
    assert f"| settings | first run | unlike {other} |" in text and row(text, f"| {one} |", "train.batch 8 (not 16)")
    few = make_run(tmp_path / "few" / "walker-walk-expert-lawm-frac0.01-s0", "lawm", 0, [1], label_frac=0.01)
    names = [cell.column for own in cells.of(records([*fast, *plain, few])).values() for cell in own.values()]
    assert names == [("lawm", other), ("lawm", other), ("lawm", one)], "alike with every fraction of labels"
    oracle = make_run(tmp_path / "walker-walk-expert-td3bc-oracle-s0", "td3bc", 0, [1], oracle=True)
    assert [run.has_default_name for run in records([fast[0], plain[0], few, oracle])] == [False, True, True, True]


def test_evidence_without_its_settings_is_known_by_their_digest_alone(tmp_path):
    paths, (first, other) = tried(tmp_path)
    report.write(paths, tmp_path / "out", keep=tmp_path / "kept")
    settings = sorted((tmp_path / "kept").glob("settings-*.json"))
    assert len(settings) == 2 and all(files.read_json(path) for path in settings)
    settings[0].write_bytes(settings[1].read_bytes())
    with pytest.raises(UserError, match="not the settings that its name says"):
        report.write(sorted((tmp_path / "kept").glob("*.csv")), tmp_path / "again")
    for path in settings:
        path.unlink()
    text = report.write([*sorted((tmp_path / "kept").glob("z-*.csv")), *paths[2:4]], tmp_path / "again")
    assert row(text, f"| {first} | z-s0 | known by its digest alone |") and row(text, f"| {other} | a-s0 |  |")
    assert f"unlike {other}" in text


def test_a_prior_that_is_not_the_method_s_own_makes_another_method(tmp_path):
    standard = make_run(tmp_path / "a", "clap", 0, [1], settings={"model": {"prior": "standard"}})
    own, cloned = make_run(tmp_path / "b", "clap", 0, [1]), make_run(tmp_path / "c", "bc", 0, [1])
    assert [record.method for record in records([standard, own, cloned])] == ["clap standard-prior", "clap", "bc"]


def test_fractions_and_datasets_are_places_of_their_own(runs, tmp_path):
    few = make_run(tmp_path / "few", "lawm", 0, [500], label_frac=0.01, labeled=1)
    other = make_run(tmp_path / "other", "lawm", 0, [600], dataset={"digest": "abcdef" + "0" * 58, "revision": None})
    text = tables.table_1(cells.of(records([*runs, few, other])))
    assert "(94.3" not in row(text, "walker-walk", "1% (1)") and "| 50.0 |" in row(text, "1% (1)")
    assert "60.0 (94.3 ± 0.6)" in row(text, "expert (abcdef)") and "30.0 ± 14.1" in row(text, "expert (dddddd)", "5%")


def test_the_score_of_the_last_checkpoint_stands_for_its_evaluation(runs):
    score = {"phase": 1, "update": 3, "mean": 111.11, "std": 0.0, "returns": [111.11] * 100}
    files.write_json(runs[0] / "evaluation-agent.json", score)
    files.write_json(runs[0] / "evaluation-prior.json", score | {"returns": [22.0]})
    agent, prior = records(runs[:1])
    assert agent.last.returns == (111.1,) * 100 and [e.mean for e in prior.evaluations] == [22]
    assert [e.update for e in agent.evaluations] == [1, 2, 3], "what was evaluated while training is no other"
    files.write_json(runs[0] / "evaluation-agent.json", score | {"phase": 0})
    assert records(runs[:1])[0].last.mean == 200, "an earlier checkpoint's"
    files.write_json(runs[0] / "evaluation-prior.json", score | {"update": 2, "returns": [22.0]})
    assert [e.mean for e in records(runs[:1])[1].evaluations] == [50], "that of the model's phase stands"


def test_what_a_resume_did_again_counts_once(runs):
    Run(runs[5]).log({"kind": "evaluate", "phase": "agent", "update": 1, "returns": [10.0]})
    (record,) = records(runs[5:])
    assert [evaluation.mean for evaluation in record.evaluations] == [10]


def test_a_cut_last_line_is_skipped(runs):
    path = runs[5] / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"kind": "evaluate"})[:9])
    assert len(records(runs[5:])) == 1


def test_what_was_not_evaluated_yet_is_left_out_with_a_line(runs, tmp_path, capsys):
    fresh = [make_run(tmp_path / name, "lawm", 5, [], finished=False) for name in ("g", "h")]
    assert report.write([*runs, *fresh], tmp_path / "out") == report.write(runs, tmp_path / "out")
    assert capsys.readouterr().err == "left out, nothing was evaluated yet: g, h\n"


def test_options_of_a_report_without_runs_are_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: runs of x -->\n<!-- end -->\n")
    for option in (["--of", "clap"], ["--out", "x"], ["--evidence", "x"]):
        answer = CliRunner().invoke(lawm_train.cli.main, ["report", "--tables", str(page), *option])
        assert answer.exit_code == 2 and "Missing argument 'RUNS...'" in answer.output


def test_two_datasets_of_one_slice_are_told_apart_in_every_table_and_picture(tmp_path, monkeypatch):
    paths = []
    for digest in "de":
        shares = {0.05: "a", 0.2: "b"}
        paths += [
            make_run(
                tmp_path / digest / name,
                "lawm",
                0,
                [100, 200],
                dataset={"digest": digest * 64, "revision": None},
                label_frac=share,
            )
            for share, name in shares.items()
        ]
    pages = []
    monkeypatch.setattr(plots, "png", lambda page: pages.append(page) or b"")
    plots.curves(records(paths))
    titles = [axes.get_title() for axes in pages[0].axes if axes.get_title()]
    assert len(titles) == len({*titles}) == 4 and "walker-walk expert (dddddd), 5% labeled" in titles
    plots.fractions(records(paths))
    labels = [line.get_label() for line in pages[1].axes[0].lines]
    assert labels == [f"LAWM (walker-walk expert ({digest * 6}))" for digest in "de"]
    for table in (tables.run_table(records(paths)), tables.evaluation_table(records(paths))):
        lines = table.splitlines()[2:]
        assert len(lines) == len({*lines}) == 4 and "| a (dddddd) |" in table
    assert "(dddddd)" not in tables.run_table(records(paths[:2])), "one dataset needs no name"


def test_runs_of_collectors_are_left_out_with_one_line(runs, tmp_path, capsys):
    Run(tmp_path / "collect-walker-walk").begin({"env": "walker-walk", "seed": 0})
    report.write([tmp_path / "collect-walker-walk", *runs], tmp_path / "out")
    assert capsys.readouterr().err == "left out, collectors have no score: collect-walker-walk\n"
    report.write([tmp_path / "out", *runs], tmp_path / "again")
    assert capsys.readouterr().err == "left out, no run is there: out\n", "a report among the runs"
    (tmp_path / "notes.txt").write_text("eps 2 next")
    report.write([tmp_path / "notes.txt", *runs], tmp_path / "again")
    assert capsys.readouterr().err == "left out, no run is there: notes.txt\n"


def test_a_stopped_run_is_no_score(tmp_path):
    path = make_run(tmp_path / "a", "lawm", 0, [5], finished=False)
    Run(path).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
    found = records([path])
    assert found[0].state == "stopped" and "unfinished (1 stopped) (94.3" in tables.table_1(cells.of(found))
    assert "| 0 (+ 1 not finished) (1 stopped) |" in tables.cell_table(cells.of(found))


def test_a_seed_that_was_stopped_is_told_and_does_not_bar_the_others_from_more_updates(runs, tmp_path):
    path = make_run(runs[0].parent / "a-s2", "lawm", 2, [500], finished=False, settings={"model": {"prior": None}})
    Run(path).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
    found = cells.of(records([*runs, path]))
    assert "| 30.0 ± 14.1 (1 stopped) (94.3 ± 0.6) |" in row(tables.table_1(found), "walker-walk", "expert")
    assert "| 2 (1 stopped) | 30, 110 |" in row(tables.paired_table(found), "LAWM - C-LAP")
    rows = csv.DictReader(tables.table_1_csv(found).splitlines())
    counts = {row["method"]: row["stopped"] for row in rows if row["runs"] != "0"}
    assert counts["lawm"] == "1" and counts["clap"] == "0"


def test_a_seed_stopped_before_its_first_evaluation_is_told_too(runs, tmp_path):
    path = make_run(tmp_path / "h", "lawm", 2, [], finished=False)
    Run(path).log({"kind": "stopped", "phase": "agent", "update": 2, "term": "actor", "checkpoint": None})
    text = report.write([*runs, path], tmp_path / "out", keep=tmp_path / "kept")
    assert "30.0 ± 14.1 (1 stopped)" in row(text, "walker-walk | expert | 5% (5)", "not run")
    assert "| stopped | - | - | - | - |" in row(text, "| h | LAWM |")
    assert report.write(sorted((tmp_path / "kept").glob("*.csv")), tmp_path / "again") == text
    alone = report.write([path], tmp_path / "alone")
    assert "| unfinished (1 stopped) (94.3 ± 0.6) |" in row(alone, "walker-walk | expert", "not run")


def test_paired_differences_tell_unequal_budgets_and_settings(runs, tmp_path):
    own = records(runs)[0].settings[:6]
    text = tables.paired_table(cells.of(records(runs)))
    assert f"| LAWM - C-LAP | 3 - 1, 2 | {own} | 2 |" in text
    assert f"| LAWM - TD3+BC oracle | 3 - 1 | {own} | 1 |" in text
    settings = {"model": {"prior": None}, "train": {"batch": 8}}
    other = make_run(tmp_path / "g", "clap", 0, [90], settings=settings)
    theirs = records([other])[0].settings[:6]
    assert f"| LAWM - C-LAP | 3 - 1 | {own} - {theirs} | 1 |" in tables.paired_table(
        cells.of(records([*runs[:2], other]))
    )


def test_a_run_may_be_named_by_the_folder_that_one_is_in(runs, monkeypatch):
    monkeypatch.chdir(runs[0])
    assert [record.run for record in records([Path()])] == ["a", "a"]


ODD_ROWS = [
    f'{{"kind": "evaluate", "phase": {phase}, "update": {update}, "returns": {returns}}}'
    for phase, update, returns in (
        ("3", 3, [1.0]),
        ('"agent"', '"3"', [1.0]),
        ('"agent"', 3, 1.0),
        ('"agent"', 3, "[NaN]"),
        ('"agent"', 3, '["1"]'),
        ('"agent"', 3, "[]"),
        ('"agent"', 3, f"[{10**400}]"),
    )
]


@pytest.mark.parametrize(
    "line", ["5", "{}", '{"kind": "evaluate"}', "[1]", '{"kind": "evaluate", "phase": "agent", "update": 3}', *ODD_ROWS]
)
def test_a_line_of_metrics_that_is_no_row_is_skipped(runs, line):
    before = records(runs[:1])
    files.append_line(runs[0] / "metrics.jsonl", line)
    assert records(runs[:1]) == before


def test_evidence_of_a_run_that_was_scored_and_then_went_on_takes_its_place(tmp_path):
    """The score of what was its last checkpoint is over, the evaluation while training stands again."""
    settings = [{"model": {"prior": None}, "train": {"batch": 16, "updates": updates}} for updates in (3, 5)]
    short = make_run(tmp_path / "one" / "a", "lawm", 0, [100, 300, 200], settings=settings[0])
    score = {"phase": 0, "update": 3, "mean": 250.0, "std": 0.0, "returns": [250.0, 250.0]}
    files.write_json(short / "evaluation-agent.json", score)
    report.write([short], tmp_path / "out", keep=tmp_path / "kept")
    other = make_run(tmp_path / "two" / "a", "lawm", 0, [100, 300, 220], settings=settings[1])
    with pytest.raises(UserError, match="holds another run of this name"):
        report.write([other], tmp_path / "out", keep=tmp_path / "kept")
    longer = make_run(tmp_path / "three" / "a", "lawm", 0, [100, 300, 200, 210, 220], settings=settings[1])
    report.write([longer], tmp_path / "out", keep=tmp_path / "kept")
    assert [one.mean for one in evidence.from_csv(tmp_path / "kept" / "a.csv")[0].evaluations] == [
        100, 300, 200, 210, 220
    ]  # fmt: skip


def test_a_damaged_score_is_one_line(runs):
    files.write_json(runs[0] / "evaluation-agent.json", {})
    with pytest.raises(UserError, match="evaluation-agent.json: missing key 'mean'; remove it"):
        records(runs[:1])
    files.write_json(
        runs[0] / "evaluation-agent.json", {"phase": 0, "update": 3, "mean": 1.0, "std": 0.0, "returns": []}
    )
    with pytest.raises(UserError, match="evaluation-agent.json: a score of no episode; remove it"):
        records(runs[:1])
    (runs[1] / "metrics.jsonl").write_bytes(b"\xff" + (runs[1] / "metrics.jsonl").read_bytes())
    assert records(runs[1:2]), "a byte that is no text costs its line alone"


def test_without_a_simulator_the_report_says_so(tmp_path):
    """Also of a run that was stopped."""
    made = make_run(tmp_path / "run", "lawm", 0, [], repeat=None, env="custom:made")
    stopped = make_run(tmp_path / "stopped", "clap", 0, [], repeat=None, env="custom:made")
    row = {"kind": "stopped", "phase": "model", "update": 3, "term": "action", "checkpoint": None}
    files.append_line(stopped / "metrics.jsonl", json.dumps(row))
    with pytest.raises(UserError, match="no simulator here made their data"):
        report.write([made, stopped], tmp_path / "out")


def test_a_curve_of_an_unfinished_method_says_how_far_it_is(runs, monkeypatch):
    labels = []
    monkeypatch.setattr(plots, "png", lambda page: b"")
    monkeypatch.setattr(
        "matplotlib.axes.Axes.legend", lambda axes, **_: labels.extend(axes.get_legend_handles_labels()[1])
    )
    plots.curves(records([*runs, make_run(runs[0].parent / "h", "bc", 1, [80, 90], finished=False)]))
    assert "BC, not finished: its first 2 updates" in labels and "LAWM" in labels


def test_one_training_under_two_names_does_not_count_twice(runs, tmp_path):
    again = make_run(tmp_path / "a-frac0.05", "lawm", 0, [100, 300, 200])
    with pytest.raises(UserError, match="a and a-frac0.05: LAWM with the same seeds"):
        report.write([*runs, again], tmp_path / "out")


def test_an_oracle_stands_in_the_row_of_every_fraction(runs, tmp_path):
    oracle = make_run(tmp_path / "oracle", "clap", 0, [330], oracle=True, label_frac=None)
    few = make_run(tmp_path / "few", "lawm", 0, [50], label_frac=0.01)
    found = cells.of(records([*runs[:4], oracle, few]))
    text = tables.table_1(found)
    assert " 33.0 (93.1 ± 0.5) |" in row(text, "expert", "5% (5)") and "| 33.0 (93.1" in row(
        text, "expert", "| 1% (5) |"
    )
    assert "| all |" not in text and "| 1 | -280 |" in row(tables.paired_table(found), "| 1% |", "C-LAP oracle")
    assert tables.cell_table(found).count("C-LAP oracle") == 1, "it was run once"


def test_nothing_to_report_is_one_line(runs, tmp_path):
    path = make_run(tmp_path / "run", "lawm", 0, [])
    with pytest.raises(UserError, match="nothing was evaluated yet"):
        report.write([path], tmp_path / "out")
    files.write_json(runs[1] / "config.json", {"method": "lawm", "env": "walker-walk"})
    with pytest.raises(UserError, match="b/config.json: missing key 'code'; restore it"):
        report.write(runs[1:2], tmp_path / "out")
    bare = make_run(tmp_path / "bare", "lawm", 0, [1.0], settings={"model": {}})
    with pytest.raises(UserError, match="bare: config.json has no 'prior', so another version wrote it"):
        report.write([bare], tmp_path / "out")
    with pytest.raises(UserError, match="given twice"):
        report.write([runs[0], runs[0]], tmp_path / "out")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other.csv: not readable as evidence"):
        report.write([tmp_path / "other.csv"], tmp_path / "out")


def test_an_agent_is_not_scored_while_its_idm_trains(tmp_path):
    run = Run(make_run(tmp_path / "a", "idm-clap", 0, [], finished=False))
    run.log({"kind": "train", "phase": "idm", "update": 5, "action": 1.0})
    for policy in ("agent", "prior"):
        score = {"phase": 0, "update": 5, "mean": 20.0, "std": 0.0, "returns": [20.0]}
        files.write_json(results.Score.file(run.path, policy), score)
    assert results.of_run(run.path) == []


def test_runs_of_one_name_on_two_slices_and_fractions_stay_apart(tmp_path):
    places = [("expert", 0.05), ("medium", 0.05), ("medium", 0.2)]
    paths = [
        make_run(tmp_path / str(k) / "x-s0", "lawm", 0, [100.0 * (k + 1)], slice=slice_, label_frac=frac)
        for k, (slice_, frac) in enumerate(places)
    ]
    text = report.write(paths, tmp_path / "out")
    assert report.write([tmp_path / "out" / "scores.csv"], tmp_path / "again") == text
    for mean in (100, 200, 300):
        assert row(text[text.index("## Returns") :], f"| 1 | 1 | {mean} |")


@pytest.mark.parametrize("prior", [None, 40.0])
def test_a_score_of_the_prior_policy_is_not_lost_from_evidence(tmp_path, prior):
    path = make_run(tmp_path / "a", "lawm", 0, [100.0, 200.0], prior=prior)
    score = results.Score.file(path, "prior")
    files.write_json(
        score, {"phase": 0 if prior is None else 1, "update": 2, "mean": 50.0, "std": 0.0, "returns": [50.0]}
    )
    report.write([path], tmp_path / "out", keep=tmp_path / "kept")
    before = (tmp_path / "kept" / "a.csv").read_text()
    score.unlink()
    Run(path).log({"kind": "evaluate", "phase": "agent", "update": 3, "returns": [300.0]})
    with pytest.raises(UserError, match="holds a later score of lawm prior-policy; evaluate"):
        report.write([path], tmp_path / "out", keep=tmp_path / "kept")
    assert (tmp_path / "kept" / "a.csv").read_text() == before
    files.write_json(
        score, {"phase": 0 if prior is None else 1, "update": 3, "mean": 60.0, "std": 0.0, "returns": [60.0]}
    )
    report.write([path], tmp_path / "out", keep=tmp_path / "kept")  # of a checkpoint further on


def test_evidence_of_an_agent_that_was_none_yet_gives_way(tmp_path):
    """As older versions wrote it of a score while the IDM trained, and of a seed that was stopped."""
    path = make_run(tmp_path / "a", "lawm", 0, [], prior=50.0, finished=False)
    (prior,) = records([path])
    agent = replace(prior, method="lawm", evaluations=(), state="stopped")
    for own in ([agent, prior], [agent, prior], [prior]):
        evidence.write(own, tmp_path / "kept")
    assert evidence.from_csv(tmp_path / "kept" / "a.csv") == [prior]
