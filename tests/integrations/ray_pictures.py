"""Run by test_ray.py inside its environment: captions a folder of pictures on a small cluster, and prints JSON.

python ray_pictures.py TABLE OUT [--workers N] [--kill] [--checkpoint DIR]
"""

import argparse
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster
from ray.data.checkpoint import CheckpointConfig

from smolvlm_edge.integrations.ray import Captioner

WORKER = "ray::MapWorker"
killed = threading.Event()


def kill_a_worker() -> None:
    """Kill one process that captions, once it has begun."""
    while True:
        for process in psutil.process_iter(["name", "cmdline"]):
            if any(WORKER in word for word in process.info["cmdline"] or ()) and process.cpu_times().user > 2:
                os.kill(process.pid, signal.SIGKILL)
                killed.set()
                return
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 200 << 20})
    cluster.add_node(num_cpus=4, object_store_memory=200 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    if arguments.checkpoint:
        context.checkpoint_config = CheckpointConfig(
            id_column="id", checkpoint_path=str(arguments.checkpoint), delete_checkpoint_on_success=False
        )
    if arguments.kill:
        threading.Thread(target=kill_a_worker, daemon=True).start()
    keywords = {"model": "demo", "prompt": "describe", "column": "bytes", "max_tokens": 8}
    start = time.monotonic()
    (
        ray.data.read_parquet(str(arguments.pictures))
        .map_batches(
            Captioner,
            fn_constructor_kwargs=keywords,
            compute=ray.data.ActorPoolStrategy(size=arguments.workers),
            num_cpus=1,
            batch_size=8,
        )
        .drop_columns(["bytes"])
        .write_parquet(str(arguments.out))
    )
    seconds = time.monotonic() - start
    rows = pq.read_table(arguments.out).to_pylist() if any(arguments.out.rglob("*.parquet")) else []
    report = {"nodes": len(ray.nodes()), "killed": killed.is_set(), "seconds": seconds, "rows": rows}
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
