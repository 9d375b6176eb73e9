"""How far are the logits of the transformers that runs this from the goldens', which transformers 5 made?

    pip install torch==2.13.0 transformers==4.57.6 && python tests/make_logits.py

With 4.57, with which the models were trained, it tells that both compute the same from the features of pictures on, and
which positions patches get: there, in float32, those of the patch before.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText

TESTS = Path(__file__).parent


def main() -> None:
    """Compare."""
    torch.set_grad_enabled(False)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for name in ("tiny-idefics3", "tiny-smolvlm"):
        goldens = np.load(TESTS / "goldens" / f"{name}.npz")
        folder = TESTS / "checkpoints" / name
        config = AutoConfig.from_pretrained(folder)
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
        if "rope_theta" not in written:  # where transformers 5 writes it, and 4 does not look
            config.text_config.rope_theta = written["rope_parameters"]["rope_theta"]
        model = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        if (
            name == "tiny-smolvlm"
        ):  # its head is the table of embeddings, which transformers 4 does not read of this file
            model.lm_head.weight = model.get_input_embeddings().weight
        _print_positions(name, model)
        for case in sorted({key.split("/")[0] for key in goldens} - {"versions"}):
            ids = torch.from_numpy(goldens[f"{case}/input_ids"])[None]
            embeddings = model.get_input_embeddings()(ids)
            if f"{case}/image_features" in goldens:
                features = torch.from_numpy(goldens[f"{case}/image_features"])
                embeddings[ids == model.config.image_token_id] = features.reshape(-1, features.shape[-1])
            logits = model(inputs_embeds=embeddings).logits[0, -1].numpy()
            difference = np.abs(logits - goldens[f"{case}/logits"]).max()
            print(f"{name} {case}: logits within {difference:.1e} of transformers {goldens['versions']}")


def _print_positions(name: str, model: Any) -> None:
    vision, found = model.config.vision_config, []
    per_side = vision.image_size // vision.patch_size
    embeddings = model.model.vision_model.embeddings
    hook = embeddings.position_embedding.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][0]))
    pixels = torch.zeros(1, 3, vision.image_size, vision.image_size)
    embeddings(pixel_values=pixels, patch_attention_mask=torch.ones(1, per_side, per_side, dtype=torch.bool))
    hook.remove()
    print(f"{name}: positions of the first row's patches {found[0][:per_side].tolist()}")


if __name__ == "__main__":
    main()
