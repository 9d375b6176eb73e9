"""Graphs of strangers: only what smol-edge's exporter writes reaches an engine.

An engine believes what a graph says. One that was made to harm ends the process, computes for ever or takes all memory;
a checksum does not help, because its maker wrote that too. So before a graph is opened its operators, how they are
wired, and where its weights lie are compared with what the exporter writes: in the base install, without the engines'
own libraries, and without reading the weights.

What passes is no proof of good will: a graph may still answer nonsense, or be as large as a large model.
"""

from smolvlm_edge.bundle import HALVES, Bundle, Targets
from smolvlm_edge.errors import IntegrityError
from smolvlm_edge.graphs.checks.onnx import check_onnx
from smolvlm_edge.graphs.checks.openvino import check_openvino
from smolvlm_edge.graphs.checks.refusal import Refusal

CHECKS = {"onnx": check_onnx, "openvino": check_openvino}


def check_graphs(bundle: Bundle, targets: Targets) -> None:
    """Look at every graph that is going to be opened.

    Raises:
        IntegrityError: One holds something that the exporter does not write.
    """
    for half, target in targets.items():
        for name in HALVES[half]:
            path = bundle.graph_path(name, target)
            try:
                CHECKS[target](path)
            except Refusal as refusal:
                raise IntegrityError(
                    f"{path}: {refusal}, which smol-edge does not write; export the model again, or, if you trust "
                    "whoever made it, pass --trust (in Python: trust=True)"
                ) from None
            except OSError as error:
                raise IntegrityError.of_file(path, error) from error
