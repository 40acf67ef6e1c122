"""The newer ways of FastChat to judge: one answer rated, or two answers compared twice.

Source: lm-sys/FastChat (0e6d3e4) fastchat/llm_judge/common.py, gen_judgment.py, show_result.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesweep.errors import DataError
from scalesweep.evaluate.answer_files import official_id
from scalesweep.evaluate.json_lines import Line, by_question, read_lines
from scalesweep.evaluate.judge_prompts import JudgePrompt, fastchat_prompts
from scalesweep.evaluate.judging.items import JudgeItem, Replies, Request
from scalesweep.evaluate.questions import Question
from scalesweep.evaluate.reviews import (
    MOST_POINTS,
    PointRun,
    Scored,
    categories_of,
    numpy_round,
    parse_rating,
    parse_winner,
    runs_left_out,
    score_points,
)
from scalesweep.evaluate.saved_files import ONE_MODEL, refuse_nothing_shared
from scalesweep.evaluate.scores import BenchmarkScore, population_spread

# NEED_REF_CATS: the judge is shown a solution. "reasoning" is no category of Vicuna-80.
SOLVED_CATEGORIES = ("coding", "math", "reasoning")
CANDIDATE = "candidate"
"""What records call the model whose answers are judged."""
_GAMES = ("g1", "g2")


def _prompt(kind: str, question: Question) -> JudgePrompt:
    """kind: single | pair."""
    general, solved = {
        "single": ("single-v1", "single-math-v1"),
        "pair": ("pair-v2", "pair-math-v1"),
    }[kind]
    return fastchat_prompts()[solved if question.category in SOLVED_CATEGORIES else general]


def _request(prompt: JudgePrompt, user: str) -> Request:
    return Request(
        messages=(("system", prompt.system), ("user", user)), temperature=0.0, max_tokens=2048
    )


# ---------------------------------------------------------------- one answer rated


def single_text(question: Question, answer: str, solutions: Mapping[str, str]) -> str:
    """The user message that asks for a rating."""
    return _prompt("single", question).template.format(
        question=question.text,
        answer=answer,
        ref_answer_1=solutions.get(question.question_id, ""),
    )


def single_items(
    questions: Sequence[Question], answers: Mapping[str, str], solutions: Mapping[str, str]
) -> list[JudgeItem]:
    return [
        JudgeItem(
            item=question.question_id,
            request=_request(
                _prompt("single", question),
                single_text(question, answers[question.question_id], solutions),
            ),
            is_valid=lambda reply: parse_rating(reply) is not None,
        )
        for question in questions
    ]


def single_runs(replies: Sequence[Replies]) -> list[dict[str, float | None]]:
    """Ratings of each run as fractions of 10."""
    return [
        {
            item: _tenth(parse_rating(reply.text))
            for item, reply in run.items()
            if reply.text is not None
        }
        for run in replies
    ]


def single_rows(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    solutions: Mapping[str, str],
    run: Replies,
    *,
    judge_model: str,
) -> list[dict[str, Any]]:
    """Records of gen_judgment.py --mode single; no time is noted, so that runs repeat exactly."""
    rows = []
    for question in questions:
        reply = run.get(question.question_id)
        if reply is None or reply.text is None:
            continue
        rating = parse_rating(reply.text)
        rows.append(
            {
                "question_id": official_id(question),
                "model": CANDIDATE,
                "judge": [judge_model, _prompt("single", question).name],
                "user_prompt": single_text(question, answers[question.question_id], solutions),
                "judgment": reply.text,
                "score": -1 if rating is None else rating,
                "turn": 1,
                "tstamp": 0.0,
            }
        )
    return rows


def score_single(
    runs: Sequence[PointRun], questions: Mapping[str, str], **about: Any
) -> BenchmarkScore:
    """10 x the mean rating. questions: question_id -> category."""
    score, whole = _score(
        runs,
        questions,
        rule=(
            "10 x mean rating from 1 to 10, as FastChat's show_result.py --mode single (which "
            "prints the mean rating); ratings that cannot be read are left out, as there; of "
            "several judge runs the mean"
        ),
        **about,
    )
    if not whole.runs:
        return score
    return replace(score, also={"mean rating, 1 to 10": numpy_round(_mean(whole.runs) / 10, 2)})


# ---------------------------------------------------------------- two answers compared twice


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Answers that the candidate's are compared with."""

    model_id: str
    answers: Mapping[str, str]


def game_id(question: str, game: str) -> str:
    """Item of a judge: g1 shows the candidate as A, g2 as B."""
    return f"{question} {game}"


