"""The scenes that the demonstration model learns from and is judged by."""

import re
from itertools import islice
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm_edge.demo.scenes import MAKERS, Scene, draw, scenes
from smolvlm_edge.demo.scenes.drawing import FONTS, outline, text_width
from smolvlm_edge.demo.scenes.scene import Shape, Text
from smolvlm_edge.demo.scenes.wording import NUMBERS

EQUAL = dict.fromkeys(MAKERS, 1.0)


def some(maker: str, count: int = 60, *, held_out: bool = False, seed: int = 5) -> list[Scene]:
    return list(islice(scenes(seed, held_out=held_out, weights={maker: 1.0}), count))


def shapes(scene: Scene) -> list[Shape]:
    return [mark for mark in scene.sketches[0].marks if isinstance(mark, Shape)]


def test_one_seed_draws_one_series_of_pictures() -> None:
    first, second = (list(islice(scenes(7, held_out=False, weights=EQUAL), 40)) for _ in range(2))
    assert first == second
    pictures = [np.asarray(draw(sketch)).tobytes() for scene in first for sketch in scene.sketches]
    assert pictures == [np.asarray(draw(sketch)).tobytes() for scene in second for sketch in scene.sketches]
    assert first != list(islice(scenes(8, held_out=False, weights=EQUAL), 40))


def test_no_scene_and_no_word_is_on_both_sides() -> None:
    """Even if the same chance draws them: the side follows from what is drawn."""
    sides = {}
    for held_out in (True, False):
        drawn = list(islice(scenes(3, held_out=held_out, weights=EQUAL), 400))
        assert all(scene.held_out is held_out for scene in drawn)
        strings = {mark.string for scene in drawn for s in scene.sketches for mark in s.marks if isinstance(mark, Text)}
        sides[held_out] = {string.lower() for string in strings if re.fullmatch(r"[a-z]+", string)}
    assert sides[True]
    assert not sides[True] & sides[False]


@pytest.mark.parametrize("maker", MAKERS)
def test_every_question_has_an_answer_and_every_mark_is_on_the_paper(maker: str) -> None:
    for scene in some(maker):
        assert scene.questions
        assert all(q.text.strip() and q.answer.endswith((".", "!")) and q.kind for q in scene.questions)
        for sketch in scene.sketches:
            width, height = sketch.units
            assert max(width, height) == pytest.approx(192)
            for mark in sketch.marks:
                if isinstance(mark, Text):
                    assert mark.x >= 0
                    assert mark.x + text_width(mark.string, mark.font, mark.size) <= width
                    assert 0 < mark.y <= height
                if isinstance(mark, Shape):
                    assert 0 <= mark.x <= width
                    assert 0 <= mark.y <= height
            assert draw(sketch).size == (sketch.width, sketch.height)


def test_a_shape_has_its_colour_where_it_stands_and_the_paper_shows_beside_it() -> None:
    for scene in some("describing"):
        sketch = scene.sketches[0]
        pixels = np.asarray(draw(sketch)).astype(int)
        scale = max(sketch.width, sketch.height) / 192
        for shape in shapes(scene):
            centre = pixels[min(int(shape.y * scale), sketch.height - 1), min(int(shape.x * scale), sketch.width - 1)]
            assert np.abs(centre - shape.rgb).max() <= 2
            assert sum(abs(a - b) for a, b in zip(shape.rgb, sketch.background[0], strict=True)) > 100


def test_counts_are_the_counts_of_what_is_drawn() -> None:
    counted = 0
    for scene in some("counting"):
        names = [shape.name for shape in shapes(scene)]
        for question in scene.questions:
            found = re.fullmatch(r"There (?:is|are) (\w+) (\w+?)(?:e?s)?\.", question.answer)
            if question.kind == "count" and found and found[2] in {*names, "cross"}:
                counted += 1
                assert NUMBERS.index(found[1]) == names.count(found[2])
    assert counted > 50


def test_yes_and_no_are_true_and_about_as_frequent() -> None:
    answers = []
    for scene in some("describing", 200):
        there = {(shape.colour, shape.name) for shape in shapes(scene)}
        for question in scene.questions:
            found = re.fullmatch(r"(Yes|No), there is (?:an?|no) (\w+) (\w+)\.", question.answer)
            if found:
                answers.append(found[1] == "Yes")
                assert ((found[2], found[3]) in there) == answers[-1]
    assert 0.4 < np.mean(answers) < 0.6


def test_a_description_names_every_shape_in_reading_order() -> None:
    for scene in some("describing"):
        says = next(q.answer for q in scene.questions if q.kind == "describe")
        drawn = sorted(shapes(scene), key=lambda s: (round(s.y / scene.sketches[0].units[1] * 3 - 0.5), s.x))
        found = re.findall(r"a (small|large) (\w+) (\w+)", says)
        assert found == [(shape.size, shape.colour, shape.name) for shape in drawn]


def test_small_text_asks_for_tiles() -> None:
    """Small capitals are at most 12 of the 192 units high: 6 pixels in the whole picture squashed to one tile."""
    kinds = {q.kind for scene in some("reading") for q in scene.questions}
    assert {"small text", "word", "string"} <= kinds


def test_the_two_pictures_of_a_pair_differ_unless_nothing_changed() -> None:
    for scene in some("pair"):
        before, after = scene.sketches
        assert (before == after) == (scene.questions[0].answer == "Nothing changed.")


@given(st.integers(0, 10**9), st.sampled_from(sorted(MAKERS)), st.booleans())
def test_every_maker_takes_any_chance(seed: int, maker: str, held_out: bool) -> None:
    scene = MAKERS[maker](Random(seed), held_out=held_out)
    assert all(q.answer for q in scene.questions)


def test_fonts_know_every_letter() -> None:
    for index in range(len(FONTS)):
        assert text_width("Wg9", index, 10.0) > text_width("W", index, 10.0) > 0


def test_outlines_stay_within_their_circle() -> None:
    for name in ("square", "triangle", "diamond", "heart", "cross", "star"):
        corners = outline(Shape(name, "red", "large", (255, 0, 0), 50.0, 60.0, 10.0))
        assert all(abs(x - 50) <= 10.01 and abs(y - 60) <= 10.01 for x, y in corners)
