"""The checker says "right" to right answers, names known mistakes, and never breaks on a reader's code.

The lessons' files are the only source: cards, stubs, hints and solutions are taken out of them.
"""

import ast
import contextlib
import copy
import json
import random
import re
import textwrap
import time
import tomllib
from collections import deque
from collections.abc import Collection
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lessons import LESSONS, ROOT, cells, read
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from wrong_answers import WRONG

from classroom import exercises
from classroom.exercises import shown
from classroom.exercises.values import plain
from tinylib.chat import prompt_rows
from tinylib.padding import pad

EXERCISES = exercises.EXERCISES
CHECKED = re.compile(r'^exercises\.check\("(\w+)", (\w+)\)$', re.MULTILINE)
FOLDED = re.compile(r"<details><summary>(.+?)</summary>\n\n(.*?)\n</details>", re.DOTALL)
FUNCTIONS = [name for name, card in EXERCISES.items() if card.example]


def cards() -> dict[str, SimpleNamespace]:
    """Read each card out of its lesson: the Markdown cell, and the stub cell after it."""
    found = {}
    for lesson in LESSONS:
        for text, stub in pairwise(read(lesson).cells):
            for name, answer in CHECKED.findall(stub.source):
                folded = dict(FOLDED.findall(text.source))
                (solution,) = re.findall(r"```python\n(.*?)```", folded.pop("Solution"), re.DOTALL)
                found[name] = SimpleNamespace(
                    lesson=lesson,
                    text=text.source,
                    stub=stub.source,
                    answer=answer,
                    outputs=stub.outputs,
                    solution=solution,
                    hints=[re.fullmatch('Hint: "(.+)"', title)[1] for title in folded],
                )
    return found


CARDS = cards()


@cache
def definitions(lesson: Path) -> dict[str, Any]:
    """Run what a lesson imports and defines before its cards, without its models and trainings."""
    names: dict[str, Any] = {}
    for cell in cells(lesson, "code"):
        if "exercises.check" not in cell.source and cell.id != "install":
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef):
                    with contextlib.suppress(NameError):  # a default that a left-out cell computes
                        exec(compile(ast.Module([node], []), lesson.stem, "exec"), names)
    return names


def written(code: str) -> Any:
    """Run a reader's code, and return its function, or its value."""
    code = textwrap.dedent(code).strip()
    if not code.startswith("def "):
        return eval(code, {"torch": torch})
    names: dict[str, Any] = {"torch": torch}
    exec(code, names)
    return names[re.match(r"def (\w+)", code)[1]]


@cache
def said_of_code(name: str, code: str) -> str:
    return said(name, written(code))


def said(name: str, answer: object) -> str:
    text = exercises.verdict(name, answer).text
    assert "\n" not in text
    return text


def test_every_exercise_has_a_card_and_every_lesson_two_to_four() -> None:
    assert sorted(CARDS) == sorted(EXERCISES)
    for lesson in LESSONS[1:]:
        assert 2 <= sum(card.lesson == lesson for card in CARDS.values()) <= 4, lesson


@pytest.mark.parametrize("name", EXERCISES)
def test_a_card_has_its_form(name: str) -> None:
    card = CARDS[name]
    assert re.search(
        r"^## Exercise( \d)?: .+\n\n\*Difficulty [1-5] of 5 · importance [1-5] of 5 · \d+ minutes\*$",
        card.text,
        re.MULTILINE,
    )
    assert len(card.hints) == len(set(card.hints)) >= 2
    assert card.stub.rstrip().endswith(f'exercises.check("{name}", {card.answer})')
    task = card.text.split("minutes*")[1].split("<details>")[0]
    assert len(task) < 1000
    if EXERCISES[name].example:
        assert card.answer == name


