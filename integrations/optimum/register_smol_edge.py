"""`optimum-cli export smol-edge ...`, installed as optimum.commands.register.register_smol_edge.

optimum imports every module of that namespace when its command line starts.
"""

import sys
from argparse import REMAINDER, ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class SmolEdgeExportCommand(BaseOptimumCLICommand):
    """Passes its arguments on to `smol-edge export`."""

    COMMAND = CommandInfo(name="smol-edge", help="Export SmolVLM and Idefics3 to ONNX or OpenVINO, without torch.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Take everything as it stands, options too: what there is only `smol-edge export` knows."""
        parser.prefix_chars = "\0"
        parser.add_argument("arguments", nargs=REMAINDER)

    def run(self) -> None:
        """Export, or say what is wrong, as the command does."""
        from smolvlm_edge.cli import main  # noqa: PLC0415 - only when it is asked for

        sys.argv[:] = ["smol-edge", "export", *self.args.arguments]
        main()


REGISTER_COMMANDS = [(SmolEdgeExportCommand, ExportCommand)]
