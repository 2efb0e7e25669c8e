"""The quiz says of each option whether it is right and why, and needs nothing that takes time to load."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from lessons import LESSONS, NOTEBOOKS, QUIZ, ROOT, cells

from classroom import quiz
from classroom.exercises import shown

QUESTIONS = [cell.source for cell in cells(QUIZ, "markdown") if quiz.QUESTION.match(cell.source)]
NUMBERS = range(1, len(QUESTIONS) + 1)


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the quiz has said."""
    texts: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda output: texts.append(output.text))
    monkeypatch.setattr(quiz, "_answers", {})
    return texts


def test_there_are_ten_questions_that_are_asked_in_class_too() -> None:
    asked = tomllib.loads((ROOT / "book" / "questions.toml").read_text(encoding="utf-8")).values()
    assert [text.split("\n\n")[1] for text in QUESTIONS if text.split("\n\n")[1] not in asked] == []
    assert [int(quiz.QUESTION.match(text)[1]) for text in QUESTIONS] == list(range(1, 11))
    code = [cell.source.splitlines()[-1] for cell in cells(QUIZ, "code")[1:]]
    assert code == [*(f"quiz.answer({number}, ...)" for number in NUMBERS), "quiz.score()"]


def test_each_lesson_from_01_on_has_a_question_and_each_letter_is_right_sometimes() -> None:
    found = quiz.questions().values()
    assert {question.lesson for question in found} == {path.stem[:2] for path in LESSONS[1:]}
    for text, question in zip(QUESTIONS, found):
        link = re.search(r"\[lesson (\d\d)\]\((\1_\w+\.ipynb)\)", text)
        assert (link[1], (NOTEBOOKS / link[2]).is_file()) == (question.lesson, True)
    letters = [question.right for question in found]
    assert all(2 <= letters.count(letter) <= 3 for letter in "abcd")


@pytest.mark.parametrize("number", NUMBERS)
def test_each_option_has_its_reason_and_one_is_right(number: int, said: list[str]) -> None:
    offered, folded = QUESTIONS[number - 1].split("<details><summary>Reasons</summary>")
    options = re.findall(r"^- \*\*(.)\)\*\* .+$", offered, re.MULTILINE)
    assert options == list(quiz.questions()[number].reasons) == list("abcd")
    for letter in options:
        quiz.answer(number, letter.upper())
    assert [text.startswith("✓ Right. ") for text in said].count(True) == 1
    for letter, text in zip(options, said):
        mark, reason = re.fullmatch(r"(✓ Right|✗ Not this one)\. (.+)", text).groups()
        assert f"- **{letter})** {mark[0]} {reason}\n" in folded
        assert "*" not in reason  # a box shows code, and no other Markdown
    assert len(set(said)) == 4


def test_what_is_no_answer_is_told(said: list[str]) -> None:
    for odd in (..., None, "e", "", 3, "b and c"):
        quiz.answer(1, odd)
    assert said == ["Not answered yet."] * 2 + ["Answer with one letter: a, b, c, d."] * 4
    with pytest.raises(ValueError, match="no question 11"):
        quiz.answer(11, "a")


def test_the_last_answers_count(said: list[str]) -> None:
    quiz.score()
    for number, question in quiz.questions().items():
        quiz.answer(number, "(" + question.right + ")")
    quiz.score()
    wrong = "a" if quiz.questions()[4].right != "a" else "b"
    quiz.answer(4, wrong)
    quiz.score()
    assert [text for text in said if "not answered" in text] == [
        "0 of 10 right, 10 not answered.",
        "10 of 10 right, 0 not answered.",
        "9 of 10 right, 0 not answered. Read again: lesson 02.",
    ]


def test_without_its_notebook_the_quiz_says_where_the_reasons_are(
    said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shown, "_notebooks", dict)
    monkeypatch.setattr(quiz, "questions", quiz.questions.__wrapped__)
    quiz.answer(1, "b")
    assert said == ["The quiz's notebook was not found. Unfold the reasons under the question."]


def test_it_loads_no_torch() -> None:
    code = "import sys; from classroom import quiz; quiz.answer(1, 'c'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stdout.startswith("✓ Right.")