@pytest.mark.parametrize("name", EXERCISES)
def test_the_hints_that_the_checker_names_are_those_of_the_card(name: str) -> None:
    assert {mistake.hint for mistake in EXERCISES[name].mistakes} == set(CARDS[name].hints)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_cards_own_solution_is_right(name: str) -> None:
    card = CARDS[name]
    names = definitions(card.lesson).copy()
    exec(card.solution, names)
    assert said(name, names[card.answer]).startswith("✓ Right")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_untouched_card_is_not_answered(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = CARDS[name]
    names = definitions(card.lesson).copy()
    capsys.readouterr()
    exec(f"from classroom import exercises\n{card.stub}", names)
    text = capsys.readouterr().out.rstrip()
    assert text.startswith("Not answered yet")
    (output,) = card.outputs
    assert output.data == shown.box("not answered", text, text, "")._repr_mimebundle_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_on_the_card_is_the_checkers(name: str) -> None:
    """The numbers in the card's text are those that the checker expects."""
    text = re.sub(r"\s", "", CARDS[name].text.split("<details>")[0])
    expected = plain(EXERCISES[name].answer(*EXERCISES[name].example))
    parts = {
        "pad_left": lambda: expected,
        "step_settings": lambda: expected,
        "collate": lambda: [part[1] for key, part in expected.items() if key != "input_ids"],
        "pack_row": lambda: [expected["position_ids"], expected["labels"]],
    }
    for value in parts.get(name, lambda: [expected])():
        assert repr(value).replace(" ", "").replace("'", '"') in text, value


@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [(name, code, hint) for name, answers in WRONG.items() for code, hint in answers],
)
def test_a_wrong_answer_is_refused_with_its_hint(name: str, code: str, hint: str | None) -> None:
    text = said_of_code(name, code)
    assert text.startswith("✗ Not yet: ")
    if hint:
        assert text.endswith(f" Open the hint “{hint}”.")
    else:
        assert "Open the hint" not in text


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a notebook would show, in all its forms."""
    outputs: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda output: outputs.append(output._repr_mimebundle_()))
    monkeypatch.setattr("IPython.core.interactiveshell.InteractiveShell.initialized", lambda: True)
    monkeypatch.setattr(exercises, "_right", set())
    return outputs


@pytest.mark.parametrize("name", EXERCISES)
def test_below_a_known_mistake_its_hint_is_unfolded(name: str, notebook: list[dict[str, str]]) -> None:
    code, title = next(answer for answer in WRONG[name] if answer[1])
    exercises.check(name, written(code))
    verdict, hint = notebook
    assert verdict["text/plain"] == said_of_code(name, code)
    assert "Open the hint" not in verdict["text/html"]
    assert hint["text/markdown"].startswith(f"> **Hint: “{title}”**\n> \n> ")
    unfolded = re.sub("^> ?", "", hint["text/markdown"], flags=re.MULTILINE)
    assert f'Hint: "{title}"</summary>\n\n{unfolded.split("**", 2)[2].strip()}\n' in CARDS[name].text


def test_where_the_lessons_are_not_found_the_line_names_the_hint(
    notebook: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exercises, "printed_cards", dict)
    exercises.check("safe_rows", lambda lengths: [lengths.index(max(lengths))])
    (verdict,) = notebook
    assert "Open the hint “it fails when two rows are the longest”." in verdict["text/html"]


def test_the_box_counts_what_is_right_in_this_lesson(notebook: list[dict[str, str]]) -> None:
    right, letters = EXERCISES["safe_rows"].answer, EXERCISES["garbled_calls"].answer
    exercises.check("pads_per_row", EXERCISES["pads_per_row"].answer)  # of another lesson
    for name, answer in [
        ("garbled_calls", None),
        ("garbled_calls", letters),
        ("garbled_calls", letters),
        ("safe_rows", lambda lengths: 3),
        ("safe_rows", right),
        ("garbled_calls", {"C"}),
    ]:
        exercises.check(name, answer)
    counts = [re.findall(r"Right in this lesson: (.+?)\.<", output["text/html"]) for output in notebook]
    assert counts == [["1 of 1"], [], ["1 of 2"], ["1 of 2"], ["1 of 2"], ["2 of 2"], ["1 of 2"]]


def test_a_box_shows_code_and_no_html_of_the_readers(notebook: list[dict[str, str]]) -> None:
    exercises.check("safe_rows", lambda lengths: "<script>" if lengths[0] == 4 else None)
    exercises.check("pads_per_row", lambda rows: print(end=""))
    first, second = [output["text/html"] for output in notebook]
    assert "&lt;script&gt;" in first
    assert "<script>" not in first
    assert "<code>return …</code>" in second


def test_a_damaged_lesson_takes_only_its_own_cards_away(tmp_path: Path) -> None:
    package = tmp_path / "classroom" / "exercises"
    package.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    for lesson, text in zip(LESSONS, ["{", LESSONS[1].read_text(encoding="utf-8"), "[1]"]):
        (tmp_path / "notebooks" / lesson.name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shown, "__file__", str(package / "shown.py"))
        cards = shown.printed_cards.__wrapped__()
    assert {card.lesson for card in cards.values()} == {LESSONS[1].stem}


def test_an_installed_course_brings_the_lessons_of_its_hints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pyproject.toml installs beside the packages is found by its list of files."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "data-files"
    ]
    ((_, patterns),) = data.items()
    installed = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert set(LESSONS) <= set(installed)
    files = [SimpleNamespace(suffix=path.suffix, locate=lambda path=path: path) for path in installed]
    monkeypatch.setattr(shown, "__file__", str(tmp_path / "site" / "classroom" / "exercises" / "shown.py"))
    monkeypatch.setattr(shown.metadata, "files", lambda name: files)
    assert sorted(shown.printed_cards.__wrapped__()) == sorted(EXERCISES)


@pytest.mark.parametrize("name", EXERCISES)
def test_each_known_mistake_is_met_by_a_wrong_answer(name: str) -> None:
    met = "\n".join(said_of_code(name, code) for code, _ in WRONG[name])
    assert [mistake.says for mistake in EXERCISES[name].mistakes if mistake.says not in met] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_known_mistakes_can_be_told_apart(name: str) -> None:
    """On every draw of cases each mistake differs from the right answer and from the others."""
    card = EXERCISES[name]
    functions = [card.answer, *(mistake.answer for mistake in card.mistakes)]
    functions += [card.starter] if card.starter else []
    for seed in range(20):
        drawn = [card.example, *card.cases(random.Random(seed))]
        before = copy.deepcopy(drawn)
        results = [json.dumps([function(*case) for case in drawn]) for function in functions]
        assert len(set(results)) == len(results)
        assert drawn == before  # the next function is run on the same


def test_the_letters_of_garbled_calls_are_what_the_model_does(
    tinyllama: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> None:
    """The calls on the card are run: which of them change what a short prompt gets?"""
    model, tokenizer = tinyllama
    rows = prompt_rows(tokenizer, ["Name three fruits.", "Which animal says meow? " * 6])
    batch = pad(rows, tokenizer.eos_token_id, "left")

    class Asked:
        """The model as the card's lines call it, with short answers."""

        def generate(self, *args: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            ids = args[0] if args else kwargs["input_ids"]
            return model.generate(*args, **kwargs, max_new_tokens=6, do_sample=False)[:, ids.shape[1] :]

        def __call__(self, input_ids: torch.Tensor) -> Any:
            with torch.no_grad():
                return model(input_ids)

    names = {"model": Asked(), "batch": batch, "tokenizer": tokenizer, "torch": torch, "rows": rows[:1]}
    alone = names["model"].generate(torch.tensor(rows[:1]))[0].tolist()
    first = model(torch.tensor(rows[:1])).logits[0, -1].softmax(-1)
    wrong = set()
    for letter, line in re.findall(r"^([A-F])   (.+)$", CARDS["garbled_calls"].text, flags=re.MULTILINE):
        given = eval(line.split("#")[0].split(": ")[-1], names | {"row": rows[0]})[0]
        moved = (given.softmax(-1) - first).abs().sum() > 0.001 if letter == "F" else given.tolist() != alone
        wrong |= {letter} if moved else set()
    assert wrong == EXERCISES["garbled_calls"].answer


def test_the_same_answer_for_everything_is_told() -> None:
    assert said("pads_per_row", lambda rows: [3, 0]) == (
        "✗ Not yet: your answer is always [3, 0]. But pads_per_row([[5, 2]]) is [0]."
    )


def test_a_forgotten_return_is_told() -> None:
    def forgets(lengths: list[int]) -> None:
        [i for i, length in enumerate(lengths) if length == max(lengths)]

    told = "✗ Not yet: your function returns nothing. Does it end with `return …`?"
    assert said("safe_rows", forgets) == told


def test_of_a_batch_the_part_that_differs_is_shown() -> None:
    def all_ignored(samples: list[list[int]]) -> dict[str, list[int]]:
        row = EXERCISES["pack_row"].answer(samples)
        return row | {"labels": [-100] * len(row["labels"])}

    told = (
        "✗ Not yet: pack_row([[5, 6, 2], [7, 2]])['labels'] should be [-100, 6, 2, -100, 2], yours gives [-"
    )
    assert said("pack_row", all_ignored).startswith(told)
    ids, mask = [[2, 2, 5, 2], [7, 8, 9, 5]], [[0, 0, 1, 1], [1, 1, 1, 0]]
    text = said("pad_left", lambda rows, pad_id: (ids, mask) if len(rows[0]) == 2 else rows)
    assert text == (
        "✗ Not yet: pad_left([[5, 2], [7, 8, 9, 5]], 2)[1][1] should be [1, 1, 1, 1], "
        "yours gives [1, 1, 1, 0]"
    )
    told = "✗ Not yet: the keys should be ['input_ids', 'position_ids', 'labels'], yours are ['input_ids']"
    assert said("pack_row", lambda samples: {"input_ids": samples}) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("garbled_calls", {"A", "D", "F", "B"}, "'B' does not belong to it."),
        ("garbled_calls", {"D", "F"}, "something is missing."),
        ("garbled_calls", ["A", "D", "F"], "the answer is a set, yours is ['A', 'D', 'F']"),
        ("read_the_grid", [2], "the list should have 10 entries, yours has 1."),
        ("read_the_grid", [3] * 10, "the first wrong entry is at index 0: 3."),
    ],
)
def test_of_an_unknown_value_it_is_said_what_is_wrong(name: str, value: object, told: str) -> None:
    assert said(name, value) == f"✗ Not yet: {told}"


