"""A log that a kill cut keeps every line but the cut one."""

from lawm_data.runs import Run


def test_a_line_after_a_torn_one_is_read(tmp_path):
    run = Run(tmp_path / "run")
    run.begin({})
    rows = [{"kind": "train", "phase": "model", "update": update} for update in range(3)]
    run.log(rows[0])
    log = run.path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "tr')
    run.log(rows[1])
    run.log(rows[2])
    assert list(run.metrics()) == rows and len(log.read_text().splitlines()) == 4
