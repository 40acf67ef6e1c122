"""Options of benchmarks are checked before anything is planned."""

from __future__ import annotations

import pytest

from scalesweep.benchmark_options import OPTIONS, Option, check_options, option_values
from scalesweep.errors import ConfigError


def test_what_is_not_given_is_the_default() -> None:
    assert option_values("mmlu", {"shots": 0}) == {"shots": 0, "dev": "dev"}


def test_every_default_is_allowed() -> None:
    for options in OPTIONS.values():
        for option in options.values():
            assert option.fault(option.default) is None


@pytest.mark.parametrize(
    ("benchmark", "given", "message"),
    [
        ("mmlv", {}, "key: no such benchmark; choose one of mini_vqa, mini_text, llava_bench"),
        ("mmlu", {"shot": 5}, "key.shot=5: mmlu has no such option; it has shots, dev"),
        ("mini_vqa", {"x": 1}, "key.x=1: mini_vqa has no such option; it has none"),
        ("mmlu", {"shots": -1}, "key.shots=-1: must be at least 0"),
        ("mmlu", {"shots": True}, "key.shots=True: must be a whole number"),
        ("mm_vet", {"unparsable": "zero"}, "choose one of strict, exclude"),
        ("llava_bench", {"context": ""}, "key.context=: must not be empty"),
    ],
)
def test_what_is_not_allowed_is_named(
    benchmark: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_options(benchmark, given, key="key")

    assert message in str(error.value)


def test_a_switch_takes_true_and_false_only() -> None:
    assert Option(default=False).fault(1) == "must be true or false"
