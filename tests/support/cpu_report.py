"""Where the tests' processor time goes: python -m pytest -p tests.support.cpu_report.

Prints the files and tests that take the most, with their fixtures and child processes. Unlike
--durations it says the same on a busy machine.
"""

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

NUM_SHOWN = 40

KEY = "cpu_s"


def cpu_s() -> float:
    """Seconds of this process and of its children that have ended, user and system."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    item.user_properties.append((KEY, {}))
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    yield from _timed(item, "setup")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    yield from _timed(item, "call")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    yield from _timed(item, "teardown")


def _timed(item: pytest.Item, phase: str) -> Generator[None, Any, Any]:
    started = cpu_s()
    try:
        return (yield)
    finally:
        dict(item.user_properties)[KEY][phase] = cpu_s() - started


class Report:
    """Collects in the process that prints."""

    def __init__(self) -> None:
        self.phases: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            for phase, seconds in dict(report.user_properties).get(KEY, {}).items():
                self.phases[f"{phase:8} {report.nodeid}"] += seconds

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        files: Counter[str] = Counter()
        for name, seconds in self.phases.items():
            files[name[9:].partition("::")[0]] += seconds
        for title, counts in (("files", files), ("tests", self.phases)):
            terminalreporter.section(
                f"{title} by seconds of processor, {counts.total():.1f} in all"
            )
            for name, seconds in counts.most_common(NUM_SHOWN):
                terminalreporter.write_line(f"{seconds:8.2f} {name}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report())
