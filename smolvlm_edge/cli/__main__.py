"""`python -m smolvlm_edge.cli`: the command where no script was installed."""

from smolvlm_edge.cli import main

main()
