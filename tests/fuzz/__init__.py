"""Damaged inputs for everything that reads a stranger's bytes; `python -m tests.fuzz --inputs 100000 --seed 1`.

Each module in `parsers` names sound inputs and what reads them. They are damaged at random (`mutator.py`), every one
from a seed of its own, and read in a child process (`child.py`) under a watchdog: what is no SmolEdgeError, takes more
than 5 seconds of the processor or more than 1 GB, or ends the process, is a finding with its number.
"""
