"""Makes tests/goldens/kit.json: made-up replies, and what VLMEvalKit's own functions say of them.

    python -m pip download --no-deps ms-vlmeval==0.0.20 && unzip -q ms_vlmeval-*.whl -d kit
    python tests/make_kit_goldens.py kit

The folder holds the package `vlmeval`; pandas, openpyxl, torch and what else its functions really use must be
installed, the rest is stood in for (kit.py). Replies are drawn from a seed: right ones, wrong ones and half ones,
wrapped in what models wrap them in.
"""

# ruff: noqa: PLC0415 - the kit is imported when the stand-ins are there

import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import kit

COUNT = 100
HEADER = "Handwritten Mathematical Expression Recognition"
WORDS = [
    *(
        "red",
        "blue",
        "a dog",
        "the cat",
        "two dogs",
        "Paris",
        "teddy bear",
        "bear",
        "B",
        "none",
        "a",
        "3",
        "3.5",
        "12%",
    ),
    *("1,000", "10 km", "$4.50", "北京", "left side", "sitting", "it's raining", "World War II", "coca-cola", "n/a"),
    *("the Eiffel Tower", "No", "yes", "St. John's", "0", "7:45", "[1, 2]", "dont know", "x^{2} + 1", "up/down"),
]
WRAPPED = [
    *("{}", "{}", "{}", "{}.", " {}", "{}\n", "({})", "**{}**", "The answer is {}", "The answer is: {}.", "Answer: {}"),
    *("answer is **{}**", "It is {}, I think.", '"{}"', "'{}'", "“{}”。", "答案是{}。", "选{}", "The {}", "{} or none"),
    *("I'm sorry, but without the image provided I would say {}", "{}, because it looks like that in the picture here"),
    *(
        "Well, {} is what I see here, although the picture leaves it rather open",
        "{{{}}}",
        "[{}]",
        "{}!",
        "- {}",
        "#{}",
    ),
    *("<b>{}</b>", "{}\n\nExplanation: none", "{} and {}", "not {}", "{}%", "a {}", "{};", "Best option: ({})", "{}:"),
]
EMPTY = ["", " ", "\n", "Z", "Cannot determine the answer", "no", "Yes", "Yes, no", "I do not know."]


def replies(random: Random, right: list[str], wrong: list[str]) -> str:
    """One reply."""
    if random.random() < 0.06:
        return random.choice(EMPTY)
    text = random.choice(random.choice([right, right, wrong]))
    if random.random() < 0.1:
        text = random.choice([text.upper(), text.lower(), text.replace(" ", "  "), text[:-1], f"{text}s"])
    return random.choice(WRAPPED).replace("{{", "{").replace("}}", "}").replace("{}", text)


def choices(random: Random) -> dict[str, Any]:
    """A question with options in columns."""
    options = dict(zip("ABCDE", random.sample(WORDS, random.randint(2, 5)), strict=False))
    answer = random.choice([letter for letter, option in options.items() if option != "n/a"])
    others = [letter for letter in options if letter != answer]
    right = [answer, options[answer], f"{answer}. {options[answer]}", f"({answer}) {options[answer]}"]
    wrong = [*others, *(options[letter] for letter in others), f"{others[0]}. {options[others[0]]}"]
    return {**options, "question": "Which?", "answer": answer, "prediction": replies(random, right, wrong)}


def texts(random: Random) -> dict[str, Any]:
    """A question with a text or a list of texts for an answer."""
    answers = [random.choice(WORDS) for _ in range(random.choice([1, 2, 10]))]
    if len(answers) == 10:  # people agree
        answers = [random.choice(answers[:3]) for _ in range(10)]
    one = random.random() < 0.3 and not answers[0].startswith("[")
    return {"answer": answers[0] if one else str(answers), "prediction": replies(random, answers, WORDS)}


