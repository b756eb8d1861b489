"""Ends what a test has started, and shows what it wrote when the test has failed: as in the tests of the system."""

import pytest

from tests.system.conftest import _processes, pytest_runtest_makereport, sink

pytest.register_assert_rewrite("tests.clients.running", "tests.clients.known")

__all__ = ["_processes", "pytest_runtest_makereport", "sink"]
