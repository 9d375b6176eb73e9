"""How far are the logits of the transformers that runs this from the goldens', which transformers 5 made?

    pip install torch==2.13.0 transformers==4.57.6 && python tests/make_logits.py

With 4.57, with which the models were trained, it tells that both compute the same from the features of pictures on.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForImageTextToText

TESTS = Path(__file__).parent


def main() -> None:
    """Compare."""
    torch.set_grad_enabled(False)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for name in ("tiny-idefics3", "tiny-smolvlm"):
        goldens = np.load(TESTS / "goldens" / f"{name}.npz")
        model = AutoModelForImageTextToText.from_pretrained(
            TESTS / "checkpoints" / name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        if (
            name == "tiny-smolvlm"
        ):  # its head is the table of embeddings, which transformers 4 does not read of this file
            model.lm_head.weight = model.get_input_embeddings().weight
        for case in sorted({key.split("/")[0] for key in goldens} - {"versions"}):
            ids = torch.from_numpy(goldens[f"{case}/input_ids"])[None]
            embeddings = model.get_input_embeddings()(ids)
            if f"{case}/image_features" in goldens:
                features = torch.from_numpy(goldens[f"{case}/image_features"])
                embeddings[ids == model.config.image_token_id] = features.reshape(-1, features.shape[-1])
            logits = model(inputs_embeds=embeddings).logits[0, -1].numpy()
            difference = np.abs(logits - goldens[f"{case}/logits"]).max()
            print(f"{name} {case}: logits within {difference:.1e} of transformers {goldens['versions']}")


if __name__ == "__main__":
    main()
