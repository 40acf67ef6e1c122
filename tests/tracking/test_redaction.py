"""What of a config leaves this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from scalesweep.tracking.redaction import REDACTED, public_config, sounds_secret
from tests.config.composing import cell


@pytest.mark.parametrize(
    "name", ["hf_token", "WANDB_API_KEY", "secret", "password", "passwd", "aws_credentials"]
)
def test_values_under_a_secret_key_are_left_out(name: str) -> None:
    assert public_config({"judge": {name: "abc"}}) == {"judge": {name: REDACTED}}
    assert public_config({name: {"inner": "abc"}}) == {name: REDACTED}
    assert public_config({name: None}) == {name: None}


def test_of_an_absolute_path_its_last_name_stays() -> None:
    config = {"model": {"path": "/home/me/weights/13b"}, "roots": ["/data/coco", "data/coco"]}

    assert public_config(config) == {
        "model": {"path": "…/13b"},
        "roots": ["…/coco", "data/coco"],
    }


def test_secrets_in_texts_are_left_out() -> None:
    config = {"source": "see https://me:pw@host/x", "files": {"/home/me/a.json": ""}}

    assert public_config(config) == {"source": "see https://host/x", "files": {"…/a.json": ""}}


def test_where_and_for_whom_a_study_runs_is_left_out() -> None:
    config = {"store": "/tmp/store", "tracking": {"entity": "team"}, "study": "x", "seed": 1}

    assert public_config(config) == {"seed": 1}


def names_in(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        yield name
        if isinstance(value, Mapping):
            yield from names_in(value)


def test_only_where_a_judges_key_is_is_taken_for_a_secret() -> None:
    """It is the name of a variable; somebody may yet write the key itself there."""
    config = dataclasses.asdict(cell("model=13b"))

    assert {"tokenizer", "max_new_tokens"} <= set(names_in(config))
    assert {name for name in names_in(config) if sounds_secret(name)} == {"api_key_variable"}