def people(random: Random) -> dict[str, Any]:
    """A question that ten people answered."""
    said = random.sample(WORDS, random.randint(1, 4))
    answers = [random.choice(said) for _ in range(10)]
    changed = [random.choice([f"the {text}", text.upper(), text.replace("'", ""), f"{text}.", text]) for text in said]
    return {"answer": str(answers), "prediction": random.choice([replies(random, said, WORDS), *changed])}


def figures(random: Random) -> dict[str, Any]:
    """A question with a number for an answer."""
    number = round(random.choice([0, 3, 17, -2.5, 0.12, 1000, 45.6, 2023]) * random.choice([1, 1, 1.1]), 3)
    near = [f"{number * factor:g}" for factor in (1, 1, 1.049, 1.051, 0.951, 0.949, 1.0)]
    odd = [
        f"{number}%",
        f"{number:,.2f}",
        f"{number} km",
        f"{number / 100:g}",
        "Yes",
        "blue",
        f"0{number}",
        "1e3",
        "nan",
    ]
    answer = random.choice([f"{number:g}", f"{number:g}", f"{number:g}%", "Blue", "['No', '3']"])
    return {"answer": answer, "prediction": random.choice([replies(random, [*near, answer], odd), *near, *odd])}


def polar(random: Random) -> dict[str, Any]:
    """A question to be answered by yes or no."""
    said = [
        "Yes",
        "No",
        "yes",
        "no",
        "yes.",
        "No, it is not",
        "Yes, there is a dog",
        "There is no dog",
        "Nope",
        "Yesterday",
    ]
    answer = random.choice(["Yes", "No"])
    return {"answer": answer, "prediction": replies(random, said, said)}


def mathvista(random: Random) -> dict[str, Any]:
    """A question of MathVista, of any of its kinds."""
    kind = random.choice(["multi_choice", "integer", "float", "text"])
    if kind == "multi_choice":
        row = choices(random)
        options = [row[letter] for letter in "ABCDE" if letter in row]
        about = {"answer": row[row["answer"]], "choices": str(options), "answer_option": row["answer"]}
        return {"question_type": kind, "answer_type": "text", "question": "?", "prediction": row["prediction"], **about}
    if kind == "text":
        row = texts(random)
    else:
        answer = str(
            random.choice([0, 3, -4, 12, 1000]) if kind == "integer" else random.choice([0.0, 1.5, 3.0, -0.25])
        )
        said = [
            answer,
            answer,
            f"{answer}.0",
            f" {answer}\n",
            f"+{answer}",
            "3",
            "1_000",
            "1,000",
            "1.50",
            "12 cm",
            "x",
        ]
        row = {"answer": answer, "prediction": random.choice([*said, replies(random, said, WORDS)])}
    return {
        "question_type": "free_form",
        "answer_type": kind,
        "choices": "",
        "answer_option": "",
        "question": "?",
        **row,
    }


def ocrbench(random: Random) -> dict[str, Any]:
    """A question of OCRBench: its answers are always a list."""
    row = texts(random)
    answers = (
        row["answer"] if row["answer"].startswith("['") or row["answer"].startswith('["') else str([row["answer"]])
    )
    return {"category": random.choice([HEADER, "Doc-oriented VQA"]), **row, "answer": answers}


def video_mme(random: Random) -> dict[str, Any]:
    """A question with options that have their letters."""
    options = random.sample(WORDS, 4)
    answer = random.randrange(4)
    right, wrong = [chr(65 + answer), options[answer]], [*"ABCD", *options]
    candidates = [f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True)]
    reply = replies(random, right, wrong)
    return {"question": "Which?", "candidates": str(candidates), "answer": chr(65 + answer), "prediction": reply}


def mvbench(random: Random) -> dict[str, Any]:
    """A question with options that have no letters."""
    options = random.sample([word for word in WORDS if len(word) > 1], random.randint(2, 4))
    answer = random.randrange(len(options))
    letters = "ABCD"[: len(options)]
    right = [f"({letters[answer]})", letters[answer], f"{letters[answer]}) {options[answer]}", options[answer]]
    reply = replies(random, right, [*letters, *options, f"({letters[0]})", f"{letters[-1]}. {options[-1]}"])
    return {"question": "Which?", "candidates": str(options), "answer": options[answer], "prediction": reply}


