"""Run by test_ray.py inside its environment: captions the first pictures of a table in Daft, and prints JSON."""

import json
import sys

import daft
from daft import DataType

from smolvlm_edge.integrations.ray import Captioner

ROW = DataType.struct({"caption": DataType.string(), "error": DataType.string()})


@daft.cls
class DaftCaptioner:
    """One a worker; the pictures of a batch go to it as a Series."""

    def __init__(self):
        self.captioner = Captioner("demo", "describe", max_tokens=8, threads=1)

    @daft.method.batch(return_dtype=ROW)
    def caption(self, pictures: daft.Series):
        """Rows with caption and error."""
        return [
            {key: row[key] for key in ("caption", "error")} for row in self.captioner.captions(pictures.to_pylist())
        ]


path, count = sys.argv[1], int(sys.argv[2])
captioner = DaftCaptioner()
table = daft.read_parquet(path).where(daft.col("id") < count)
rows = table.select(daft.col("id"), captioner.caption(daft.col("bytes")).alias("said")).to_pylist()
print(json.dumps([{"id": row["id"], **row["said"]} for row in rows]))
