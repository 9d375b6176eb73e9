"""smol-edge inside other programs: one folder a program, each installed by an extra of its name.

They use the public names of `smolvlm_edge` and nothing below; what they need of a program's private names stands in a
file of its own with the versions that it was tried on.
"""