def tempcompass(random: Random) -> dict[str, Any]:
    """A question about a clip, or captions of it to choose from."""
    options, kind = random.sample(WORDS[:22], 3), random.choice(["multi-choice", "caption_matching"])
    names = random.choice([["Caption A", "Caption B"], ["Option 1", "Option 2"], ["Sentence A", "Sentence B"]])
    if kind == "multi-choice":
        candidates = [f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True)]
        parts = [part for each in candidates for part in (each, each[0], each[:2], f"{each[0]})", each[3:])]
    else:
        candidates = [f"{name}: {option}" for name, option in zip(names, options, strict=False)]
        parts = [part for each in candidates for part in (each, each.split(": ")[0], each.split(": ")[1])]
        parts += [name.split()[1] for name in names] + [f"{name[-1]}) {options[0]}" for name in names]
    answer = random.choice(candidates)
    reply = random.choice([random.choice(parts), f"{random.choice(parts)}.", replies(random, parts, parts)])
    row = {"task_type": kind, "candidates": str(candidates), "answer": answer, "prediction": reply}
    return {"question": "Which?", **row}


def tempcompass_polar(random: Random) -> dict[str, Any]:
    """A question about a clip to be answered by yes or no."""
    row = polar(random)
    return {"question": "Is it?", **row, "answer": row["answer"].lower()}


def mmmu(random: Random) -> dict[str, Any]:
    """A question of MMMU, with or without options."""
    if random.random() < 0.6:
        return {**dict.fromkeys("ABCDE"), **choices(random)}
    answer = random.choice([word for word in WORDS if len(word) > 1 and not word.startswith("[")])
    return {
        **dict.fromkeys("ABCDE"),
        "question": "What?",
        "answer": answer,
        "prediction": replies(random, [answer], WORDS),
    }


Judge = Callable[[str, dict[str, Any]], float]


