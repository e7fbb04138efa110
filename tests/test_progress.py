"""Bars: every word on a terminal, few lines in a file."""

import io
import time

import pytest
import tqdm.std

from lawm_data.progress import Bar


class Screen(io.StringIO):
    """What a bar is written to; a terminal, or not."""

    def __init__(self, terminal: bool):
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(("terminal", "lines"), [(True, 300), (False, 12)])
def test_lines_of_ten_minutes(monkeypatch: pytest.MonkeyPatch, terminal: bool, lines: int) -> None:
    """An update a second that says something: each is drawn on a terminal, one in 30 seconds in a file."""
    screen, clock = Screen(terminal), [1000.0]
    monkeypatch.setattr("sys.stderr", screen)
    for module in (tqdm.std, time):  # tqdm has the function by its name
        monkeypatch.setattr(module, "time", lambda: clock[0])
    with Bar(total=300, desc="training", unit="update") as bar:
        for k in range(300):
            clock[0] += 1
            bar.update()
            bar.say(f"return {k}")
    drawn = screen.getvalue().split("\r")[1:]
    assert "return 299" in drawn[-1] and "300/300" in drawn[-1]
    assert len(drawn) >= lines if terminal else len(drawn) <= lines


def test_it_speaks_between_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """One update that takes ten minutes and says its share each second is seen in a file while it goes on."""
    screen, clock = Screen(False), [1000.0]
    monkeypatch.setattr("sys.stderr", screen)
    for module in (tqdm.std, time):
        monkeypatch.setattr(module, "time", lambda: clock[0])
    bar = Bar(total=1, unit="episode")
    for k in range(600):
        clock[0] += 1
        bar.say(f"learning {k}")
    drawn = screen.getvalue().split("\r")[1:]
    assert 20 <= len(drawn) <= 22 and "learning 599" in drawn[-1]
    bar.close()


def test_silent_bar_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(False)
    monkeypatch.setattr("sys.stderr", screen)
    with Bar(range(3), disable=None) as bar:
        for _ in bar:
            bar.say("return 1")
    assert screen.getvalue() == ""