def pair_text(
    question: Question,
    game: str,
    answer: str,
    baseline: Baseline,
    solutions: Mapping[str, str],
) -> str:
    """The user message that asks for a comparison."""
    sides = (answer, baseline.answers[question.question_id])
    first, second = sides if game == "g1" else sides[::-1]
    return _prompt("pair", question).template.format(
        question=question.text,
        answer_a=first,
        answer_b=second,
        ref_answer_1=solutions.get(question.question_id, ""),
    )


def pair_items(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    baseline: Baseline,
    solutions: Mapping[str, str],
) -> list[JudgeItem]:
    return [
        JudgeItem(
            item=game_id(question.question_id, game),
            request=_request(
                _prompt("pair", question),
                pair_text(question, game, answers[question.question_id], baseline, solutions),
            ),
            is_valid=lambda reply: parse_winner(reply) is not None,
        )
        for question in questions
        for game in _GAMES
    ]


def pair_runs(
    questions: Sequence[str], replies: Sequence[Replies]
) -> list[dict[str, float | None]]:
    """Points of each run: 1 won, 0.5 tie, 0 lost; a question needs replies to both games."""
    return [
        {
            question: points(*games)
            for question in questions
            if (games := _games(question, run)) is not None
        }
        for run in replies
    ]


def _games(question: str, run: Replies) -> tuple[str | None, str | None] | None:
    """Winners of both games as records name them; None inside: unreadable."""
    replies = [run.get(game_id(question, game)) for game in _GAMES]
    first, second = (None if reply is None else reply.text for reply in replies)
    if first is None or second is None:
        return None
    return _winner(first, "g1"), _winner(second, "g2")


def _winner(judgment: str, game: str) -> str | None:
    """model_1 (the candidate), model_2 or tie."""
    first, second = ("model_1", "model_2") if game == "g1" else ("model_2", "model_1")
    winner = parse_winner(judgment)
    return {"A": first, "B": second}.get(winner, winner) if winner is not None else None


def points(first: str | None, second: str | None) -> float | None:
    """Of two games: a tie in the first or a disagreement is a tie; an error in one is none."""
    if first is None or second is None:
        return None
    if first == "tie" or first != second:
        return 0.5
    return 1.0 if first == "model_1" else 0.0


def pair_rows(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    baseline: Baseline,
    solutions: Mapping[str, str],
    run: Replies,
    *,
    judge_model: str,
) -> list[dict[str, Any]]:
    """Records of gen_judgment.py --mode pairwise-baseline; no time is noted."""
    rows = []
    for question in questions:
        games = _games(question.question_id, run)
        if games is None:
            continue
        prompts, judgments = {}, {}
        for game in _GAMES:
            answer = answers[question.question_id]
            prompts[game] = pair_text(question, game, answer, baseline, solutions)
            judgments[game] = run[game_id(question.question_id, game)].text
        rows.append(
            {
                "question_id": official_id(question),
                "model_1": CANDIDATE,
                "model_2": baseline.model_id,
                "g1_winner": games[0] or "error",
                "g2_winner": games[1] or "error",
                "judge": [judge_model, _prompt("pair", question).name],
                "g1_user_prompt": prompts["g1"],
                "g1_judgment": judgments["g1"],
                "g2_user_prompt": prompts["g2"],
                "g2_judgment": judgments["g2"],
                "turn": 1,
                "tstamp": 0.0,
            }
        )
    return rows


def score_pairwise(
    runs: Sequence[PointRun], questions: Mapping[str, str], **about: Any
) -> BenchmarkScore:
    """Win rate with ties as halves. questions: question_id -> category."""
    score, _ = _score(
        runs,
        questions,
        rule=(
            "100 x win_rate_adjusted (a tie is half a win), as FastChat's show_result.py --mode "
            "pairwise-baseline; each question is judged twice with sides swapped, a disagreement "
            "is a tie, questions with an unreadable game are left out, as there; of several judge "
            "runs the mean"
        ),
        **about,
    )
    also = {}
    for name, worth in (("win rate", 1.0), ("loss rate", 0.0), ("tie rate", 0.5)):
        shares = [
            sum(value == worth for value in played) / len(played)
            for run in runs
            if (played := [run[q] for q in questions if run.get(q) is not None])
        ]
        if shares:
            also[name] = numpy_round(100 * _mean(shares))
    return replace(score, also=also)


# ---------------------------------------------------------------- both


