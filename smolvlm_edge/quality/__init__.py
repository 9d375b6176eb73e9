"""What quantisation cost: bundles beside their reference, the same model in float32. Needs the [export] extra.

- `text`: what is read, and `distributions` of the next token on it
- `pictures`: image features, and greedy answers
- `tensors`: every matrix; `matrices` reads them from the graph files
- `report`: all of it for one bundle, with its sizes
- `plot`: several bundles, KL divergence against megabytes
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from smolvlm_edge.bundle import TOKENIZER_FILES, Bundle
from smolvlm_edge.errors import RequestError
from smolvlm_edge.graphs.engines import Engines
from smolvlm_edge.quality.distributions import TextFidelity, compare_text
from smolvlm_edge.quality.pictures import Answer, Picture, PictureFidelity, answer, drawn_pictures, pictures_from
from smolvlm_edge.quality.plot import plot
from smolvlm_edge.quality.report import Quality, Sizes, summary, worst_tensors
from smolvlm_edge.quality.tensors import tensor_errors
from smolvlm_edge.quality.text import WINDOW, Text

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how much of it is done, and how much there is."""


def measure(
    bundles: Mapping[str, Bundle],
    reference: Bundle,
    text: Text,
    pictures: Sequence[Picture],
    engines: Engines,
    *,
    prompt: str,
    max_tokens: int,
    progress: Progress = lambda *_: None,
) -> list[Quality]:
    """Measure bundles one after the other. Two models at most are open at once.

    For the short form, which takes seconds, there is `compare_text`.

    Args:
        bundles: Name -> bundle, all of the reference's model.
        reference: A bundle exported in fp32.
        text: What every model reads.
        pictures: What every model is asked about; may be empty.
        engines: Open the graphs.
        prompt: What is asked about every picture.
        max_tokens: Longest answer.
        progress: Called after every step.

    Raises:
        RequestError: A bundle is not of the reference's model, or the reference is quantised itself.
        IntegrityError: The weights of a bundle are damaged.
        ImageError: A picture cannot be read.
    """
    for bundle in (reference, *bundles.values()):
        check_fit(bundle, reference)
    for bundle in (reference, *bundles.values()):
        bundle.verify(engines.targets)

    def ask(name: str, bundle: Bundle) -> list[Answer]:
        on_picture = partial(progress, f"{name}: pictures")
        return answer(pictures, prompt, max_tokens, bundle, engines, on_picture) if pictures else []

    expected = ask("reference", reference)
    return [
        Quality(
            name=name,
            recipe=bundle.recipe["name"],
            sizes=Sizes.of(bundle, engines.targets),
            text=compare_text(text, bundle, reference, engines.decoder, partial(progress, f"{name}: text")),
            pictures=tuple(map(PictureFidelity.of, pictures, ask(name, bundle), expected)),
            tensors=tensor_errors(bundle, reference, engines.targets),
        )
        for name, bundle in bundles.items()
    ]


def check_fit(bundle: Bundle, reference: Bundle) -> None:
    """Refuse what cannot be compared.

    Raises:
        RequestError: The two are not of one model, or the reference is quantised itself.
    """
    if any(width["kind"] != "float32" for _, width in reference.recipe["rules"]):
        raise RequestError(
            f"{reference.folder} is quantised itself ({reference.recipe['name']}): "
            "compare with the checkpoint, or with a bundle made by: smol-edge export CHECKPOINT --quant fp32"
        )
    difference = next(_differences(bundle, reference), None)
    if difference:
        raise RequestError(f"{bundle.folder} and {reference.folder} are not one model: {difference}")


def _differences(bundle: Bundle, reference: Bundle) -> Iterator[str]:
    ours, theirs = _flat(bundle.model.to_dict()), _flat(reference.model.to_dict())
    for name, value in ours.items():
        if value != theirs[name]:
            yield f"{name} is {value} and {theirs[name]}"
    # what the two left out say that matters is in the manifest and was compared already
    for file in sorted({*TOKENIZER_FILES} - {"config.json", "generation_config.json"}):
        if bundle.files.get(file) != reference.files.get(file):
            yield f"they differ in {file}"
    if bundle.adapter != reference.adapter:
        names = (each.adapter.name if each.adapter else "none" for each in (bundle, reference))
        yield f"adapter {' and '.join(names)}; export both with the same --adapter"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"text": {"vocab_size": 3}} becomes {"text.vocab_size": 3}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


__all__ = [
    "WINDOW",
    "Picture",
    "Progress",
    "Quality",
    "Text",
    "TextFidelity",
    "check_fit",
    "compare_text",
    "drawn_pictures",
    "measure",
    "pictures_from",
    "plot",
    "summary",
    "worst_tensors",
]
