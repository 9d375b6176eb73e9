"""Tokens come out as whole characters, all of them, and never a bit of a stop string."""

from collections.abc import Iterator, Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from released_files import RELEASED, tokenizer_json
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.generation.detokenizer import Detokenizer

END_TOKENS = ModelConfig.from_folder(RELEASED).eos_token_ids
VOCAB_SIZE = 49_280
unhurried = settings(deadline=None)  # a slow machine is no failure


@cache  # no fixture: hypothesis would print the whole vocabulary with every failure
def tokenizer() -> Tokenizer:
    return Tokenizer.from_buffer(tokenizer_json())


def pieces(ids: Sequence[int], stop: Sequence[str] = (), made: Tokenizer | None = None) -> Iterator[str]:
    made = made or tokenizer()
    special = [token for token, added in made.get_added_tokens_decoder().items() if added.special]
    detokenizer = Detokenizer(made, stop, special)
    for token in ids:
        yield detokenizer.push(token)
    yield detokenizer.flush()


@pytest.mark.parametrize(
    "text",
    [
        "A lighthouse on a cliff.",
        " leading and  double   spaces \n\n\tand tabs ",
        "Größe, naïve, e\u0301\u0323 combining",
        "日本語のテキスト和漢字",
        "🌊👩‍👩‍👧‍👦🇨🇭🏳️‍🌈",
        "العربية и русский हिन्दी",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ₿ ‰",
        "",
    ],
)
def test_only_whole_characters_come_out(text: str) -> None:
    found = list(pieces(tokenizer().encode(text).ids))

    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)


def test_a_character_of_several_tokens_comes_out_with_its_last() -> None:
    ids = tokenizer().encode("🦭").ids
    assert len(ids) > 1  # or this tests nothing

    assert list(pieces(ids)) == [""] * (len(ids) - 1) + ["🦭", ""]


def test_text_comes_out_as_soon_as_it_is_certain() -> None:
    ids = tokenizer().encode("What is the capital?").ids

    assert list(pieces(ids)) == [tokenizer().decode([token]) for token in ids] + [""]


def test_replacement_characters_of_the_model_come_out() -> None:
    """They look like half a character, and a scanned page may hold them."""
    for text in ("damaged \ufffd letter", "damaged \ufffd", "\ufffd\ufffd"):
        assert "".join(pieces(tokenizer().encode(text).ids)) == text


def test_special_tokens_are_left_out() -> None:
    ids = tokenizer().encode("<|im_start|>A cat.<end_of_utterance>").ids
    assert set(END_TOKENS) & set(ids)

    assert "".join(pieces(ids)) == "A cat."


@unhurried
@given(text=st.text(max_size=60))
def test_any_text_comes_out_whole(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False).ids

    assert "".join(pieces(ids)) == tokenizer().decode(ids, skip_special_tokens=True)


@unhurried
@given(ids=st.lists(st.integers(0, VOCAB_SIZE - 1) | st.integers(100, 500), max_size=40))
def test_no_sequence_of_tokens_is_an_error(ids: list[int]) -> None:
    """Many a token is some bytes of a character; a model may put them in any order."""
    found = "".join(pieces(ids))

    assert found == tokenizer().decode(ids, skip_special_tokens=True)


@cache
def byte_tokenizer() -> Tokenizer:
    """Bytes as tokens of their own, as Llama 2's and Mistral's tokenizers fall back to."""
    words = ["x", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="x"))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return made


def test_bytes_make_characters() -> None:
    ids = [1 + byte for byte in "aé日🌊".encode()]

    assert "".join(pieces(ids, made=byte_tokenizer())) == "aé日🌊"


@unhurried
@given(ids=st.lists(st.sampled_from([0, 1 + 0x61, 1 + 0xE6, 1 + 0x97, 1 + 0xFF]), max_size=12))
def test_no_sequence_of_bytes_is_an_error(ids: list[int]) -> None:
    """The tokenizers library's own stream refuses some: `Invalid prefix encountered`."""
    found = "".join(pieces(ids, made=byte_tokenizer()))

    assert found.count("x") == ids.count(0)


# --- stop strings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("The answer is 42.\n\nNext question", ["\n\n"], "The answer is 42."),
        ("one two three", ["two"], "one "),
        ("one two three", ["o th"], "one tw"),
        ("one two three", ["ne two thr"], "o"),
        ("one two three", ["one"], ""),
        ("one two three", ["three"], "one two "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["nothing", "of", "this"], "one two three"),
        ("one two thre", ["three"], "one two thre"),
        ("one two", ["", "two"], "one "),
        ("ababac", ["abac"], "ab"),
        ("aab", ["ab"], "a"),
        ("日本語🌊です", ["🌊"], "日本語"),
        ("日本語🌊です", ["語🌊で"], "日本"),
        ("<doctag>page</doctag> more", ["</doctag>"], "<doctag>page"),
    ],
)
def test_text_ends_before_the_stop_string(text: str, stop: list[str], expected: str) -> None:
    found = list(pieces(tokenizer().encode(text).ids, stop))

    assert "".join(found) == expected


def test_what_only_begins_like_a_stop_string_is_released() -> None:
    detokenizer = Detokenizer(tokenizer(), ["STOPPED"])
    found = [detokenizer.push(token) for token in tokenizer().encode("we STOP here").ids]

    assert "".join(found) == "we STOP here"  # all of it before the end
    assert not detokenizer.stopped
    assert detokenizer.flush() == ""


def test_a_stop_string_in_the_last_token_does_not_leak() -> None:
    """The token holds a space and half a character, so its text is only decided at the end."""
    token = 17097
    assert tokenizer().decode([token]) == " \ufffd"

    assert "".join(pieces([token], stop=[" "])) == ""


def test_nothing_comes_out_after_a_stop_string() -> None:
    detokenizer = Detokenizer(tokenizer(), ["two"])
    ids = tokenizer().encode("one two three four").ids
    found = []
    for token in ids:
        found.append(detokenizer.push(token))
        if detokenizer.stopped:
            break

    assert "".join(found) == "one "
    assert len(found) < len(ids)
    assert detokenizer.push(ids[-1]) == ""
    assert detokenizer.flush() == ""
    assert detokenizer.stopped


def cut(texts: list[str], stop: list[str]) -> str:
    """The first of ever longer texts that holds a stop string, up to it; else the last."""
    for text in texts:
        if places := [text.find(each) for each in stop if each in text]:
            return text[: min(places)]
    return texts[-1]


@unhurried
@given(
    text=st.text("ab \n", min_size=1, max_size=30),
    stop=st.lists(st.text("ab \n", min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_no_bit_of_a_stop_string_leaks(text: str, stop: list[str]) -> None:
    ids = tokenizer().encode(text).ids
    expected = cut([tokenizer().decode(ids[: count + 1]) for count in range(len(ids))], stop)

    so_far = ""
    for piece in pieces(ids, stop):
        so_far += piece
        assert expected.startswith(so_far)
    assert so_far == expected


@pytest.mark.parametrize(("stop", "expected"), [(" ", "one"), (" two", "one"), ("two", "one "), (" one", "one two")])
def test_a_prefix_is_no_part_of_a_stop_text(stop: str, expected: str) -> None:
    """The space that a template leaves to the model ends no answer."""
    made = Tokenizer(WordLevel({" ": 0, "one": 1, "two": 2, "<unk>": 3}, unk_token="<unk>"))
    made.decoder = decoders.Fuse()
    detokenizer = Detokenizer(made, [stop], prefix=" ")
    assert "".join([*map(detokenizer.push, [0, 1, 0, 2]), detokenizer.flush()]) == expected
