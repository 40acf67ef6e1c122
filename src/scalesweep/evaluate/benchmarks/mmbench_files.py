"""MMBench's files of answers: LLaVA's jsonl, and the sheet that the official server takes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from scalesweep.errors import ConfigError, DataError
from scalesweep.evaluate.answer_files import answer_id
from scalesweep.evaluate.benchmarks.mmbench_table import LETTERS, Row
from scalesweep.evaluate.json_lines import by_question, read_lines, write_lines

# haotian-liu/LLaVA, scripts/convert_mmbench_for_submission.py: what is left out, and where the
# answer stands.
LEFT_OUT = ("hint", "category", "source", "image", "comment", "l2-category")
PREDICTION = "prediction"
PREDICTION_COLUMN = 6
# No sheet can hold these (XML 1.0).
_NO_SHEET_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def write_answer_lines(
    file: Path,
    rows: Sequence[Row],
    texts: Mapping[str, str],
    *,
    prompts: Mapping[str, str],
    options: Mapping[str, Sequence[str]],
    model_id: str,
) -> None:
    """As llava/eval/model_vqa_mmbench.py writes them, of rows that have an answer.

    prompts: without the sentence that asks for a letter, as there.
    """
    write_lines(
        file,
        [
            {
                "question_id": row.index,
                "round_id": 0,
                "prompt": prompts[item],
                "text": texts[item],
                "options": list(options[item]),
                "option_char": list(LETTERS[: len(options[item])]),
                "answer_id": answer_id(item, texts[item]),
                "model_id": model_id,
                "metadata": {},
            }
            for row in rows
            if (item := str(row.index)) in texts
        ],
    )


def write_submission(file: Path, rows: Sequence[Row], texts: Mapping[str, str]) -> None:
    """The official sheet; a row without an answer has an empty prediction.

    Text is written as text, whatever it begins with: "=" would be a formula.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")

    def cell(value: str | int) -> Any:
        made = WriteOnlyCell(
            sheet, value=_NO_SHEET_TEXT.sub("", value) if isinstance(value, str) else value
        )
        if isinstance(value, str):
            made.data_type = "s"
        return made

    columns = [name for name in rows[0].cells if name not in LEFT_OUT]
    sheet.append([*columns[:PREDICTION_COLUMN], PREDICTION, *columns[PREDICTION_COLUMN:]])
    for row in rows:
        values = [row.index if name == "index" else row.cells[name] for name in columns]
        values.insert(PREDICTION_COLUMN, texts.get(str(row.index), ""))
        sheet.append([None if value == "" else cell(value) for value in values])
    made = BytesIO()
    book.save(made)
    file.write_bytes(_without_times(made))


_MODIFIED = re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*")
_EPOCH = b"1980-01-01T00:00:00Z"


def _without_times(sheet: BytesIO) -> bytes:
    """The same sheet as if made at the beginning of zip's time: equal answers are equal bytes."""
    result = BytesIO()
    with ZipFile(sheet) as old, ZipFile(result, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = _MODIFIED.sub(rb"\g<1>" + _EPOCH, old.read(name))
            new.writestr(ZipInfo(name), content, ZIP_DEFLATED)
    return result.getvalue()


def table_file(data: Path | None) -> Path:
    """The table of answers' questions.

    Raises:
        ConfigError: none is given, or a folder does not have exactly one.
    """
    if data is None:
        raise ConfigError(
            "score mmbench: needs --data FILE.tsv, MMBench's own table, for the right answers"
        )
    if not data.is_dir():
        return data
    tables = sorted(data.glob("*.tsv"))
    if len(tables) != 1:
        names = ", ".join(table.name for table in tables) or "none"
        raise ConfigError(f"score mmbench: --data {data} has to hold one .tsv, found {names}")
    return tables[0]


def read_answers(file: Path, known: Collection[str]) -> dict[str, str]:
    """Index of a row -> answer.

    known: rows of the table.

    Raises:
        DataError: the file is not in an official format, or answers other questions.
    """
    texts = _from_sheet(file) if file.suffix == ".xlsx" else _from_lines(file)
    if other := [item for item in texts if item not in known]:
        raise DataError(
            f"{file}: answers row {other[0]}, which the table does not have; {len(other)} of "
            f"{len(texts)} are not there"
        )
    return texts


def _from_lines(file: Path) -> dict[str, str]:
    lines = read_lines(file)
    for line in lines:
        if line.row.get("round_id", 0) != 0:
            raise line.fault(
                "round_id is not 0: LLaVA's --all-rounds makes passes of its own, which are not "
                "those of the table; answer each row once"
            )
    return {item: line.text("text") for item, line in by_question(lines, done="answered").items()}


def _from_sheet(file: Path) -> dict[str, str]:
    """A row without a prediction is an empty answer, as the official server takes it."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except (OSError, BadZipFile, KeyError, ValueError, InvalidFileException) as error:
        raise DataError(f"{file}: cannot be read as a sheet ({error})") from error
    try:
        header, *rows = list(book.worksheets[0].iter_rows(values_only=True)) or [()]
    except ValueError as error:
        raise DataError(f"{file}: a cell cannot be read ({error})") from error
    finally:
        book.close()
    if not {"index", PREDICTION} <= set(header):
        raise DataError(f"{file}: has no columns index and {PREDICTION} in its first line")
    at, said = header.index("index"), header.index(PREDICTION)
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not isinstance(row[at], int) or str(row[at]) in found:
            raise DataError(f"{file}, row {number}: index {row[at]!r} is no number, or twice there")
        found[str(row[at])] = "" if row[said] is None else str(row[said])
    return found
