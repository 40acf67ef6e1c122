from __future__ import annotations

import pytest

from scalesweep.launch.workers import Workers
from tests.fakes.fork_server import end_fork_server
from tests.train.small_stages import Lab, make_data


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Data and workers, shared by all training tests."""
    end_fork_server()
    return Lab(workers=Workers(), data=make_data(tmp_path_factory.mktemp("lab") / "data"))
