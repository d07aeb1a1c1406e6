"""Progress without a terminal: lines at the end of an epoch and after long silence, with the time left."""

import time

from likely.cli import progress
from likely.training.loop import Step


def steps(n, *, n_epochs=1, seconds=0.0):
    for i in range(1, n + 1):
        time.sleep(seconds)
        yield Step(i, (i - 1) * n_epochs // n, i / n, {"loss": 1.0}, 0.1, 8, 0.0, i % (n // n_epochs) == 0)


def lines(capsys, *args, **kwargs):
    list(progress.track_steps(*args, **kwargs))
    return capsys.readouterr().err.splitlines()


def test_end_of_epoch_prints_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EPOCH_INTERVAL", 0.0)
    said = lines(capsys, steps(4, n_epochs=2, seconds=0.01), "training")
    assert [line.split()[:2] for line in said] == [["epoch", "1"], ["epoch", "2"]]
    assert all(line.endswith("0:00:00 left") for line in said)


def test_long_epoch_prints_lines(capsys, monkeypatch):
    assert len(lines(capsys, steps(4), "training")) == 1
    monkeypatch.setattr(progress, "MAX_SILENCE", 0.0)
    assert len(lines(capsys, steps(4), "training")) == 4
    said = lines(capsys, steps(4), "checking labels", lines=False)
    assert all(line.startswith("checking labels") for line in said)


def test_time_left_follows_the_pace_since_the_first_step(monkeypatch):
    now = iter((0.0, 100.0, 120.0, 140.0))  # begun, first step, asked how long, first step of the next
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    pace = progress.Pace()
    for fraction in (0.5, 0.6):  # resumed at half
        pace.add(Step(1, 0, fraction, {}, 0.1, 8, 0.0, False))
    assert pace.left == "  0:01:20 left"
    pace.add(Step(1, 0, 0.1, {}, 0.1, 8, 0.0, False))  # the next of several trainings
    assert pace.left == ""


def test_progress_bar_prints_the_count_and_the_total(capsys, monkeypatch):
    monkeypatch.setattr(progress, "MAX_SILENCE", 0.0)
    with progress.progress_bar("reading images") as report:
        report(1000, 2000)
    assert capsys.readouterr().err == "reading images: 1,000 of 2,000\n"
