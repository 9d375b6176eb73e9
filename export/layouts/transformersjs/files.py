"""Configuration, tokenizer and processor files where transformers.js 4.3.1 looks for them.

It reads the chat template from tokenizer_config.json alone, the image processor from preprocessor_config.json alone,
and takes nothing for granted that the classes of transformers have as a default.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolvlm_edge.bundle import Bundle, sha256
from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.conversation.template import template_source

RECORD = "smol-edge.json"
"""What the folder was made of, what quantisation cost, and sha256 and size of every file."""
CLASSES = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}


def write_files(bundle: Bundle, folder: Path, formats: tuple[str, ...]) -> None:
    """Write what differs from the bundle's own files, and the record of all of them."""
    changed = {
        "config.json": _config(bundle, folder, formats),
        "generation_config.json": _generation_config(bundle),
        "tokenizer_config.json": _tokenizer_config(bundle),
        "preprocessor_config.json": _preprocessor_config(bundle),
        "processor_config.json": _processor_config(bundle),
    }
    for name, values in changed.items():
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and bundle.folder not in path.parents]
    record = {
        "producer": bundle.producer,
        "source": bundle.source,
        "revision": bundle.revision,
        "adapter": None if bundle.adapter is None else asdict(bundle.adapter),
        "recipe": bundle.recipe,
        "lost": bundle.lost,
        "files": {
            path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)} for path in files
        },
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _config(bundle: Bundle, folder: Path, formats: tuple[str, ...]) -> dict[str, Any]:
    config, text = read_json(bundle.folder / "config.json"), bundle.model.text
    data = {path.name.removesuffix("_data"): 1 for path in sorted((folder / "onnx").glob("*_data"))}
    config["image_token_id"] = bundle.model.image_token_id
    config["text_config"] = {
        **config["text_config"],
        "model_type": "llama",
        "hidden_size": text.hidden_size,
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
    }
    config["transformers.js_config"] = {
        "dtype": formats[0],
        "device_config": {"webgpu": {"dtype": formats[-1]}},
        "use_external_data_format": data,
    }
    return config


def _generation_config(bundle: Bundle) -> dict[str, Any]:
    """With every token that ends an answer."""
    file = bundle.folder / "generation_config.json"
    return {**(read_json(file) if file.is_file() else {}), "eos_token_id": list(bundle.model.eos_token_ids)}


def _tokenizer_config(bundle: Bundle) -> dict[str, Any]:
    file = bundle.folder / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    template = template_source(bundle.folder, config)
    return config if template is None else {**config, "chat_template": template}


def _preprocessor_config(bundle: Bundle) -> dict[str, Any]:
    family, image = CLASSES[bundle.model.model_type], ImageConfig.from_folder(bundle.folder)
    return {
        "processor_class": f"{family}Processor",
        "image_processor_type": f"{family}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": image.longest_edge},
        "max_image_size": {"longest_edge": image.tile_size},
        "resample": image.resample,
        "do_image_splitting": image.split,
        "do_rescale": True,
        "rescale_factor": image.rescale_factor,
        "do_normalize": True,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
        "do_pad": True,
    }


def _processor_config(bundle: Bundle) -> dict[str, Any]:
    family = CLASSES[bundle.model.model_type]
    return {"processor_class": f"{family}Processor", "image_seq_len": bundle.model.image_seq_len}
