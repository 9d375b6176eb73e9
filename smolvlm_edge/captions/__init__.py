"""Where the pictures of `smol-edge describe` come from, and where its answers go.

`files.py` finds files, `parquet.py` and `webdataset.py` read data sets, `sources.py` makes one sequence of them;
`output.py` writes Parquet and WebDataset, `sidecars.py` a file beside each picture, with `xmp.py`.
"""
