"""Prompts of judges, to the letter; where they come from stands in prompts/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "prompts"

# haotian-liu/LLaVA (c121f04), get_eval of all three review scripts.
REVIEWER = "You are a helpful and precise assistant for checking the quality of the answer."


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How a kind of question is reviewed."""

    role: str
    prompt: str

    def ask(self, *, context: str | None, question: str, answers: tuple[str, str]) -> str:
        """The reviewer's user message; context None: there is no such block."""
        shown = "" if context is None else f"[Context]\n{context}\n\n"
        shown += f"[Question]\n{question}\n\n"
        for number, answer in enumerate(answers, start=1):
            name = f"{self.role} {number}"
            shown += f"[{name}]\n{answer}\n\n[End of {name}]\n\n"
        return f"{shown}[System]\n{self.prompt}\n\n"


@lru_cache(maxsize=1)
def llava_rules() -> dict[str, Rule]:
    """Category -> rule."""
    text = (FOLDER / "llava_rule.json").read_text(encoding="utf-8")
    return {
        category: Rule(role=entry["role"], prompt=entry["prompt"])
        for category, entry in json.loads(text).items()
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgePrompt:
    """A prompt of FastChat's llm_judge; template has {question}, {answer} and others in it."""

    name: str
    system: str
    template: str


@lru_cache(maxsize=1)
def fastchat_prompts() -> dict[str, JudgePrompt]:
    """Name -> prompt."""
    text = (FOLDER / "fastchat_judge_prompts.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {
        row["name"]: JudgePrompt(
            name=row["name"], system=row["system_prompt"], template=row["prompt_template"]
        )
        for row in rows
    }


@lru_cache(maxsize=1)
def mm_vet_prompt() -> str:
    """The few-shot table; ends in a line end."""
    return (FOLDER / "mm_vet.txt").read_text(encoding="utf-8")
