"""Make tests/checkpoints and tests/goldens: two tiny random models and what transformers answers with them.

    pip install -e '.[parity]'
    python tests/make_goldens.py

The goldens come from transformers in float32 with eager attention, an implementation that shares no code with
smol-edge; this script imports nothing of smol-edge. Everything follows from the constants below: the same
versions of torch and transformers write the same files again.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tokenizers
import torch
import transformers
from pictures import CASES, STORY, Case
from safetensors.torch import save_file
from tiny_weights import scaled
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Idefics3Processor,
    SmolVLMProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

TESTS = Path(__file__).parent
NEW_TOKENS = 32
MIN_DISTINCT_TOKENS = 8  # an answer of one repeated token would hide mistakes
MIN_MARGIN = 1e-2  # between the two likeliest tokens; a hundred times what float32 kernels may differ

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
TEXT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PICTURE_TOKENS = [
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
]

# Family, number format, shards, merges of the tokenizer, and the shapes. The two differ in whatever exists in two
# variants: spelling of the configuration, tied and untied head, grouped and plain attention, shapes that fill
# quantisation blocks of 32 and shapes that do not.
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "tiny-idefics3": {
        "seed": 2,
        "dtype": torch.bfloat16,
        "shards": 1,
        "merges": 60,
        "config": {
            "architectures": ["Idefics3ForConditionalGeneration"],
            "model_type": "idefics3",
            "torch_dtype": "bfloat16",
            "scale_factor": 4,
            "tie_word_embeddings": False,
            "text_config": {
                "hidden_size": 64,
                "intermediate_size": 160,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "rope_theta": 130000.0,
            },
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
            },
        },
    },
    "tiny-smolvlm": {
        "seed": 28,
        "dtype": torch.float16,
        "shards": 2,
        "merges": 45,
        "config": {
            "architectures": ["SmolVLMForConditionalGeneration"],
            "model_type": "smolvlm",
            "dtype": "float16",
            "scale_factor": 3,
            "tie_word_embeddings": True,
            "text_config": {
                "hidden_size": 96,
                "intermediate_size": 200,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "num_key_value_heads": 3,
                "head_dim": 32,
                "rope_parameters": {"rope_theta": 273768.0, "rope_type": "default"},
            },
            "vision_config": {
                "hidden_size": 48,
                "intermediate_size": 100,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "image_size": 84,
                "patch_size": 14,
            },
        },
    },
}


def main() -> None:
    """Make every checkpoint and its goldens, and check that they are worth comparing with."""
    torch.set_grad_enabled(False)
    (TESTS / "goldens").mkdir(exist_ok=True)
    for name, plan in CHECKPOINTS.items():
        folder = TESTS / "checkpoints" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_checkpoint(folder, plan)
        goldens = make_goldens(folder)
        np.savez_compressed(TESTS / "goldens" / f"{name}.npz", **goldens)
        print(f"{name}: {sum(file.stat().st_size for file in folder.iterdir()):,} bytes")


# -- checkpoints ------------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, plan: dict[str, Any]) -> None:
    """Write a Hugging Face folder as the published models have it."""
    tokenizer = make_tokenizer(plan["merges"])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    old = plan["config"]["model_type"] == "idefics3"
    family = "Idefics3" if old else "SmolVLM"

    config = dict(plan["config"])
    text, vision = dict(config.pop("text_config")), dict(config.pop("vision_config"))
    text |= {
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-05,
        "vocab_size": len(ids),
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|im_end|>"],
    }
    vision |= {"model_type": "idefics3" if old else "smolvlm_vision"}
    config |= {"image_token_id": ids["<image>"], "text_config": text, "vision_config": vision}
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<end_of_utterance>"],
            "pad_token_id": ids["<|im_end|>"],
        },
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_image_splitting": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": f"{family}ImageProcessor",
            "max_image_size": {"longest_edge": vision["image_size"]},
            "processor_class": f"{family}Processor",
            "resample": 1,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": 4 * vision["image_size"]},
        },
    )
    image_seq_len = (vision["image_size"] // vision["patch_size"] // config["scale_factor"]) ** 2
    write_json(
        folder / "processor_config.json", {"image_seq_len": image_seq_len, "processor_class": f"{family}Processor"}
    )
    tokenizer_config = {
        "add_prefix_space": False,
        "additional_special_tokens": PICTURE_TOKENS[-3:],
        "bos_token": "<|im_start|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<end_of_utterance>",
        "model_max_length": text["max_position_embeddings"],
        "pad_token": "<|im_end|>",
        "processor_class": f"{family}Processor",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
    }
    # two of the places that a template is found in
    if old:
        tokenizer_config["chat_template"] = CHAT_TEMPLATE
        write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_weights(folder, plan)


def make_tokenizer(merges: int) -> Tokenizer:
    """A byte-level BPE like the family's, with the same pre-tokenizer and order of special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(TEXT_TOKENS) + len(alphabet) + merges,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in TEXT_TOKENS],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    # the published tokenizers have a token of two newlines, which joins a picture's last row to what follows
    tokenizer.train_from_iterator([STORY, "What is this image? Describe these pictures.", *["\n\n"] * 9], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in PICTURE_TOKENS])
    assert tokenizer.token_to_id("ĊĊ") is not None, "no token of two newlines"
    return tokenizer


