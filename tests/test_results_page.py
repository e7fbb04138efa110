"""The pages of results: tables are made of the evidence beside them, ladders are of the last checkpoints."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import make_run, records, row, six

import lawm_train.cli
from lawm_data import files
from lawm_data.errors import UserError
from lawm_data.runs import Run
from lawm_train import cells, report, results, tables

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.fixture
def runs(tmp_path):
    return six(tmp_path)


def test_what_runs_keep_of_their_best_is_counted_over_folders(runs, tmp_path):
    """The same runs with other settings are other runs; unfinished ones and prior policies do not count."""
    longer = {"settings": {"model": {"prior": None}, "train": {"batch": 32}}}
    other = make_run(tmp_path / "later" / "a", "lawm", 0, [100, 84], **longer)
    for path, update in ((runs[0], 3), (other, 2)):
        files.write_json(path / "diagnostics.json", {"phase": 1, "update": update, "rungs": []})
    report.write(runs, tmp_path / "out", keep=tmp_path / "results" / "one")
    report.write([other], tmp_path / "out", keep=tmp_path / "results" / "two")
    text = report.regenerated("<!-- table: kept of results/one results/two -->\n<!-- end -->", tmp_path)
    lines = ["| LAWM | 3 | 2 |", "| C-LAP | 2 | 0 |", "| TD3+BC oracle | 1 | 0 |", "| all | 6 | 2 |"]
    assert all(line in text for line in lines) and "BC | 0" not in text and len(text.splitlines()) == 4 + 4


def test_tables_between_markers_are_made_of_the_evidence_beside_them(runs, tmp_path):
    rung = {"name": "labeled path", "figures": {}, "bounds": {}, "passed": False, "verdict": "!"}
    files.write_json(runs[0] / "diagnostics.json", {"phase": 1, "update": 3, "rungs": [rung]})
    report.write(runs, tmp_path / "out", keep=tmp_path / "results" / "own")
    page = tmp_path / "RESULTS.md"
    blocks = [
        f"<!-- table: {name} of results/own -->\nold\n<!-- end -->\nkept {name}\n" for name in ("paired", "ladder")
    ]
    page.write_text("before\n" + "".join(blocks))
    answer = CliRunner().invoke(lawm_train.cli.main, ["report", "--tables", str(page)])
    text = page.read_text()
    assert answer.exit_code == 0 and "old" not in text and text.startswith("before\n<!-- table: paired")
    assert "kept paired" in text and "LAWM - C-LAP" in text and "| a | labeled path | **failed** |" in text
    assert report.regenerated(text, tmp_path) == text
    with pytest.raises(UserError, match="`paired` alone tells the differences of a method; write `cells of`"):
        report.regenerated("<!-- table: cells:clap of results/own -->\n<!-- end -->", tmp_path)
    other = report.regenerated("<!-- table: paired:td3bc oracle of results/own -->\n<!-- end -->", tmp_path)
    assert "| TD3+BC oracle - C-LAP |" in other and "| LAWM - " not in other
    with pytest.raises(UserError, match="no run of 'sac' to set against the others"):
        report.regenerated("<!-- table: paired:sac of results/own -->\n<!-- end -->", tmp_path)
    (tmp_path / "results" / "cut").mkdir()
    (tmp_path / "results" / "cut" / "a.csv").write_text("")
    with pytest.raises(UserError, match=r"cut/a.csv: not readable as evidence of a run .*no row"):
        report.regenerated("<!-- table: runs of results/cut -->\n<!-- end -->", tmp_path)
    for place in ("/results/own", "results/**own"):
        with pytest.raises(UserError, match="name folders beside this file"):
            report.regenerated(f"<!-- table: runs of {place} -->\n<!-- end -->", tmp_path)
    with pytest.raises(UserError, match="unknown table 'sums'; there are table1"):
        report.regenerated("<!-- table: sums of results/own -->\n<!-- end -->", tmp_path)
    with pytest.raises(UserError, match=r"no evidence .*results/none/\*.csv; `lawm-train report"):
        report.regenerated("<!-- table: runs of results/own results/none -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize("lost", ["<!-- end -->\n", " of results/own"])
def test_a_marker_that_is_not_whole_costs_nothing_of_a_page(runs, tmp_path, lost):
    report.write(runs, tmp_path / "out", keep=tmp_path / "results" / "own")
    block = "<!-- table: runs of results/own -->\n<!-- end -->\n"
    page = tmp_path / "RESULTS.md"
    page.write_text(block.replace(lost, "", 1) + "two hours of prose\n" + block)
    before = page.read_text()
    with pytest.raises(UserError, match=r"^<!-- table: runs.* -->: write .*<!-- end -->` below it"):
        report.update(page)
    assert page.read_text() == before


def test_a_table_may_be_of_several_folders(runs, tmp_path):
    report.write(runs[:3], tmp_path / "out", keep=tmp_path / "results" / "one")
    report.write(runs[3:], tmp_path / "out", keep=tmp_path / "results" / "two")
    both = report.regenerated("<!-- table: paired of results/one results/two -->\n<!-- end -->", tmp_path)
    assert f"\n{tables.paired_table(cells.of(records(runs)))}\n" in both
    some = report.regenerated("<!-- table: paired of results/one/[ac].csv results/two -->\n<!-- end -->", tmp_path)
    assert f"\n{tables.paired_table(cells.of(records([runs[0], *runs[2:]])))}\n" in some


def test_the_ladder_of_a_run_with_a_point_in_its_name_survives_as_evidence(tmp_path):
    path = make_run(tmp_path / "walker-lawm-frac0.05-s0", "lawm", 0, [100])
    rungs = [{"name": "labeled path", "figures": {}, "bounds": {}, "passed": True, "verdict": "!"}]
    files.write_json(path / "diagnostics.json", {"phase": 0, "update": 1, "rungs": rungs})
    told = report.write([path], tmp_path / "out", keep=tmp_path / "kept")
    assert "| walker-lawm-frac0.05-s0 | labeled path | passed |" in told
    assert files.read_json(tmp_path / "kept" / "walker-lawm-frac0.05-s0-ladder.json") == rungs
    assert report.write([tmp_path / "kept" / f"{path.name}.csv"], tmp_path / "again") == told


def test_a_bar_in_a_field_ends_no_cell():
    assert tables.markdown(["KL(q|p)"], [[1.5]]) == "| KL(q\\|p) |\n| --- |\n| 1.5 |"


def test_a_ladder_of_an_earlier_checkpoint_is_left_out(runs, tmp_path, capsys):
    rung = {"name": "labeled path", "figures": {}, "bounds": {}, "passed": True, "verdict": "!"}
    files.write_json(runs[0] / "diagnostics.json", {"phase": 1, "update": 2, "rungs": [rung]})
    assert "labeled path" not in report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    assert "not of the last checkpoint that was evaluated; diagnose the run again" in capsys.readouterr().err
    assert not list((tmp_path / "kept").glob("*ladder*"))
    files.write_json(runs[0] / "diagnostics.json", {"phase": 1, "update": 3, "rungs": [rung]})
    report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    (runs[0] / "diagnostics.json").unlink()
    score = {"phase": 1, "update": 3, "mean": 40.0, "std": 0.0, "returns": [40.0]}
    files.write_json(runs[0] / "evaluation-prior.json", score)
    report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    assert (tmp_path / "kept" / "a-ladder.json").is_file(), "of the very checkpoint that was reported again"
    files.write_json(runs[0] / "diagnostics.json", {"phase": 0, "update": 9, "rungs": [rung]})
    assert "labeled path" not in report.write(runs, tmp_path / "out"), "of the model alone, before the agent's phase"
    files.write_json(runs[0] / "diagnostics.json", [rung])
    with pytest.raises(UserError, match="diagnostics.json: no ladder as .* writes it now; diagnose the run again"):
        report.write(runs, tmp_path / "out")
    files.write_json(runs[0] / "diagnostics.json", {"phase": 1, "update": 4, "rungs": [rung]})
    assert "labeled path" in report.write(runs, tmp_path / "out"), "of a checkpoint after the last evaluation"
    Run(runs[0]).log({"kind": "evaluate", "phase": "agent", "update": 5, "returns": [1.0]})
    files.write_json(runs[0] / "evaluation-prior.json", {**score, "update": 5})
    report.write(runs, tmp_path / "out", keep=tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*ladder*")), "what was kept is not of the run as it is now"


PAGES = [RECIPES / "RESULTS.md", *sorted((RECIPES / "results").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_results_page_are_made_of_its_evidence(page):
    text = page.read_text()
    assert report.regenerated(text, page.parent) == text


@pytest.mark.parametrize("page", [RECIPES.parent / "README.md", *PAGES], ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", page.read_text())
    assert links and not [link for link in links if not (page.parent / link).exists()]


def test_every_reported_run_has_its_settings_beside_it():
    folders = sorted({path.parent for path in (RECIPES / "results").glob("*/*.csv")})
    assert len(folders) > 30
    for folder in folders:
        own = sorted(folder.glob("*.csv"))
        found = records(own)
        assert results.settings_of(own, found).keys() == {record.settings for record in found}, folder


def test_the_settings_of_a_page_are_told_by_what_they_differ_in():
    places = "results/own-10k results/own-5k/*learned*.csv results/p2e-eps1"
    text = report.regenerated(f"<!-- table: settings of {places} -->\n<!-- end -->", RECIPES)
    assert row(text, "| 4a744d | walker-walk-medium-replay-clap-s0 |  |")
    assert "model.prior learned (not None)" in row(text, "| 39f54e |")
    assert "agent.clap.eps 1.0 (not 2.0)" in row(text, "| 5d3416 |")


def test_the_evidence_of_the_development_set_gives_the_printed_means():
    found = cells.of(records(sorted((RECIPES / "results" / "dev").glob("*.csv"))))
    text = tables.cell_table(found)
    assert "797.3 ± 77.8" in row(text, "| LAWM |") and "602.7 ± 172.8" in row(text, "| C-LAP |")
