"""One answer by llama.cpp and its libmtmd, through llama-cpp-python's plain bindings; see `protocol.py`.

`model` is {"text": a GGUF file, "mmproj": a GGUF file}. Pictures are encoded a tile at a time, and the context is no
larger than the question needs: the cheapest that libmtmd offers.
"""

import ctypes
import sys
import time
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from protocol import Report, Stopwatch, request

BATCH = 2048
SPLIT_ONLY = "llama.cpp always cuts a picture into tiles"


@llama_cpp.llama_log_callback
def silent(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """What llama.cpp has to say goes nowhere."""


def open_model(asked: dict[str, Any]) -> tuple[Any, Any]:
    """The text model and the vision half."""
    llama_cpp.llama_backend_init()
    for log_set in (llama_cpp.llama_log_set, mtmd.mtmd_log_set, mtmd.mtmd_helper_log_set):
        log_set(silent, ctypes.c_void_p(0))
    text, mmproj = asked["model"]["text"].encode(), asked["model"]["mmproj"].encode()
    model = llama_cpp.llama_model_load_from_file(text, llama_cpp.llama_model_default_params())
    vision = None
    if asked["pictures"]:
        parameters = mtmd.mtmd_context_params_default()
        parameters.use_gpu, parameters.warmup, parameters.print_timings = False, False, False
        parameters.n_threads = asked["threads"]
        vision = mtmd.mtmd_init_from_file(mmproj, model, parameters)
    if not model or (asked["pictures"] and not vision):
        sys.exit("llama.cpp cannot open its files")
    return model, vision


def open_context(model: Any, positions: int, threads: int) -> Any:
    """The decoder's state."""
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch = positions, BATCH
    parameters.n_threads = parameters.n_threads_batch = threads
    return llama_cpp.llama_init_from_model(model, parameters)


def read_pictures(vision: Any, asked: dict[str, Any]) -> Any:
    """Tiles and text between them, as libmtmd's chunks."""
    bitmaps = [mtmd.mtmd_helper_bitmap_init_from_file(vision, path.encode(), False) for path in asked["pictures"]]
    if not all(bitmaps):
        sys.exit("llama.cpp cannot read a picture")
    marked = asked["rendered"].encode().replace(b"<image>", mtmd.mtmd_default_marker())
    text = mtmd.mtmd_input_text(marked, len(marked), False, True)
    chunks = mtmd.mtmd_input_chunks_init()
    array = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
    if mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(text), array, len(bitmaps)):
        sys.exit("llama.cpp cannot cut the pictures")
    return chunks


def fill(vision: Any, context: Any, chunks: Any, watch: Stopwatch) -> int:
    """Encode the tiles and read the prompt; returns the number of tiles."""
    past, tiles, count = llama_cpp.llama_pos(0), 0, mtmd.mtmd_input_chunks_size(chunks)
    for i in range(count):
        chunk, at = mtmd.mtmd_input_chunks_get(chunks, i), llama_cpp.llama_pos(past.value)
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            with watch("prefill"):
                failed = mtmd.mtmd_helper_eval_chunk_single(
                    vision, context, chunk, at, 0, BATCH, i == count - 1, ctypes.byref(past)
                )
        else:
            with watch("vision"):
                failed = mtmd.mtmd_encode_chunk(vision, chunk)
            with watch("prefill"):
                features = mtmd.mtmd_get_output_embd(vision)
                callback = mtmd.mtmd_helper_post_decode_callback()
                failed = failed or mtmd.mtmd_helper_decode_image_chunk(
                    vision, context, chunk, features, at, 0, BATCH, ctypes.byref(past), callback, None
                )
            tiles += 1
        if failed:
            sys.exit("llama.cpp cannot read the prompt")
    return tiles


def tokenize(model: Any, text: str) -> list[int]:
    """Token ids; special tokens are recognised, none is added."""
    encoded = text.encode()
    ids = (llama_cpp.llama_token * (len(encoded) + 1))()
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    return ids[: llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), ids, len(ids), False, True)]


def decode(context: Any, tokens: list[int]) -> None:
    """Read tokens, at most a batch at a time."""
    for start in range(0, len(tokens), BATCH):
        part = tokens[start : start + BATCH]
        ids = (llama_cpp.llama_token * len(part))(*part)  # a batch only points there
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(part))):
            sys.exit("llama.cpp cannot decode")


def likeliest(context: Any, vocab_size: int) -> int:
    """The next token."""
    return int(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocab_size,)).argmax())


def text_of(model: Any, tokens: list[int]) -> str:
    """The tokens' text, special tokens left out."""
    vocabulary, piece = llama_cpp.llama_model_get_vocab(model), ctypes.create_string_buffer(256)
    pieces = (
        piece[: llama_cpp.llama_token_to_piece(vocabulary, token, piece, len(piece), 0, False)] for token in tokens
    )
    return b"".join(pieces).decode(errors="replace")


def main() -> None:
    """Load, answer, report."""
    asked, watch = request(), Stopwatch()
    if asked["pictures"] and not asked["split"]:
        sys.exit(SPLIT_ONLY)
    with watch("load"):
        model, vision = open_model(asked)
    with watch("preprocess"):
        if asked["pictures"]:
            chunks = read_pictures(vision, asked)
            prompt_tokens = mtmd.mtmd_helper_get_n_tokens(chunks)
        else:
            tokens = tokenize(model, asked["rendered"])
            prompt_tokens = len(tokens)
    with watch("load"):
        context = open_context(model, prompt_tokens + asked["tokens"], asked["threads"])
    tiles = 0
    if asked["pictures"]:
        tiles = fill(vision, context, chunks, watch)
    else:
        with watch("prefill"):
            decode(context, tokens)
    vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    with watch("prefill"):  # a first look at the logits waits for them
        answer = [likeliest(context, vocab_size)]
    start = time.perf_counter()
    while len(answer) < asked["tokens"]:
        decode(context, answer[-1:])
        answer.append(likeliest(context, vocab_size))
    seconds = time.perf_counter() - start
    Report(
        load_ms=watch.ms["load"],
        preprocess_ms=watch.ms["preprocess"],
        vision_ms=watch.ms.get("vision", 0.0),
        prefill_ms=watch.ms["prefill"],
        ttft_ms=watch.ms["preprocess"] + watch.ms.get("vision", 0.0) + watch.ms["prefill"],
        decode_tokens_per_s=(len(answer) - 1) / seconds if len(answer) > 1 else 0.0,
        tiles=tiles,
        prompt_tokens=prompt_tokens,
        generated_tokens=len(answer),
        text=text_of(model, answer),
        versions={"llama-cpp-python": llama_cpp.__version__, "built for": system_info()},
    ).print()


def system_info() -> str:
    """What the library was compiled for."""
    return llama_cpp.llama_print_system_info().decode().strip(" |")


if __name__ == "__main__":
    main()