def write_weights(folder: Path, plan: dict[str, Any]) -> None:
    """Random weights under transformers' names, in the plan's number format and number of shards."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    shapes.pop("lm_head.weight" if plan["config"]["tie_word_embeddings"] else "", None)
    random = np.random.default_rng(plan["seed"])
    weights = {
        name: torch.from_numpy(random_weight(random, name, shape).astype(np.float32)).to(plan["dtype"])
        for name, shape in sorted(shapes.items())
    }
    if plan["shards"] == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    names = list(weights)
    for i in range(plan["shards"]):
        part = names[i * len(names) // plan["shards"] : (i + 1) * len(names) // plan["shards"]]
        file = f"model-{i + 1:05}-of-{plan['shards']:05}.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total_size = sum(weight.nbytes for weight in weights.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    )


def random_weight(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Larger than a freshly initialised model's: its attention would be flat and its answers all the same."""
    return scaled(random.standard_normal(shape), name)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file as transformers does."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# -- goldens ----------------------------------------------------------------------------------------------------


class PictureProcessor(SmolVLMProcessor):
    """SmolVLMProcessor without its video half, which would need torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
        """Let the missing video processor pass."""
        if argument_name == "video_processor":
            return None
        return super().check_argument_for_proper_class(argument_name, argument)


def make_goldens(folder: Path) -> dict[str, np.ndarray]:
    """What transformers computes for every case, by `case/quantity`."""
    model, loading = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading
    model.eval()
    processor = load_processor(folder)
    goldens = {"versions": np.array(versions())}
    for name, case in CASES.items():
        golden = answer(model, processor, case)
        if name == "text":
            golden["all_logits"] = golden["logits"]
        golden["logits"] = golden["logits"][-1]
        margin = golden.pop("margin")
        distinct = len(set(golden["token_ids"].tolist()))
        print(f"{folder.name} {name}: {len(golden['input_ids'])} tokens, {distinct} distinct, margin {margin:.4f}")
        assert distinct >= MIN_DISTINCT_TOKENS, "the answer is monotonous: choose another seed"
        assert margin > MIN_MARGIN, "the likeliest token is a close call: choose another seed"
        goldens |= {f"{name}/{key}": value for key, value in golden.items()}
    return goldens


def load_processor(folder: Path) -> Idefics3Processor | SmolVLMProcessor:
    """The checkpoint's processor with the Pillow backend; torchvision's differs by some grey levels."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    values = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    if values["processor_class"] == "Idefics3Processor":
        image_processor = Idefics3ImageProcessorPil.from_pretrained(folder)
        return Idefics3Processor(image_processor, tokenizer, image_seq_len=values["image_seq_len"])
    image_processor = SmolVLMImageProcessorPil.from_pretrained(folder)
    return PictureProcessor(image_processor, tokenizer, None, image_seq_len=values["image_seq_len"])


def answer(model: Any, processor: Any, case: Case) -> dict[str, Any]:
    """Prompt, image features, logits and greedy answer of one case."""
    pictures = case.pictures()
    content = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": case.prompt}]
    conversation = [{"role": "user", "content": content}]
    text = processor.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    inputs = processor(
        text=text, images=[pictures] if pictures else None, do_image_splitting=case.split, return_tensors="pt"
    )
    golden: dict[str, Any] = {"input_ids": inputs["input_ids"][0].numpy(), "tiles": np.array(0)}
    pixels = {key: inputs[key] for key in ("pixel_values", "pixel_attention_mask") if key in inputs}
    if pixels:
        (features,) = model.get_image_features(**pixels).pooler_output  # of one conversation
        golden["tiles"] = np.array(pixels["pixel_values"].shape[1])
        golden["image_features"] = features.unflatten(0, (pixels["pixel_values"].shape[1], -1)).numpy()
    # a stop token would cut answers short, and an image token would ask for a picture
    config = model.config
    unwanted = {model.generation_config.eos_token_id, config.text_config.eos_token_id, config.image_token_id}
    # the whole sequence anew for every token: no cache that could have a mistake of its own
    ids, margin = inputs["input_ids"], np.inf
    for _ in range(NEW_TOKENS):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **pixels).logits[0]
        golden.setdefault("logits", logits.numpy())
        best, second = logits[-1].topk(2).values.tolist()
        margin = min(margin, best - second)
        assert int(logits[-1].argmax()) not in unwanted, "a stop or image token in the answer: choose another seed"
        ids = torch.cat([ids, logits[-1].argmax().reshape(1, 1)], dim=1)
    return {**golden, "token_ids": ids[0, -NEW_TOKENS:].numpy(), "margin": margin}


def versions() -> str:
    """What the goldens were made with."""
    modules = (torch, transformers, tokenizers, PIL, np)
    return ", ".join(f"{module.__name__} {module.__version__}" for module in modules)


if __name__ == "__main__":
    main()
