"""Pictures of every format."""

from io import BytesIO
from pathlib import Path

from PIL import Image, features

from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.pictures.images import check_image, cut, open_image
from tests.fuzz.parsers import TINY

CONFIG = ImageConfig.from_folder(TINY)


def seeds(_: Path) -> list[bytes]:
    picture, made = Image.linear_gradient("L").resize((40, 30)).convert("RGB"), []
    formats = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"] + [each for each in ("WEBP",) if features.check("webp")]
    formats += ["JPEG2000"] * features.check("jpg_2000")
    for name in formats:
        file = BytesIO()
        picture.save(file, name)
        made.append(file.getvalue())
    file = BytesIO()
    picture.save(file, "GIF", save_all=True, append_images=[picture.rotate(90)])
    return [*made, file.getvalue()]


def parse(data: bytes, folder: Path) -> None:
    (folder / "picture").write_bytes(data)
    check_image(folder / "picture")
    next(iter(cut(open_image(data), CONFIG).pixel_values()))
