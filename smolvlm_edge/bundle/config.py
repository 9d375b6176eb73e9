"""What config.json, generation_config.json and preprocessor_config.json say, typed.

The exporter and the runtime both read these. Nothing is assumed silently: a value that would change
the model's answers and is missing is an error, because a wrong `rope_theta` "runs and emits fluent
nonsense". Where transformers itself leaves a value out of the file because it equals the class
default, that default stands here (transformers 5.23, Idefics3VisionConfig and LlamaConfig).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from smolvlm_edge.bundle.generation_config import GenerationConfig
from smolvlm_edge.bundle.reading import Section
from smolvlm_edge.bundle.rope_config import RopeScaling, read_rope
from smolvlm_edge.errors import IntegrityError, UnsupportedModelError
from smolvlm_edge.values import MOST

MODEL_TYPES = ("idefics3", "smolvlm")
MOST_PATCHES_PER_SIDE = 256
MOST_ROTARY_ANGLES = 1 << 25
"""Positions × head_dim; Llama 3.1 has half as many: 131,072 × 128."""
MOST_TILES = 1024
MOST_FRAMES = 4096
LARGEST_EDGE = 16384


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

    def check(self, place: str) -> None:
        """Refuse sizes that contradict each other, or that no model of this kind has."""
        _require_positive(place, self)
        if self.hidden_size % self.num_attention_heads:
            raise IntegrityError(f"{place}: hidden_size is no multiple of num_attention_heads")
        if not 1 <= self.patches_per_side <= MOST_PATCHES_PER_SIDE:
            raise IntegrityError(
                f"{place}: image_size {self.image_size} and patch_size {self.patch_size} make "
                f"{self.patches_per_side} patches per side, not 1 to {MOST_PATCHES_PER_SIDE}"
            )


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
    rope_scaling: RopeScaling | None = None

    def check(self, place: str) -> None:
        """Refuse sizes that contradict each other, or that no model of this kind has."""
        _require_positive(place, self)
        if self.num_attention_heads % self.num_key_value_heads:
            raise IntegrityError(f"{place}: num_attention_heads is no multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise IntegrityError(f"{place}: head_dim {self.head_dim} is odd, and rotary positions turn pairs")
        if self.max_position_embeddings * self.head_dim > MOST_ROTARY_ANGLES:
            raise IntegrityError(
                f"{place}: max_position_embeddings {self.max_position_embeddings} with head_dim {self.head_dim} take "
                f"more rotary angles than any model of this kind: {MOST_ROTARY_ANGLES} at most"
            )


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
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """Defaults of an answer's options."""

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
        config = Section.of_file(folder / "config.json")
        model_type = config.text("model_type")
        if model_type not in MODEL_TYPES:
            raise UnsupportedModelError(
                f"model_type {model_type!r} is not supported: smol-edge exports {' and '.join(MODEL_TYPES)} checkpoints"
            )
        text = config.section("text_config")
        generation_file = folder / "generation_config.json"
        generation = (
            Section.of_file(generation_file) if generation_file.is_file() else Section({}, generation_file.name)
        )
        model = cls(
            model_type=model_type,
            vision=_vision_config(config.section("vision_config")),
            text=_text_config(text),
            scale_factor=config.integer("scale_factor", 2, least=1),
            image_token_id=config.integer("image_token_id", 128257),
            eos_token_ids=_eos_token_ids(generation, config, text),
            tie_word_embeddings=config.flag("tie_word_embeddings"),
            generation=GenerationConfig.from_section(generation),
        )
        model.check("config.json")
        return model

    def check(self, place: str) -> None:
        """Refuse sizes that contradict each other.

        Raises:
            IntegrityError: They do.
        """
        self.vision.check(f"{place}: vision_config")
        self.text.check(f"{place}: text_config")
        if self.scale_factor < 1 or self.vision.patches_per_side % self.scale_factor:
            raise IntegrityError(
                f"{place}: {self.vision.patches_per_side} patches per side are no multiple of "
                f"scale_factor {self.scale_factor}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for bundle.json, without those that are the default."""
        return asdict(self, dict_factory=_set)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`.

        Raises:
            IntegrityError: A value is missing, unknown, of another type or out of range.
        """
        model = Section(values, "bundle.json: model").fill(cls)
        model.check("bundle.json: model")
        return model


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
    def from_section(cls, config: Section) -> Self:
        """The same of the values that one file or section has."""
        for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not config.values.get(step, True):
                raise UnsupportedModelError(f"{config.place}: {step}=false is not supported")
        image_std = config.triple("image_std")
        if not min(image_std) > 0:
            raise IntegrityError(f"{config.place}: image_std must be positive, not {list(image_std)}")
        longest_edge = config.section("size").integer("longest_edge", least=1, most=LARGEST_EDGE)
        tile_size = config.section("max_image_size").integer("longest_edge", least=1, most=LARGEST_EDGE)
        if (-(-longest_edge // tile_size)) ** 2 > MOST_TILES:
            raise IntegrityError(
                f"{config.place}: tiles of {tile_size} pixels make more than {MOST_TILES} of {longest_edge}"
            )
        return cls(
            longest_edge=longest_edge,
            tile_size=tile_size,
            split=config.flag("do_image_splitting", True),
            resample=config.integer("resample", 1, most=5),
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
            max_frames, fps = sampling.integer("max_frames", least=1, most=MOST_FRAMES), sampling.number("fps")
        else:
            max_frames, fps = config.integer("num_frames", 64, least=1, most=MOST_FRAMES), config.number("fps", 1)
        if fps <= 0:
            raise IntegrityError(f"{config.place}: fps must be above 0")
        return cls(frame=ImageConfig.from_section(config), max_frames=max_frames, fps=fps)


def _set(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if value not in (None, (), {})}


def _image_processor(folder: Path) -> Section:
    return _part_of_processor(folder, "image_processor") or Section.of_file(folder / "preprocessor_config.json")


def _video_processor(folder: Path) -> Section:
    if part := _part_of_processor(folder, "video_processor"):
        return part
    file = folder / "video_preprocessor_config.json"
    return Section.of_file(file) if file.is_file() else _image_processor(folder)


def _part_of_processor(folder: Path, key: str) -> Section | None:
    processor = Section.of_file_if_there(folder / "processor_config.json")
    return processor.section(key) if key in processor.values else None


def _vision_config(section: Section) -> VisionConfig:
    section.refuse("hidden_act", "gelu_pytorch_tanh")
    section.refuse("num_channels", 3)
    return VisionConfig(
        hidden_size=section.integer("hidden_size", 1152),
        intermediate_size=section.integer("intermediate_size", 3072),
        num_hidden_layers=section.integer("num_hidden_layers", 12),
        num_attention_heads=section.integer("num_attention_heads", 16),
        num_channels=section.integer("num_channels", 3),
        image_size=section.integer("image_size"),
        patch_size=section.integer("patch_size"),
        layer_norm_eps=section.number("layer_norm_eps", 1e-6),
    )


def _text_config(section: Section) -> TextConfig:
    section.refuse("model_type", "llama")
    section.refuse("hidden_act", "silu")
    for switch in ("attention_bias", "mlp_bias", "qk_layer_norms", "use_resampler", "rope_interleaved"):
        section.refuse(switch)
    _refuse_windows(section)
    rope_theta, rope_scaling = read_rope(section)
    heads, hidden_size = section.integer("num_attention_heads"), section.integer("hidden_size")
    return TextConfig(
        hidden_size=hidden_size,
        intermediate_size=section.integer("intermediate_size"),
        num_hidden_layers=section.integer("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=section.integer("num_key_value_heads", heads),
        head_dim=section.integer("head_dim", hidden_size // max(heads, 1)),
        vocab_size=section.integer("vocab_size"),
        max_position_embeddings=section.integer("max_position_embeddings"),
        rms_norm_eps=section.number("rms_norm_eps"),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
    )


def _refuse_windows(section: Section) -> None:
    """Attention to a part of the context only: transformers' Llama does it by what its cache keeps."""
    for key in ("sliding_window", "attention_chunk_size"):
        if section.integer(key, MOST) < section.integer("max_position_embeddings"):
            raise UnsupportedModelError(
                f"{section.place}: {key}={section.shown(key)} is not supported: smol-edge attends to the whole context"
            )
    for kind in section.texts("layer_types"):
        if kind != "full_attention":
            raise UnsupportedModelError(f"{section.place}: layer_types with {kind[:40]!r} are not supported")


def _require_positive(place: str, config: VisionConfig | TextConfig) -> None:
    for key, value in asdict(config).items():
        if isinstance(value, int | float) and not value > 0:
            raise IntegrityError(f"{place}: {key} must be positive, not {value!r}")


def _eos_token_ids(*sections: Section) -> tuple[int, ...]:
    """Every end token that any of the files names.

    The instruction-tuned models end a turn with the token of generation_config.json
    (<end_of_utterance>) and now and then with the text model's own. Where no file names one,
    LlamaConfig's default holds, 2.
    """
    found = {token for section in sections for token in section.integers("eos_token_id")}
    return tuple(sorted(found or {2}))