def _score(
    runs: Sequence[PointRun],
    questions: Mapping[str, str],
    *,
    rule: str,
    benchmark: str,
    options: Mapping[str, Any],
    num_empty: int | None = None,
    notes: Sequence[str] = (),
    judge_model: str | None = None,
) -> tuple[BenchmarkScore, Scored]:
    whole = score_points(runs, list(questions), unreadable=None)
    printed = [numpy_round(percent) for percent in whole.runs]
    score = BenchmarkScore(
        benchmark=benchmark,
        rule=rule,
        options=options,
        whole=whole.part,
        categories={
            category: score_points(runs, members, unreadable=None).part
            for category, members in categories_of(questions).items()
        },
        runs=printed,
        run_spread=population_spread(printed),
        num_empty=num_empty,
        items=whole.items,
        notes=[*notes, *runs_left_out(runs, whole)],
        judge_model=judge_model,
    )
    return score, whole


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tenth(rating: float | None) -> float | None:
    return None if rating is None else rating / 10


# ---------------------------------------------------------------- saved records


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """One file of records of one model."""

    file: Path
    points: Mapping[str, float | None]
    judges: frozenset[str]
    models: tuple[str, ...]
    """Whose answers: one, or the two that are compared."""
    asked: Mapping[str, object]
    """question -> what the judge was asked, the answers in it; None where it is not kept."""
    by_hand: tuple[str, ...]
    """Questions whose stored score is not what the judgment says."""


def method_of(row: Mapping[str, Any]) -> str:
    """relative | single | pairwise: how a saved line was judged."""
    if "g1_winner" in row:
        return "pairwise"
    return "single" if "judgment" in row else "relative"


def read_run(file: Path) -> SavedRun:
    """Records of either mode.

    Raises:
        DataError: a line is no record, or the file holds several models.
    """
    lines = by_question(read_lines(file), done="judged")
    models = _models(file, list(lines.values()))
    judged = {question: _points(line) for question, line in lines.items()}
    return SavedRun(
        file=file,
        points={question: stored for question, (stored, _) in judged.items()},
        judges=frozenset(_judge(line) for line in lines.values()) - {""},
        models=models,
        asked={
            question: line.row.get("user_prompt") or line.row.get("g1_user_prompt") or None
            for question, line in lines.items()
        },
        by_hand=tuple(q for q, (stored, said) in judged.items() if stored != said),
    )


def refuse_other_models(runs: Sequence[SavedRun]) -> None:
    """Refuse files that are no judge runs of one model's answers.

    Raises:
        DataError: they name different models, are about other answers or share no question.
    """
    first = runs[0]
    seen: dict[str, tuple[Path, object]] = {}
    for run in runs:
        if run.models != first.models:
            raise DataError(
                f"{run.file}: is of {' and '.join(run.models)}, {first.file} of "
                f"{' and '.join(first.models)}; {ONE_MODEL}: score each model alone"
            )
        for question, asked in run.asked.items():
            if asked is None:
                continue
            file, before = seen.setdefault(question, (run.file, asked))
            if asked != before:
                raise DataError(
                    f"{run.file}: question {question} is about other answers than in {file} "
                    f"(user_prompt); {ONE_MODEL}: score each model alone"
                )
    refuse_nothing_shared({run.file: run.points for run in runs})


def _models(file: Path, lines: Sequence[Line]) -> tuple[str, ...]:
    """Of all lines, which must be of the same."""
    for line in lines:
        if line.row.get("turn", 1) != 1:
            raise line.fault("turn 2: Vicuna-80 has one turn; this is another benchmark's record")
    names = ("model_1", "model_2") if method_of(lines[0].row) == "pairwise" else ("model",)
    found = []
    for name in names:
        models = sorted({line.text(name) for line in lines})
        if len(models) > 1:
            raise DataError(
                f"{file}: {name} is {', '.join(models)}; keep the lines of one model in a file"
            )
        found += models
    return tuple(found)


def _judge(line: Line) -> str:
    judge = line.row.get("judge")
    return str(judge[0]) if isinstance(judge, list) and judge else ""


def _points(line: Line) -> tuple[float | None, float | None]:
    """(what the record has, what its judgments say)."""
    if method_of(line.row) == "pairwise":
        stored = [line.text(f"{game}_winner") for game in _GAMES]
        for winner in stored:
            if winner not in ("model_1", "model_2", "tie", "error"):
                raise line.fault(f"winner {winner} is none of model_1, model_2, tie, error")
        said = [_winner(line.text(f"{game}_judgment"), game) for game in _GAMES]
        first, second = (None if winner == "error" else winner for winner in stored)
        return points(first, second), points(*said)
    score = line.row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise line.fault(f"score is {score!r:.60}, no number")
    if abs(score) > MOST_POINTS:
        raise line.fault(f"score {score!r:.60} is beyond {MOST_POINTS:.0f}, no rating")
    stored_rating = None if score == -1 or score != score else float(score)
    return _tenth(stored_rating), _tenth(parse_rating(line.text("judgment")))
