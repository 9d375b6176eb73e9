"""Run by test_ray.py inside its environment: captions the first pictures of a table in Spark, and prints JSON."""

import json
import os
import sys

from pyspark.sql import SparkSession

from smolvlm_edge.integrations.ray import Captioner

os.environ["PYSPARK_PYTHON"] = sys.executable
path, count = sys.argv[1], int(sys.argv[2])
captioner = Captioner("demo", "describe", column="bytes", max_tokens=8, threads=1)


def caption(batches):
    """Each worker gets a captioner of its own, because the model is not pickled."""
    for batch in batches:
        yield captioner(batch)[["id", "caption", "error"]]


spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
table = spark.read.parquet(path).where(f"id < {count}")
rows = table.mapInPandas(caption, "id long, caption string, error string").collect()
print(json.dumps([row.asDict() for row in rows]))
