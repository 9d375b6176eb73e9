"""By how many grey levels do torchvision's pixels differ from Pillow's, which are those of the runtime?

    python benchmarks/torchvision_pixels.py photo.jpg ...

needs torch, torchvision, transformers 5 and Pillow; prints a line for each photograph, of every tile together. Both are
processors of transformers: it takes torchvision's where that is installed, `tests/test_images_live.py` compares the
runtime's pixels with the other one's.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import Idefics3ImageProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

RULES = Path(__file__).parents[1] / "tests" / "released" / "smolvlm-256m-instruct" / "preprocessor_config.json"


def main() -> None:
    """Compare."""
    rules = json.loads(RULES.read_text(encoding="utf-8"))
    rules = {key: value for key, value in rules.items() if not key.endswith("_type")}
    processors = [kind(**rules) for kind in (Idefics3ImageProcessorPil, Idefics3ImageProcessor)]
    scale = rules["image_std"][0] / rules["rescale_factor"]
    for name in sys.argv[1:]:
        picture = Image.open(name).convert("RGB")
        pillow, torchvision = (np.asarray(each(picture, return_tensors="pt")["pixel_values"]) for each in processors)
        levels = np.abs(pillow - torchvision) * scale
        print(
            f"{Path(name).name} ({picture.width} x {picture.height}, {pillow.shape[1]} tiles): at most "
            f"{levels.max():.0f} levels of 255, {levels.mean():.2f} on average, "
            f"more than 2 at {100 * (levels > 2.5).mean():.2f} % of the values"
        )


if __name__ == "__main__":
    main()
