"""VLMEvalKit's LMDeployAPI, from a checkout of it. Usage: drive_vlmevalkit.py URL PICTURE CHECKOUT."""

import os
import sys
from pathlib import Path
from types import ModuleType

url, picture, checkout = sys.argv[1:]
sys.path.insert(0, checkout)
# the class and what it rests on, without the hundreds of models and data sets that its packages import
for name in ("vlmeval", "vlmeval.api"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(Path(checkout, *name.split(".")))]
data_sets = sys.modules["vlmeval.dataset"] = ModuleType("vlmeval.dataset")
data_sets.DATASET_TYPE = data_sets.DATASET_MODALITY = None  # only prompts of InternVL and CogVLM2 ask for them
os.environ["LMDEPLOY_API_BASE"] = f"{url}/v1/chat/completions"

from vlmeval.api.lmdeploy import LMDeployAPI  # noqa: E402

model = LMDeployAPI(model="demo", retry=1, max_tokens=16384)
shown = {"type": "image", "value": picture}
star = {"type": "text", "value": "Where is the blue star?"}
assert model.generate([dict(shown), dict(star)]) == "The blue star is in the middle."
assert model.generate([dict(shown, max_dynamic_patch=6), dict(star)]) == "The blue star is in the middle."  # InternVL's
assert model.generate([picture, "Is there a red circle?"]).startswith("Yes")
before, after = (str(Path(picture).with_name(name)) for name in ("before.png", "after.png"))
changed = [{"type": "image", "value": before}, {"type": "image", "value": after}]
assert "blue to orange" in model.generate([*changed, {"type": "text", "value": "What changed?"}])
told = [{"role": "system", "type": "text", "value": "Answer in one sentence."}, {"role": "user", **shown}]
assert model.fail_msg not in model.generate([*told, {"role": "user", **star}], dataset="ChartQA_TEST")
code, answer, response = model.generate_inner([{"type": "text", "value": "Hello"}], tools=[{"type": "function"}])
assert (code, answer) == (400, model.fail_msg), response.text  # a refusal is one to its client, too
print("ok")
