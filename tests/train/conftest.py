from __future__ import annotations

import pytest

from scalesweep.launch.workers import Workers
from tests.train.small_stages import Lab, make_data


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Data and workers, shared by all training tests."""
    return Lab(workers=Workers(), data=make_data(tmp_path_factory.mktemp("lab") / "data"))
