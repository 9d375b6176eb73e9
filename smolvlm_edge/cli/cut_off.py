"""What is said of an answer that was cut off."""

import sys

from smolvlm_edge.generation.answer import Chunk, GenerateOptions


def say_if_cut_off(last: Chunk, options: GenerateOptions) -> None:
    """Tell on stderr if there was no room for the whole answer."""
    if last.finish_reason != "length":
        return
    tokens = last.timings.generated_tokens
    what = "was brought to an end" if options.get("on_limit") == "complete" else "was cut off"
    if tokens < options.get("max_tokens", 0):  # else the default was used up, or what generation_config.json says
        print(f"note: the answer {what} after {tokens} tokens: the model's context holds no more", file=sys.stderr)
    else:
        print(f"note: the answer {what} after {tokens} tokens: --max-tokens N allows more", file=sys.stderr)
