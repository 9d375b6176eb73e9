"""`python -m tests.fuzz`: counts per parser, and everything that went wrong in a way that nobody foresaw."""

import argparse
import sys

from tests.fuzz.watchdog import PARSERS, fuzz


def main() -> int:
    """Damage, read, tell."""
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("parsers", nargs="*", help=f"of {', '.join(PARSERS)}; all")
    arguments.add_argument("--inputs", type=int, default=10_000, help="of all parsers together")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    names, wrong = options.parsers or PARSERS, 0
    for name in names:
        report = fuzz(name, -(-options.inputs // len(names)), options.seed)
        print(f"{name:16} {report.inputs:7} inputs, {sum(map(len, report.findings.values()))} findings", flush=True)
        for what, indices in sorted(report.findings.items()):
            wrong += len(indices)
            print(f"    {len(indices):5} x {what} (first: {options.seed} {name} {indices[0]})", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
