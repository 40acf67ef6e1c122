"""The paper's recipes are the defaults: a model and a tuning method are enough."""

from __future__ import annotations

import itertools

import pytest

from scalesweep.config.paths import conf_dir
from scalesweep.errors import ConfigError
from tests.config.composing import cell

MODELS = ("7b", "13b", "33b", "65b", "70b", "mini_xs", "mini_s", "mini_m", "smollm2_135m")
TUNING = ("full", "lora", "qlora")

# nodes, batch, LR, ZeRO (arXiv 2309.09958 section 2; 7b/13b full: LLaVA's scripts)
EXPECTED = {
    ("7b", "full"): (1, 128, 2e-5, 3),
    ("13b", "full"): (1, 128, 2e-5, 3),
    ("13b", "lora"): (1, 64, 1e-4, 3),
    ("33b", "full"): (4, 512, 2e-5, 3),
    ("33b", "lora"): (1, 64, 1e-4, 3),
    ("33b", "qlora"): (1, 64, 1e-4, 2),
    ("65b", "full"): (4, 512, 2e-5, 3),
    ("65b", "lora"): (2, 64, 1e-4, 3),
    ("65b", "qlora"): (2, 64, 1e-4, 2),
    ("mini_xs", "full"): (1, 40, 5e-3, 0),
    ("mini_s", "full"): (1, 40, 3e-3, 0),
    ("mini_m", "full"): (1, 40, 2e-3, 0),
    ("mini_s", "lora"): (1, 40, 1.5e-2, 0),
    ("mini_s", "qlora"): (1, 40, 1.5e-2, 0),
    ("smollm2_135m", "full"): (1, 8, 5e-5, 0),
    ("smollm2_135m", "lora"): (1, 8, 1e-3, 0),
    ("smollm2_135m", "qlora"): (1, 8, 1e-3, 0),
}


@pytest.mark.parametrize(("model", "tuning"), list(itertools.product(MODELS, TUNING)))
def test_every_model_goes_with_every_tuning_method(model: str, tuning: str) -> None:
    config = cell(f"model={model}", f"tuning={tuning}")

    expected = EXPECTED.get((model, tuning))
    found = (
        config.nodes,
        config.batch.global_batch_size,
        config.optim.lr,
        config.zero.stage,
    )
    assert config.model.name == model
    assert config.tuning.method == tuning
    assert expected is None or found == expected
    if tuning != "full":
        assert config.lora.rank is not None
        assert config.lora.alpha == 2 * config.lora.rank


def test_the_command_line_wins_over_recipes() -> None:
    config = cell("model=65b", "tuning=lora", "nodes=1", "optim.lr=3e-4", "lora.rank=8")

    assert config.nodes == 1
    assert config.optim.lr == 3e-4
    assert config.lora.alpha == 16


def test_alpha_can_be_set_apart_from_rank() -> None:
    assert cell("model=33b", "tuning=lora", "lora.rank=512", "lora.alpha=16").lora.alpha == 16


@pytest.mark.parametrize(
    ("data_mix", "batch"), [("mini", 32), ("mini_text", 40)], ids=["pictures", "with text"]
)
def test_text_comes_on_top_of_the_pictures_of_a_step(data_mix: str, batch: int) -> None:
    assert cell("model=mini_s", f"data_mix={data_mix}").batch.global_batch_size == batch


def test_only_65b_makes_its_base() -> None:
    made = [m for m in MODELS if cell(f"model={m}").base.language is not None]

    assert made == ["65b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=mini_s", "align=mini_plain"), "align.template=plain: model=mini_s .* align=mini$"),
        (("model=smollm2_135m", "align=mini"), "align.template=mini: .* align=mini_plain$"),
        (("model=smollm2_135m", "resolution=336px"), "choose 32px or 48px"),
    ],
)
def test_captions_are_written_for_the_model_that_reads_them(
    words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        cell(*words)


OFFICIAL = ("paper", "llava_bench", "llava_bench_coco", "mm_vet", "mmbench", "vicuna80", "mmlu")


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_real_chat_model_takes_the_official_questions(name: str) -> None:
    words = ("model=smollm2_135m", f"evaluation={name}", "judge=gpt4")

    assert cell(*words).evaluation.primary in (name, "llava_bench")
    with pytest.raises(ConfigError, match="does not go with model=mini_s"):
        cell("model=mini_s", *words[1:])


@pytest.mark.parametrize("name", ["llava_bench", "mm_vet", "vicuna80", "paper"])
def test_answers_that_need_a_judge_are_refused_without_one(name: str) -> None:
    words = ("model=7b", f"evaluation={name}", "judge=exact_match")

    with pytest.raises(ConfigError, match=r"judge=exact_match: .*need a judge model; take judge="):
        cell(*words)
    assert cell(*words, "until=generate").until == "generate"


def test_letters_need_no_judge_unless_one_is_to_read_them() -> None:
    words = ("model=7b", "evaluation=mmbench", "judge=exact_match")
    assert cell(*words).judge.scorer == "exact_match"
    with pytest.raises(ConfigError, match="mmbench need a judge model"):
        cell(*words, "+evaluation.options.mmbench.extractor=judge")


REFERENCE = ("model=7b", "evaluation=vicuna80", "+evaluation.options.vicuna80.reference=mine.jsonl")


def test_a_file_that_a_judge_is_shown_must_be_declared() -> None:
    with pytest.raises(ConfigError) as error:
        cell(*REFERENCE)

    declare = '+datasets.vicuna80.files={mine.jsonl: ""}'
    assert str(error.value) == (
        "evaluation.options.vicuna80.reference=mine.jsonl: is not among the files of data set "
        f"vicuna80; declare it: '{declare}'"
    )
    assert cell(*REFERENCE, declare).datasets["vicuna80"].files["mine.jsonl"] == ""


def test_only_files_of_the_chosen_rule_must_be_declared() -> None:
    single = (*REFERENCE, "+evaluation.options.vicuna80.method=single")

    with pytest.raises(ConfigError, match=r"vicuna80\.solutions=reference_answer_gpt-4\.jsonl"):
        cell(*single)
    with pytest.raises(ConfigError, match=r"mm_vet\.subset=bard_set\.json"):
        cell("model=7b", "evaluation=mm_vet", "+evaluation.options.mm_vet.subset=bard_set")


@pytest.mark.parametrize(
    "option",
    sorted(
        f"{path.parent.name}={path.stem}"
        for path in conf_dir().glob("*/*.yaml")
        if path.parent.name not in ("recipe", "datasets")
    ),
)
def test_every_shipped_option_composes(option: str) -> None:
    group, _, name = option.partition("=")
    with_it = {
        "align": {"paper": "model=7b", "mini_plain": "model=smollm2_135m"},
        "evaluation": dict.fromkeys(OFFICIAL, "model=7b"),
        "data_mix": {"llava80k": "model=7b", "llava80k_sharegpt": "model=7b"},
        "resolution": {"224px": "model=7b", "336px": "model=7b"},
        "optim": {"paper": "model=7b"},
        "batch": {"paper": "model=7b"},
        "base": {"sharegpt": "model=65b"},
        "lora": {"all_linear": "tuning=lora"},
    }
    words = [option]
    if extra := with_it.get(group, {}).get(name):
        words.append(extra)

    config = cell(*words)

    assert config.study is None