def judges() -> dict[str, tuple[Callable[[Random], dict[str, Any]], Judge]]:
    """Data set -> who makes a row, and the kit's function that scores it."""
    import pandas as pd
    from vlmeval.dataset.utils import mathvista as math
    from vlmeval.dataset.utils.multiple_choice import MMMU_preproc, eval_vanilla
    from vlmeval.dataset.utils.mvbench import check_ans_with_model
    from vlmeval.dataset.utils.tempcompass import evaluate_tempcompass_mcq, evaluate_tempcompass_YorN
    from vlmeval.dataset.utils.videomme import extract_characters_regex, extract_option
    from vlmeval.dataset.utils.vqa_eval import hit_calculate, process_line
    from vlmeval.dataset.utils.yorn import YOrN_Extraction

    class NoJudge:
        def generate(self, *args: Any, **kwargs: Any) -> str:
            return math.FAIL_MSG

    def choice(name: str, row: dict[str, Any]) -> float:
        cells = {letter: row.get(letter) for letter in "ABCDE"}
        read = pd.read_csv(StringIO(pd.DataFrame([cells]).to_csv(index=False)), dtype=str)  # an option "n/a" goes
        frame, answer = pd.DataFrame([{**row, **read.iloc[0]}]), row["answer"]
        if "MMMU" in name:
            frame, answer = MMMU_preproc(frame), answer if answer in "ABCDE" else "A"
        return eval_vanilla(None, frame.assign(GT=answer).iloc[0], name)["hit"]

    def vqa(name: str, row: dict[str, Any]) -> float:
        methods = {"TextVQA": "vqa_score", "ChartQA": "relaxed_accuracy", "DocVQA": "anls", "InfoVQA": "anls"}
        return hit_calculate([process_line(row, methods[name.split("_", maxsplit=1)[0]])], name)[0]

    def mathvista_score(name: str, row: dict[str, Any]) -> float:
        return math.post_check({**row, **math.MathVista_auxeval(NoJudge(), row)}, prefetch=False)

    def ocr(name: str, row: dict[str, Any]) -> float:
        return _ocrbench(row)

    def video(name: str, row: dict[str, Any]) -> float:
        found = extract_characters_regex(row["prediction"]) or extract_option(None, dict(row), name)
        return found == row["answer"]

    def mv(name: str, row: dict[str, Any]) -> float:
        options = eval(row["candidates"])
        letter = "ABCD"[options.index(row["answer"])]
        item = {**row, **dict(zip("ABCD", options, strict=False)), "answer": letter}
        return check_ans_with_model(row["prediction"], f"({letter}) {row['answer']}", None, item, name)

    def polarity(name: str, row: dict[str, Any]) -> float:
        return YOrN_Extraction(row["prediction"]) == row["answer"]

    return {
        **dict.fromkeys(("MMStar", "AI2D_TEST", "ScienceQA_TEST"), (choices, choice)),
        "MMMU_DEV_VAL": (mmmu, choice),
        "MathVista_MINI": (mathvista, mathvista_score),
        "OCRBench": (ocrbench, ocr),
        "ChartQA_TEST": (figures, vqa),
        **dict.fromkeys(("DocVQA_VAL", "InfoVQA_VAL"), (texts, vqa)),
        "TextVQA_VAL": (people, vqa),
        **dict.fromkeys(("POPE", "HallusionBench", "MME"), (polar, polarity)),
        "Video-MME": (video_mme, video),
        "MVBench": (mvbench, mv),
        "TempCompass_MCQ": (tempcompass, lambda name, row: evaluate_tempcompass_mcq(None, row)["rating"]),
        "TempCompass_YorN": (tempcompass_polar, lambda name, row: evaluate_tempcompass_YorN(None, row)["rating"]),
    }


def _ocrbench(row: dict[str, Any]) -> float:
    """One row through `OCRBench.evaluate`, which reads a file and writes another."""
    from tempfile import TemporaryDirectory

    import pandas as pd
    from vlmeval.dataset.image_vqa import OCRBench

    with TemporaryDirectory() as folder:
        file = f"{folder}/one.pkl"
        pd.DataFrame([row]).to_pickle(file)
        return OCRBench.evaluate(file)["Final Score"]


def made() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name, (make, judge) in judges().items():
        random, rows = Random(f"kit {name}"), []
        while len(rows) < COUNT:
            row = make(random)
            rows.append({**row, "score": round(float(judge(name, dict(row))), 6)})
        yield name, rows


