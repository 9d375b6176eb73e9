"""What an analysis of imports does not find: data, and a package that is named by a string only.

The demonstration model, models.lock, fonts and texts are data. The engine's and the tokenizer's libraries are found by
PyInstaller's own hooks.
"""

from PyInstaller.utils.hooks import collect_data_files, copy_metadata

datas = [*collect_data_files("smolvlm_edge"), *copy_metadata("smol-edge")]
hiddenimports = ["smolvlm_edge.demo"]
