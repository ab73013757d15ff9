"""Progress: a bar that is redrawn on a terminal, lines elsewhere."""

import io

from django.core.management.base import OutputWrapper

from hc_signals.management.progress import COUNT_LIMIT, Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_line_shows_rate_and_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(OutputWrapper(out), "hc_x", 1000, clock)
    for _ in range(10):
        clock.now += 1
        progress.advance(50)
    progress.say("something")
    progress.close()
    assert out.getvalue().splitlines() == [
        "hc_x: 250 of 1000 (25%), 50/s, 15 s left",
        "hc_x: 500 of 1000 (50%), 50/s, 10 s left",
        "something",
        "hc_x: 500 of 1000 (50%), 50/s, 10 s left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_is_redrawn_on_a_terminal() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(OutputWrapper(out), "hc_x", 20000, clock)
    clock.now = 1
    progress.advance(5)
    progress.advance(5)  # too soon to be drawn
    progress.close()
    drawn = out.getvalue().split("\r")[1:]
    assert drawn[0] == f"hc_x: [{'':<24}] 5 of 20000 (0%), 5/s, 1 h 6 min left\x1b[K"
    assert drawn[1].endswith("\x1b[K\n")
    assert len(drawn) == 2


def test_line_without_a_total_shows_the_limit() -> None:
    clock = Clock()
    progress = Progress(OutputWrapper(io.StringIO()), "hc_x", COUNT_LIMIT + 1, clock)
    clock.now = 2
    progress.advance(10)
    assert progress.line() == "hc_x: 10 of more than 1000000, 5/s"


def test_line_is_complete_if_there_is_nothing_to_do() -> None:
    assert Progress(OutputWrapper(io.StringIO()), "hc_x", 0).line() == "hc_x: 0 of 0 (100%), 0/s"
