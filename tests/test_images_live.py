"""The same pictures and conversations through transformers, live: holds for whatever codecs are installed here."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from released_files import RELEASED, unpack
from sample_pictures import PICTURES, SETTINGS, Picture
from sample_prompts import PROMPTS

pytest.importorskip("transformers")  # the [parity] extra
pytest.importorskip("torch")

from make_processor_goldens import reference_ids, reference_tiles

from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.pictures.images import Tiles, cut, open_image

pytestmark = pytest.mark.parity

CONFIG = ImageConfig.from_folder(RELEASED)
TOLERANCE = 1e-6


@cache
def picture(name: str) -> Picture:
    return PICTURES[name]()


def tiles(name: str, setting: str) -> Tiles:
    return cut(open_image(picture(name)), replace(CONFIG, **SETTINGS[setting]))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_tiles_are_those_of_transformers(name: str, setting: str) -> None:
    expected = reference_tiles(picture(name), setting)
    found = tiles(name, setting)

    assert (found.rows, found.columns) == (expected.rows, expected.columns)
    values = np.concatenate(list(found.pixel_values()))
    assert values.shape == expected.pixel_values.shape
    assert values.dtype == expected.pixel_values.dtype
    assert np.abs(values - expected.pixel_values).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["landscape", "banner_5000x10", "palette_transparent_bytes", "exif_6_jpeg"])
@pytest.mark.parametrize("setting", ["released", "unsplit", "edge_512"])
def test_tiles_are_those_of_smolvlms_own_processor(name: str, setting: str) -> None:
    expected = reference_tiles(picture(name), setting, smolvlm=True)
    found = tiles(name, setting)

    assert (found.rows, found.columns) == (expected.rows, expected.columns)
    assert np.abs(np.concatenate(list(found.pixel_values())) - expected.pixel_values).max() <= TOLERANCE


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder = unpack(tmp_path_factory.mktemp("released"))
    return PromptEncoder(folder, ModelConfig.from_folder(folder))


@pytest.mark.parametrize("name", PROMPTS)
def test_token_ids_are_those_of_transformers(name: str, encoder: PromptEncoder) -> None:
    conversation = PROMPTS[name]

    assert encoder.encode(conversation.messages, conversation.grids).tolist() == reference_ids(conversation)
