"""`run.py` of VLMEvalKit with the models of smol-edge: FOLDER of the package `vlmeval`, then its arguments.

The folder's files stay as they are: the line that docs/integrations.md appends to `vlmeval/config.py` is run here, and
a data set named MMStar is given the checksum of the file that stands for it. At the end the names of the packages are
printed that were not installed and were stood in for.
"""

# ruff: noqa: E402 - what is imported depends on the folder

import hashlib
import json
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import kit

folder = Path(sys.argv.pop(1))
kit.use_kit(folder)

from vlmeval.config import supported_VLM
from vlmeval.dataset import ImageMCQDataset
from vlmeval.smp import LMUDataRoot

from smolvlm_edge.integrations.vlmevalkit import models

supported_VLM.update(models())
mmstar = Path(LMUDataRoot()) / "MMStar.tsv"
if mmstar.exists():
    ImageMCQDataset.DATASET_MD5["MMStar"] = hashlib.md5(mmstar.read_bytes()).hexdigest()
run = next(file for file in (folder / "run.py", folder / "vlmeval" / "run.py") if file.exists())
runpy.run_path(str(run), run_name="__main__")
print(json.dumps({"stood in": kit.STOOD_IN}))
