"""The tests of the stores make hundreds of databases."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_databases(ready_databases: None) -> None:
    """New databases are copies."""
