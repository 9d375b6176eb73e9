"""Many processes that start at once, and many openings in one."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from smolvlm_edge.graphs import openvino

pytestmark = pytest.mark.stress

ANSWER = """
import sys
from smolvlm_edge import SmolVLM
with SmolVLM.load(sys.argv[1], engine="openvino", threads=1) as model:
    print(model.generate([], "Tell me a story.", max_tokens=4).token_ids)
"""
OPENINGS = """
import gc, json, sys
from pathlib import Path
import numpy as np
from smolvlm_edge.graphs.openvino import OpenVinoEngine

def status(key):
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

samples = []
for opening in range(300):
    decoder = OpenVinoEngine(threads=1).decoder(Path(sys.argv[1]) / "decoder.xml")
    decoder(np.ones((5, 64), np.float32))
    decoder.close()
    if (opening + 1) % 50 == 0 or not opening:
        samples.append((status("Threads:"), status("VmRSS:") / 1024))
print(json.dumps(samples))
"""


def test_five_processes_that_start_at_once_twenty_times(
    tiny_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None has a compiled graph to find; all compile, and every answer is the same one."""
    home = tmp_path / "home"
    monkeypatch.setenv("SMOL_EDGE_HOME", str(home))
    named = shutil.copytree(tiny_bundle("tiny-idefics3", "fp32", "openvino"), home / "bundles" / "named@0-fp32")
    kept = named.with_name(f".{named.name}.openvino-{openvino.VERSION}")
    outcomes: Counter[tuple[int, str]] = Counter()
    for _ in range(20):
        shutil.rmtree(kept, ignore_errors=True)
        processes = [
            subprocess.Popen([sys.executable, "-c", ANSWER, named], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(5)
        ]
        for process in processes:
            out, err = process.communicate()
            outcomes[process.returncode, (out or err[-300:]).decode()] += 1
        assert len([*kept.rglob("*.blob")]) == 2
        assert not [*kept.glob(".*")]
    print(outcomes)
    assert len(outcomes) == 1
    assert next(iter(outcomes))[0] == 0


def test_three_hundred_openings_of_a_decoder(tiny_bundle) -> None:
    folder = tiny_bundle("tiny-idefics3", "int4", "openvino")
    result = subprocess.run([sys.executable, "-c", OPENINGS, folder], capture_output=True, text=True, check=True)
    samples = json.loads(result.stdout)
    print("threads, MB:", samples)
    threads, memory = zip(*samples, strict=True)
    assert len({*threads}) == 1
    assert memory[-1] - memory[1] < 2.0
