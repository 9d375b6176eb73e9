"""What config.json, generation_config.json and preprocessor_config.json say, typed.

The exporter and the runtime both read these. Nothing is assumed silently: a value that would change
the model's answers and is missing is an error, because a wrong `rope_theta` "runs and emits fluent
nonsense". Where transformers itself leaves a value out of the file because it equals the class
default, that default stands here (transformers 5.23, Idefics3VisionConfig and LlamaConfig).
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from smolvlm_edge.errors import IntegrityError, UnsupportedModelError

MODEL_TYPES = ("idefics3", "smolvlm")
LARGEST = 1 << 20  # no size, count or token id of a model of this kind comes near it


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The SigLIP tower. Sizes of pictures are in pixels."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    layer_norm_eps: float

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The Llama decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A whole Idefics3-type model."""

    model_type: str
    vision: VisionConfig
    text: TextConfig
    scale_factor: int
    """Side of the square of patches that the connector folds into one image token."""
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    """Every token that ends an answer, in ascending order."""
    tie_word_embeddings: bool

    @property
    def image_seq_len(self) -> int:
        """Image tokens that one tile becomes."""
        return (self.vision.patches_per_side // self.scale_factor) ** 2

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read config.json and, if there, generation_config.json of a Hugging Face folder.

        Raises:
            IntegrityError: A file is unreadable, or a value is missing or of the wrong type.
            UnsupportedModelError: Another architecture, or a variant of it that is not supported.
        """
        config = _Section(read_json(folder / "config.json"), "config.json")
        model_type = config.text("model_type")
        if model_type not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"model_type {model_type!r} is not supported: smol-edge exports {' and '.join(MODEL_TYPES)} checkpoints"
            )
        text = config.section("text_config")
        generation_file = folder / "generation_config.json"
        generation = read_json(generation_file) if generation_file.is_file() else {}
        model = cls(
            model_type=model_type,
            vision=_vision_config(config.section("vision_config")),
            text=_text_config(text),
            scale_factor=config.integer("scale_factor", 2),
            image_token_id=config.integer("image_token_id", 128257),
            eos_token_ids=_eos_token_ids(generation, config.values, text.values),
            tie_word_embeddings=bool(config.values.get("tie_word_embeddings", False)),
        )
        if model.scale_factor < 1 or model.vision.patches_per_side % model.scale_factor:
            raise IntegrityError(
                f"config.json: {model.vision.patches_per_side} patches per side are no multiple of "
                f"scale_factor {model.scale_factor}"
            )
        return model

    def to_dict(self) -> dict[str, Any]:
        """Plain values for bundle.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`.

        Raises:
            IntegrityError: A value is missing or unknown.
        """
        try:
            return cls(
                **{
                    **values,
                    "vision": VisionConfig(**values["vision"]),
                    "text": TextConfig(**values["text"]),
                    "eos_token_ids": tuple(values["eos_token_ids"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise IntegrityError(f"bundle.json: the model configuration is incomplete ({error})") from error


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How a picture becomes tiles (preprocessor_config.json)."""

    longest_edge: int
    """The longer side is always brought to this many pixels first, upwards too."""
    tile_size: int
    """Side of one square tile in pixels."""
    split: bool
    """Whether pictures are split into tiles unless the caller says otherwise."""
    resample: int
    """Pillow's number of the resampling filter; 1 is Lanczos."""
    rescale_factor: float
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read preprocessor_config.json of a Hugging Face folder.

        transformers 5 saves the same values as `image_processor` in processor_config.json, and looks there first
        (transformers 5.23, image_processing_base.py, get_image_processor_dict).

        Raises:
            IntegrityError: The file is missing, unreadable or incomplete.
            UnsupportedModelError: It switches off a step that this architecture needs.
        """
        return cls.from_section(_image_processor(folder))

    @classmethod
    def from_section(cls, config: "_Section") -> Self:
        """The same of the values that one file or section has."""
        for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not config.values.get(step, True):
                raise UnsupportedModelError(f"{config.place}: {step}=false is not supported")
        if config.integer("resample", 1) not in range(6):
            raise IntegrityError(f"{config.place}: resample {config.values['resample']} is no filter of Pillow")
        image_std = config.triple("image_std")
        if not min(image_std) > 0:
            raise IntegrityError(f"{config.place}: image_std must be positive, not {list(image_std)}")
        return cls(
            longest_edge=config.section("size").integer("longest_edge"),
            tile_size=config.section("max_image_size").integer("longest_edge"),
            split=bool(config.values.get("do_image_splitting", True)),
            resample=config.integer("resample", 1),
            rescale_factor=config.number("rescale_factor", 1 / 255),
            image_mean=config.triple("image_mean"),
            image_std=image_std,
        )


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """Which frames of a video are taken, and how each becomes a tile."""

    frame: ImageConfig
    max_frames: int
    fps: float
    """Frames to take per second."""

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read what SmolVLM's video processor reads of a Hugging Face folder.

        transformers 5.23 looks for `video_processor` in processor_config.json, then for video_preprocessor_config.json,
        then takes preprocessor_config.json (video_processing_utils.py, get_video_processor_dict); `size` comes before
        `video_sampling.video_size` (video_processing_smolvlm.py). A checkpoint that says nothing of videos gets the
        numbers of SmolVLM2 and the size of its pictures.

        Raises:
            IntegrityError: The file is missing, unreadable or incomplete.
            UnsupportedModelError: It switches off a step that this architecture needs.
        """
        config = _video_processor(folder)
        if "video_sampling" in config.values:
            sampling = config.section("video_sampling")
            max_frames, fps = sampling.integer("max_frames"), sampling.number("fps")
        else:
            max_frames, fps = config.integer("num_frames", 64), config.number("fps", 1)
        if max_frames < 1 or fps <= 0:
            raise IntegrityError(f"{config.place}: a video needs one frame or more and fps above 0")
        return cls(frame=ImageConfig.from_section(config), max_frames=max_frames, fps=fps)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        IntegrityError: The file is missing, unreadable, or no JSON object.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(f"{path.name} is missing from {path.parent}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise IntegrityError(f"{path} holds no JSON object")
    return values


@dataclass(frozen=True, slots=True)
class _Section:
    """One JSON object with typed access and errors that name the place."""

    values: Mapping[str, Any]
    place: str

    def section(self, key: str) -> "_Section":
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise IntegrityError(f"{self.place}: {key} is missing")
        return _Section(value, f"{self.place}: {key}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
            raise IntegrityError(f"{self.place}: {key} must be a whole number up to {LARGEST}, not {str(value)[:20]}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            raise IntegrityError(f"{self.place}: {key} must be a finite number, not {str(value)[:20]}")
        return float(value)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            raise IntegrityError(f"{self.place}: {key} must be a text, not {value!r}")
        return value

    def triple(self, key: str) -> tuple[float, float, float]:
        match self.values.get(key):
            case [int() | float() as r, int() | float() as g, int() | float() as b]:
                return float(r), float(g), float(b)
            case value:
                raise IntegrityError(f"{self.place}: {key} must be three numbers, not {value!r}")

    def refuse(self, key: str, *allowed: object) -> None:
        """Raise unless the value is absent, null, false or one of those allowed."""
        value = self.values.get(key)
        if value and value not in allowed:
            raise UnsupportedModelError(f"{self.place}: {key}={value!r} is not supported")


def _image_processor(folder: Path) -> _Section:
    return _part_of_processor(folder, "image_processor") or _Section(
        read_json(folder / "preprocessor_config.json"), "preprocessor_config.json"
    )


def _video_processor(folder: Path) -> _Section:
    if part := _part_of_processor(folder, "video_processor"):
        return part
    file = folder / "video_preprocessor_config.json"
    return _Section(read_json(file), file.name) if file.is_file() else _image_processor(folder)


def _part_of_processor(folder: Path, key: str) -> _Section | None:
    file = folder / "processor_config.json"
    processor = _Section(read_json(file) if file.is_file() else {}, file.name)
    return processor.section(key) if key in processor.values else None


def _vision_config(section: _Section) -> VisionConfig:
    section.refuse("hidden_act", "gelu_pytorch_tanh")
    section.refuse("num_channels", 3)
    config = VisionConfig(
        hidden_size=section.integer("hidden_size", 1152),
        intermediate_size=section.integer("intermediate_size", 3072),
        num_hidden_layers=section.integer("num_hidden_layers", 12),
        num_attention_heads=section.integer("num_attention_heads", 16),
        num_channels=section.integer("num_channels", 3),
        image_size=section.integer("image_size"),
        patch_size=section.integer("patch_size"),
        layer_norm_eps=section.number("layer_norm_eps", 1e-6),
    )
    _require_positive(section, config)
    if config.hidden_size % config.num_attention_heads:
        raise IntegrityError(f"{section.place}: hidden_size is no multiple of num_attention_heads")
    return config


def _text_config(section: _Section) -> TextConfig:
    section.refuse("model_type", "llama")
    section.refuse("hidden_act", "silu")
    for switch in ("attention_bias", "mlp_bias", "qk_layer_norms", "use_resampler", "rope_interleaved"):
        section.refuse(switch)
    heads, hidden_size = section.integer("num_attention_heads"), section.integer("hidden_size")
    config = TextConfig(
        hidden_size=hidden_size,
        intermediate_size=section.integer("intermediate_size"),
        num_hidden_layers=section.integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=section.integer("num_key_value_heads", heads),
        head_dim=section.integer("head_dim", hidden_size // max(heads, 1)),
        vocab_size=section.integer("vocab_size"),
        max_position_embeddings=section.integer("max_position_embeddings"),
        rms_norm_eps=section.number("rms_norm_eps"),
        rope_theta=_rope_theta(section),
    )
    _require_positive(section, config)
    if config.num_attention_heads % config.num_key_value_heads:
        raise IntegrityError(f"{section.place}: num_attention_heads is no multiple of num_key_value_heads")
    return config


def _rope_theta(section: _Section) -> float:
    """The rotary base, in the older spelling (`rope_theta`) or the one of transformers 5 (`rope_parameters`)."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = section.values.get(key)
        if isinstance(rope, dict):
            _Section(rope, f"{section.place}: {key}").refuse("rope_type", "default")
            _Section(rope, f"{section.place}: {key}").refuse("type", "default")
            if "rope_theta" in rope:
                return _Section(rope, f"{section.place}: {key}").number("rope_theta")
    return section.number("rope_theta")


def _require_positive(section: _Section, config: VisionConfig | TextConfig) -> None:
    for key, value in asdict(config).items():
        if not value > 0:
            raise IntegrityError(f"{section.place}: {key} must be positive, not {value!r}")


def _eos_token_ids(*sections: Mapping[str, Any]) -> tuple[int, ...]:
    """Every end token that any of the files names.

    The instruction-tuned models end a turn with the token of generation_config.json
    (<end_of_utterance>) and now and then with the text model's own. Where no file names one,
    LlamaConfig's default holds, 2.
    """
    found: set[int] = set()
    for section in sections:
        value = section.get("eos_token_id")
        found.update(token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int))
    return tuple(sorted(found or {2}))
