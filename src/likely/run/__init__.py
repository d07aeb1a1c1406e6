"""A run: data, model and training options together, saved with what they made. The one path from DATA to a model folder."""

from likely.run.folders import begin, record_of, resume, run_of, save_extended, set_aside, stored, twin_of
from likely.run.folds import JUDGE
from likely.run.options import Run, RunError
from likely.run.pages import CARD, REPORT, write_pages
from likely.run.session import ALPHA, N_JUDGED, UNFINISHED, Session

__all__ = [
    "ALPHA",
    "CARD",
    "JUDGE",
    "N_JUDGED",
    "REPORT",
    "UNFINISHED",
    "Run",
    "RunError",
    "Session",
    "begin",
    "record_of",
    "resume",
    "run_of",
    "save_extended",
    "set_aside",
    "stored",
    "twin_of",
    "write_pages",
]
