"""Bars: each update on a terminal, few lines in a file."""

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

    @property
    def drawn(self) -> list[str]:
        return self.getvalue().split("\r")[1:]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, which passes where a test says so."""
    now = [1000.0]
    for module in (tqdm.std, time):  # tqdm has the function by its name
        monkeypatch.setattr(module, "time", lambda: now[0])
    return now


@pytest.mark.parametrize(("terminal", "least", "most"), [(True, 300, 310), (False, 10, 12)])
def test_lines_of_five_minutes(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], terminal: bool, least: int, most: int
) -> None:
    """An update a second that says something: each is drawn on a terminal, one in 30 seconds in a file."""
    screen = Screen(terminal)
    monkeypatch.setattr("sys.stderr", screen)
    with Bar(total=300, desc="training", unit="update") as bar:
        for k in range(300):
            clock[0] += 1
            bar.update()
            bar.say(f"return {k}")
    assert "return 299" in screen.drawn[-1] and "300/300" in screen.drawn[-1]
    assert least <= len(screen.drawn) <= most


def test_it_speaks_between_updates(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """An update that takes ten minutes and says its share each second is seen in a file while it goes on."""
    screen = Screen(False)
    monkeypatch.setattr("sys.stderr", screen)
    with Bar(total=1, unit="episode") as bar:
        for k in range(600):
            clock[0] += 1
            bar.say(f"learning {k}")
        assert 20 <= len(screen.drawn) <= 22 and "learning 599" in screen.drawn[-1]


def test_silent_bar_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(False)
    monkeypatch.setattr("sys.stderr", screen)
    with Bar(range(3), disable=None) as bar:
        for _ in bar:
            bar.say("return 1")
    assert screen.getvalue() == ""


def test_where_standard_error_is_closed_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Bar(total=2) as bar:
        bar.update()
        bar.say("nothing")
        assert bar.disable