def asked() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Data set -> rows, the message that the kit makes of each, and the prompts that its two classes make of that.

    A message is a list of texts and, for pictures, their numbers.
    """
    import pandas as pd
    from vlmeval.dataset import build_dataset  # noqa: F401 - the package imports itself in this order
    from vlmeval.dataset.image_mcq import ImageMCQDataset, MMMUDataset
    from vlmeval.dataset.image_vqa import ImageVQADataset, MathVista, OCRBench
    from vlmeval.dataset.image_yorn import ImageYORNDataset
    from vlmeval.dataset.mvbench import MVBench
    from vlmeval.dataset.tempcompass import TempCompass_MCQ, TempCompass_YorN
    from vlmeval.dataset.videomme import VideoMME
    from vlmeval.vlm.smolvlm import SmolVLM, SmolVLM2

    hint = {"question": "How many are there?", "hint": "Count them.", "A": "one", "B": "None", "C": "two", "D": "3"}
    options = [{**hint, "answer": "A"}, {**hint, "hint": None, "answer": "A"}]
    place = {**hint, "hint": None, "question": "Is <image 2> left of <image 1>?", "answer": "A"}
    opened = {"question": "What does <image 1> say, and <image 2>?", "answer": "nothing"}
    text = [{"question": "What does it say? ", "answer": "x"}, {"question": "Is it red?", "answer": "Yes"}]
    hard = "Hint: Give the letter.\nQuestion: How many?\nChoices:\n(A) one\n(B) two"
    candidates = {"video": "x", "candidates": "['A. one', 'B. two']", "answer": "A", "question": "How many?"}
    plain = {"video": "x", "candidates": "['one', 'two']", "answer": "one", "question": "How many?"}
    sets = {
        **dict.fromkeys(("MMStar", "AI2D_TEST", "ScienceQA_TEST", "SEEDBench_IMG"), (ImageMCQDataset, options)),
        "MMMU_DEV_VAL": (MMMUDataset, [*options, place, opened]),
        "MathVista_MINI": (MathVista, [{**text[0], "question": hard}, {**text[0], "question": "Hint: A number.\nHm?"}]),
        "OCRBench": (OCRBench, text),
        **dict.fromkeys(("ChartQA_TEST", "DocVQA_VAL", "InfoVQA_VAL", "TextVQA_VAL"), (ImageVQADataset, text)),
        **dict.fromkeys(("POPE", "HallusionBench", "MME"), (ImageYORNDataset, text)),
        "Video-MME": (VideoMME, [candidates]),
        "MVBench": (MVBench, [plain]),
        "TempCompass_MCQ": (TempCompass_MCQ, [candidates]),
        "TempCompass_YorN": (TempCompass_YorN, [plain]),
    }

    class Written(Exception):  # noqa: N818
        pass

    class Processor:
        image_processor = type("ImageProcessor", (), {})()

        def __call__(self, text: str, **kwargs: Any) -> None:
            raise Written(text)

    def written(model: Any, message: list[dict[str, str]], name: str) -> str:
        model.processor, model.sampling_frames, model.resolution = Processor(), 64, 512
        try:
            model.generate_inner(message, name)
        except Written as written:
            return str(written)
        raise AssertionError

    for name, (kind, rows) in sets.items():
        data_set, found = kind.__new__(kind), []
        vars(data_set).update(dataset_name=name, meta_only=True, use_subtitle=False, data_root="", fps=-1)
        data_set.save_video_into_images = lambda line: ["0.png", "1.png"]
        data_set.save_video_frames = lambda *args: (["0.png", "1.png"], [0, 1], {})
        for row in rows:
            paths = ["0.png", "1.png"] if "<image 2>" in row["question"] else ["0.png"]
            line = pd.Series({**row, "image_path": paths, "prefix": "", "suffix": ""})
            line = line[[column for column in line.index if line[column] is not None and line[column] != "None"]]
            args = () if data_set.MODALITY == "IMAGE" else (False,)
            message = data_set.build_prompt(line, *args)
            pieces = [int(each["value"][0]) if each["type"] == "image" else each["value"] for each in message]
            kinds = (SmolVLM, SmolVLM2) if data_set.MODALITY == "IMAGE" else (SmolVLM2,)
            prompts = [written(kind.__new__(kind), message, name) for kind in kinds]
            found.append({"row": row, "message": pieces, "prompts": prompts})
        yield name, found


if __name__ == "__main__":
    kit.use_kit(Path(sys.argv[1]))
    version, *_ = [
        *(
            folder.name.split("-")[1].removesuffix(".dist")
            for folder in Path(sys.argv[1]).glob("ms_vlmeval-*.dist-info")
        ),
        "a checkout",
    ]
    sets = dict(made())
    lines = ",\n".join(
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]"
        for name, rows in sets.items()
    )
    prompts = json.dumps(dict(asked()), ensure_ascii=False)
    text = f'{{"kit": "ms-vlmeval {version}", "prompts": {prompts},\n"sets": {{\n{lines}}}}}\n'
    (Path(__file__).parent / "goldens" / "kit.json").write_text(text, encoding="utf-8")
    for name, rows in sets.items():
        print(f"{name}: {sum(row['score'] > 0 for row in rows)} of {len(rows)} right")