def test_right_for_the_example_only_is_told() -> None:
    text = said("safe_rows", lambda lengths: [len(lengths) - 2, len(lengths) - 1])
    assert re.fullmatch(
        r"✗ Not yet: the example is right, but safe_rows\(\[.*\]\) should be \[.*\], yours gives \[.*\]", text
    )


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(3), ValueError(3)], ids=repr)
def test_code_that_raises_is_told_without_a_traceback(error: BaseException) -> None:
    def raises(task: str, side: str, mask: str) -> None:
        raise error

    told = "✗ On is_right('generate', 'left', 'from lengths') your code raised "
    assert said("is_right", raises) == f"{told}{type(error).__name__}: 3"
    assert said("is_right", lambda: None).startswith(f"{told}TypeError: ")


def test_a_loop_without_an_end_is_told() -> None:
    def loops(lengths: list[int]) -> None:
        while True:
            time.sleep(0.01)

    told = "✗ On safe_rows([4, 8, 9, 9]) your code did not end within 2 seconds."
    assert said("safe_rows", loops) == told


def test_the_readers_own_interrupt_goes_through() -> None:
    def interrupted(lengths: list[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("safe_rows", interrupted)


def test_an_answer_that_calls_itself_for_ever_is_told() -> None:
    def again(lengths: list[int]) -> list[int]:
        return again(lengths)

    assert "your code raised RecursionError" in said("safe_rows", again)


def kind(value: object) -> str:
    return type(value).__name__


class Odd:
    """Compares to nothing, and has no bool."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None


@pytest.mark.parametrize(
    "odd", [Odd(), "word", {1: 2}, object(), float("nan"), b"x", torch.ones(2), np.ndarray], ids=kind
)
@pytest.mark.parametrize("name", ["safe_rows", "garbled_calls", "pad_left"])
def test_a_strange_result_is_a_wrong_answer(name: str, odd: object) -> None:
    answer = (lambda *args: odd) if EXERCISES[name].example else odd
    assert said(name, answer).startswith("✗ ")


def test_what_holds_the_same_numbers_is_as_good_as_a_list() -> None:
    def fractions(counts: list[int]) -> list[Fraction]:
        return [Fraction(count) for count in counts]

    def floats(counts: list[int]) -> list[float]:
        return [float(count) for count in counts]

    def values(counts: list[int]) -> Collection[int]:
        return dict(enumerate(counts)).values()

    for convert in (tuple, deque, torch.tensor, floats, fractions, values):
        answer = EXERCISES["pads_per_row"].answer
        assert said("pads_per_row", lambda rows: convert(answer(rows))).startswith("✓ Right")  # noqa: B023


def test_an_iterator_is_told_what_to_do() -> None:
    text = said("safe_rows", lambda lengths: filter(None, lengths))
    assert text.endswith("should be [2, 3], yours gives <filter: make it a list with list(…)>")


def test_an_answer_may_change_its_arguments() -> None:
    def greedy(rows: list[list[int]]) -> list[int]:
        counts = EXERCISES["pads_per_row"].answer(rows)
        rows.clear()
        return counts

    assert said("pads_per_row", greedy).startswith("✓ Right")


def test_the_readers_prints_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    exercises.check("pads_per_row", lambda rows: print("rows:", len(rows)))
    told = "✗ Not yet: your function returns nothing. Does it end with `return …`?"
    assert capsys.readouterr().out == f"rows: 2\n{told}\n"


def test_the_function_itself_is_asked_for() -> None:
    told = "✗ Not yet: give the function itself: exercises.check('safe_rows', safe_rows)"
    assert said("safe_rows", [2, 3]) == told
    assert said("garbled_calls", lambda: {"A", "D", "F"}).startswith("✗ Not yet: the answer is a set")


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_what_cannot_be_shown_is_told_all_the_same() -> None:
    def raises(lengths: list[int]) -> None:
        raise Mute

    endless: list[object] = []
    endless.append(endless)
    assert said("read_the_grid", endless) == "✗ Not yet: your answer cannot be compared: [[...]]"
    assert "that cannot be shown" in said("read_the_grid", [10**5000] * 10)
    assert "that cannot be shown" in said("safe_rows", lambda lengths: [10**5000] * len(lengths))
    assert "your code raised" in said("safe_rows", lambda lengths: endless)
    assert "your code raised" in said("safe_rows", raises)


def test_an_unknown_exercise_is_refused() -> None:
    with pytest.raises(ValueError, match="No exercise 'nothing'; there are boundary, collate, "):
        exercises.check("nothing", print)
