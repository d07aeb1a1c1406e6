from __future__ import annotations

import pytest
from report_contents import HEADER, NAMES, report_of

from likely.reporting.html.content import ReportContent


@pytest.fixture
def bare() -> ReportContent:
    """Minimal report."""
    return ReportContent(HEADER, NAMES)


@pytest.fixture(scope="session")
def full() -> ReportContent:
    return report_of(NAMES, (1, 8, 8), per_class=8)


@pytest.fixture(scope="session")
def large() -> ReportContent:
    return report_of(tuple(f"Fruit/Apple/Golden-Delicious-{i}" for i in range(81)), (3, 16, 16), per_class=4)
