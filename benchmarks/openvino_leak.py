"""Plain OpenVINO: a compiled graph whose attention was merged with its cache leaves a thread and memory behind.

    python benchmarks/openvino_leak.py            # needs openvino and numpy alone

One attention with a key and a value state is enough, with no request made and nothing inferred. The same attention
whose states are seen by an output, so that the plugin does not merge them, leaves nothing.
"""

import gc
import sys
from pathlib import Path

import numpy as np

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # opens no connection

import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

HEADS, SIZE = 2, 16
PROPERTIES = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def model(*, merged: bool) -> ov.Model:
    """attention(x, cache + 2x, cache + 3x)."""
    x, beams = ops.parameter([-1, HEADS, -1, SIZE], np.float32), ops.parameter([-1], np.int32)
    caches, sinks = [], []
    for name, factor in (("keys", 2), ("values", 3)):
        info = ov.op.util.VariableInfo()
        info.variable_id, info.data_type = name, ov.Type.f32
        info.data_shape = ov.PartialShape([-1, HEADS, -1, SIZE])
        variable = ov.op.util.Variable(info)
        past = ops.read_value(ops.constant(np.zeros((1, HEADS, 0, SIZE), np.float32)), variable)
        present = ops.concat([ops.gather(past, beams, 0), ops.multiply(x, np.float32(factor))], 2)
        caches.append(present)
        sinks.append(ops.assign(present, variable))
    results = [ops.result(ops.scaled_dot_product_attention(x, *caches, causal=False))]
    return ov.Model(results + ([] if merged else [ops.result(each) for each in caches]), sinks, [x, beams], "cache")


def told() -> str:
    """Threads and memory of this process, as Linux says."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return f"{int(status['Threads'])} threads, {int(status['VmRSS'].split()[0]) / 1024:.1f} MB"


def main() -> None:
    """Compile and drop each a hundred times."""
    print(f"openvino {ov.__version__}")
    core = ov.Core()
    for merged in (False, True):
        for count in range(101):
            compiled = core.compile_model(model(merged=merged), "CPU", PROPERTIES)
            operators = [node.get_rt_info()["layerType"].value for node in compiled.get_runtime_model().get_ops()]
            assert merged == ("Concatenation" not in operators)
            del compiled
            if count % 25 == 0:
                print(f"merged={merged}: dropped {count + 1:3}: {told()}")


if __name__ == "__main__":
    main()
