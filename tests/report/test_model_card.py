"""Model cards: their head for the hub, and what they say of licences, prices and scores."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from scalesweep.report.model_card import model_card

OPTIM = {"lr": 2e-5, "schedule": "linear", "betas": [0.9, 0.999], "max_steps": None}


def facts(**changes: Any) -> dict[str, Any]:
    """A cell of the paper, judged on one benchmark."""
    found = {
        "scalesweep": {"version": "0.1.0", "commit": "a" * 40},
        "study": "table4",
        "command": "python -m scalesweep -m +sweep=table4",
        "cell": {
            "name": "13b-336px-lora",
            "params": 13_321_000_000,
            "trainable_params": 62_000_000,
            "costs": {
                "tune": {"node_hours": 2.5, "usd": 68.75},
                "standalone": {"node_hours": 7.5, "usd": 206.25},
            },
            "costs_are_whole": True,
        },
        "weights": {
            "language_model": {
                "name": "13b",
                "declared": "hub:lmsys/vicuna-13b-v1.3@main",
                "licence": "non-commercial, LLaMA's",
                "source": "https://huggingface.co/lmsys/vicuna-13b-v1.3",
            },
            "vision_tower": {
                "name": "336px",
                "declared": "hub:openai/clip-vit-large-patch14-336@main",
                "licence": "",
                "source": "",
            },
        },
        "recipe": {"tune": {"method": "lora", "optim": OPTIM, "lora": {"rank": 64}}},
        "execution": {
            "num_nodes": 1,
            "devices_per_node": 8,
            "zero_stage": 3,
            "micro_batch_size": 2,
        },
        "data": [
            {
                "stage": "tune",
                "dataset": "llava80k",
                "file": "llava_instruct_80k.json",
                "max_items": 40_000,
                "num_items": 80_000,
                "sha256": "0123456789abcdef" * 4,
                "generator": None,
                "source": "LLaVA-Instruct-80K",
                "url": "https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K",
                "licence": "CC BY 4.0",
            }
        ],
        "trained": {"tune": {"steps": 625, "num_samples": 39_990, "num_skipped": 10}},
        "scores": {
            "llava_bench": {
                "score": 0.701,
                "standard_error": 0.0123,
                "seeds_in_error": False,
                "num_questions": 60,
                "num_missing": 2,
                "before_tuning": None,
            }
        },
        "prices": [
            {
                "usd_per_node_hour": 27.5,
                "node_devices": 8,
                "cluster": "azure",
                "is_example": False,
            }
        ],
        "stages": {"tune": {"stage": "tune/0123456789abcdef", "state": "done"}},
        "versions": {"torch": ["2.13.0"]},
        "versions_recorded": True,
        "notes": [],
    }
    return {**found, **changes}


MADE = {
    "form": "adapter",
    "with_base": True,
    "method": "lora",
    "template": "vicuna_v1",
    "blind": False,
    "compute_dtype": "bfloat16",
    "transformers": "5.23.0",
    "torch": "2.13.0",
    "device": "cpu",
    "image_token_added": False,
}


def head(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def test_the_head_is_what_the_hub_reads() -> None:
    assert head(model_card(facts(), MADE)) == {
        "base_model": ["lmsys/vicuna-13b-v1.3", "openai/clip-vit-large-patch14-336"],
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "image-text-to-text",
        "license": "other",
        "license_name": "non-commercial, LLaMA's",
        "datasets": ["liuhaotian/LLaVA-Instruct-150K"],
        "tags": ["llava", "multimodal", "scalesweep", "lora"],
    }


@pytest.mark.parametrize(
    ("licence", "hub"),
    [
        ("Llama 2 Community License", {"license": "llama2"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("", {}),
    ],
)
def test_a_licence_that_the_hub_has_a_word_for_is_said_in_it(
    licence: str, hub: dict[str, str]
) -> None:
    known = facts()
    known["weights"]["language_model"]["licence"] = licence

    found = head(model_card(known, MADE))

    assert {k: v for k, v in found.items() if k.startswith("license")} == hub


def test_weights_that_are_on_no_hub_are_named_by_their_hash() -> None:
    known = facts()
    known["weights"]["language_model"]["declared"] = "sha256:" + "ab" * 32

    card = model_card(known, {**MADE, "form": "full", "method": "full"})

    assert "base_model" not in head(card)
    assert head(card)["library_name"] == "transformers"
    assert "13b (sha256 abababababababab)" in card


def test_scores_costs_and_data_stand_as_they_were_measured() -> None:
    card = model_card(facts(), MADE)

    assert "| llava_bench | 0.701 ± 0.012 | 60 (2 without a verdict) | – |" in card
    assert "of the questions alone: one seed says nothing of the luck of a seed." in card
    assert "| the tune stage alone | 2.50 | $68.75 |" in card
    assert "| all its stages, as if it were alone | 7.50 | $206.25 |" in card
    assert "- $27.5 per node-hour, a node of 8 devices, cluster azure" in card
    assert (
        "| tune | llava80k | llava_instruct_80k.json | 80,000 (first 40,000) | 0123456789abcdef | "
        "CC BY 4.0 |"
    ) in card
    assert "- tune: 39,990 samples, 10 broken ones skipped" in card
    assert "| optim.lr | 2e-05 |" in card
    assert "| lora.rank | 64 |" in card


def test_an_example_price_is_called_one_and_no_price_gives_no_dollars() -> None:
    price = {"usd_per_node_hour": 0.1, "node_devices": 2, "cluster": "local", "is_example": True}

    assert "$0.1 per node-hour (an example price)" in model_card(facts(prices=[price]), MADE)
    free = {**price, "usd_per_node_hour": 0.0}
    card = model_card(facts(prices=[free]), MADE)
    assert "| the tune stage alone | 2.50 | – |" in card
    assert "cluster local: no price was set" in card


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"form": "merged", "method": "qlora"}, "its weights here are the dequantised ones"),
        ({"method": "qlora"}, 'llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_p'),
        ({"with_base": False}, "the base is not in this directory"),
        ({"blind": True}, "This is a blind baseline"),
    ],
)
def test_the_card_says_what_one_must_know_of_a_form(made: dict[str, Any], said: str) -> None:
    assert said in model_card(facts(), {**MADE, **made})
    assert said not in model_card(facts(), MADE)
