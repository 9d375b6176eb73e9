"""Runs smol-edge on aarch64 under qemu-user, with Debian's Python and the real wheels, and compares with this machine.

    sudo apt-get install qemu-user debootstrap
    python tests/aarch64.py FOLDER             # builds FOLDER once (needs root, or `fakeroot`), then compares
    python tests/aarch64.py FOLDER --tests     # and runs the parity tests over there, against transformers' goldens

The tiny checkpoints are exported here and there, to the same operators and the same weights to the bit. Then both
machines answer from the same bundles, and so does the demonstration model. In fp32, features and logits must agree to
the bound that holds against transformers, and greedy text must be the same; in int8 and int4, where kernels round
activations at other places, within the error that rounding explains. Takes some minutes: every instruction is emulated.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import onnx_ir

ROOT = Path(__file__).parent.parent
MIRROR, RELEASE, PYTHON = "http://deb.debian.org/debian", "bookworm", "3.11"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
"""What bookworm's C library, 2.36, runs."""
EVERYTHING = "max,sme=off"
"""All that qemu knows, but for the matrix extension: with qemu 7.2's, onnxruntime 1.32's DynamicQuantizeMatMul is wrong
by 100 %. Whose fault that is, and whether a real processor with SME is hit, is open.
"""
NEON = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
BYTES = f"{NEON} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
PROCESSORS = {
    "cortex-a72": ("0xd08", NEON),
    "neoverse-n1": ("0xd0c", BYTES),
    EVERYTHING: ("0xd40", f"{BYTES} sve asimdfhm svei8mm svebf16 i8mm bf16"),
}
"""By qemu's name: NEON alone (Raspberry Pi 4); with products of bytes; with i8mm, bf16 and SVE.

Number and features as Linux shows them in /proc/cpuinfo. qemu shows the processor below it there until version 8, which
the library that onnxruntime asks for features does not survive.
"""
QUANTS = ("fp32", "int8", "int4")
BOUNDS = {"fp32": 1e-5, "int8": 0.06, "int4": 0.06}
"""Largest distance of features and logits, relative to their norm: of random weights, which forgive the least."""
CPUINFO = """processor\t: {number}
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 1

"""
EXPORT = """
import sys
from pathlib import Path
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES
for checkpoint in sys.argv[2:]:
    for quant in ("fp32", "int8", "int4"):
        export_checkpoint(Path(checkpoint), Path(sys.argv[1]) / f"{Path(checkpoint).name}-{quant}", RECIPES[quant])
"""
ANSWER = """
import json, platform, sys
from pathlib import Path
import numpy as np
from smolvlm_edge import SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
out, picture, *bundles = sys.argv[1:]
engine, found, texts = OnnxRuntimeEngine(threads=1), {}, {"machine": platform.machine()}
for bundle in map(Path, bundles):
    shape, random = Bundle.open(bundle).model, np.random.default_rng(0)
    side = shape.vision.image_size
    pixel_values = random.uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    states = engine.graph(bundle / "vision_encoder.onnx")(pixel_values)
    found[f"{bundle.name} features"] = engine.graph(bundle / "connector.onnx")(states)
    ids = random.integers(3, 200, (1, 40))
    embeds = engine.graph(bundle / "embed_tokens.onnx")(ids)[0]
    found[f"{bundle.name} logits"] = engine.decoder(bundle / "decoder.onnx")(embeds, 40)
    with SmolVLM.load(bundle, engine="onnxruntime", threads=1) as model:
        texts[bundle.name] = str(model.generate(picture, "describe", max_tokens=40))
np.savez(out, **found)
print(json.dumps(texts))
"""


class Machine:
    """An aarch64 system in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.packages, self.project = (folder.absolute() / name for name in ("root", "packages", "project"))

    def build(self) -> None:
        """Fetch what is missing: Debian's packages, unpacked and not set up, and the project's wheels."""
        for program in ("qemu-aarch64", "debootstrap", "dpkg-deb"):
            if shutil.which(program) is None:
                sys.exit(f"{program} is missing: apt-get install qemu-user debootstrap dpkg")
        if not self.root.exists():
            part = self.root.with_name("root.part")
            shutil.rmtree(part, ignore_errors=True)
            options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,libstdc++6"]
            run("debootstrap", *options, RELEASE, part, MIRROR)
            for package in sorted((part / "var/cache/apt/archives").glob("*.deb")):
                with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
                    tar = ["tar", "--extract", "--keep-directory-symlink", "--directory", part]
                    subprocess.run(tar, check=True, stdin=files.stdout)
            (part / "proc").unlink(missing_ok=True)  # a link to this machine's
            (part / "proc").mkdir()
            part.rename(self.root)
        if not self.packages.exists():
            part = self.packages.with_name("packages.part")
            shutil.rmtree(part, ignore_errors=True)
            platforms = [f"--platform={platform}" for platform in PLATFORMS]
            options = ["--quiet", "--only-binary=:all:", f"--python-version={PYTHON}", *platforms]
            run(sys.executable, "-m", "pip", "install", "--target", part, *options, *requirements())
            part.rename(self.packages)
        shutil.rmtree(self.project, ignore_errors=True)  # it may have changed since
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", self.project, ROOT)

    def python(self, processor: str, *arguments: str | Path) -> str:
        """What a program prints over there."""
        part, features = PROCESSORS[processor]
        cores = (CPUINFO.format(number=n, part=part, features=features) for n in range(os.cpu_count() or 1))
        (self.root / "proc/cpuinfo").write_text("".join(cores))
        interpreter = self.root / f"usr/bin/python{PYTHON}"
        environment = os.environ | {"PYTHONPATH": f"{self.project}:{self.packages}", "PYTHONDONTWRITEBYTECODE": "1"}
        emulated = ["qemu-aarch64", "-cpu", processor, "-L", self.root, interpreter]
        return run(*emulated, *arguments, env=environment, cwd=self.project)


def requirements() -> list[str]:
    """What runtime and exporter need, and pytest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["export"], "pytest", "hypothesis"]


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Stdout of a command; the end of the program if it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=env, cwd=cwd)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command[:6]))} ...: exit code {result.returncode}\n{result.stdout[-2000:]}")
    return result.stdout


def export_error(here: Path, there: Path) -> str | None:
    """What two exports of a graph differ in: operators, or weights; sines and cosines may, in their last two bits."""
    ours, theirs = onnx_ir.load(here).graph, onnx_ir.load(there).graph
    if [str(node) for node in ours] != [str(node) for node in theirs]:
        return "operators"
    if ours.initializers.keys() != theirs.initializers.keys():
        return "names of weights"
    for name, value in ours.initializers.items():
        a, b = (each.const_value.numpy() for each in (value, theirs.initializers[name]))
        if not np.array_equal(a, b) and not (name.startswith("rotary.") and np.allclose(a, b, rtol=0, atol=2.4e-7)):
            return name
    return None


def compare(machine: Machine, folder: Path) -> bool:
    """Export and answer here and there; prints a line each, returns whether all is well."""
    checkpoints = sorted((ROOT / "tests" / "checkpoints").iterdir())
    here, there = folder / "here", folder / "there"
    run(sys.executable, "-c", EXPORT, here, *checkpoints)
    machine.python(EVERYTHING, "-c", EXPORT, there, *checkpoints)
    well = True
    for graph in sorted(here.rglob("*.onnx")):
        if error := export_error(graph, there / graph.relative_to(here)):
            print(f"exported otherwise there: {graph.relative_to(here)}: {error}")
            well = False
    bundles = [*sorted(here.iterdir()), ROOT / "demo" / "bundle"]
    picture = ROOT / "examples" / "shapes.png"
    texts = json.loads(run(sys.executable, "-c", ANSWER, folder / "here.npz", picture, *bundles))
    arrays = np.load(folder / "here.npz")
    for processor in PROCESSORS:
        out = folder / f"{processor}.npz"
        said = json.loads(machine.python(processor, "-c", ANSWER, out, picture, *bundles))
        found = np.load(out)
        print(f"{processor} ({said['machine']}) beside {texts['machine']}:")
        for bundle in bundles:
            bound = BOUNDS.get(bundle.name.rpartition("-")[2], BOUNDS["int4"])
            errors = [
                np.linalg.norm(found[name] - arrays[name]) / np.linalg.norm(arrays[name])
                for name in (f"{bundle.name} features", f"{bundle.name} logits")
            ]
            same = said[bundle.name] == texts[bundle.name]
            right = max(errors) <= bound and (same or bound > BOUNDS["fp32"])
            well &= right
            print(
                f"  {bundle.name:20} features {errors[0]:.1e}, logits {errors[1]:.1e} of {bound:g}, "
                f"text {'the same' if same else 'differs'}{'' if right else '   <- WRONG'}",
                flush=True,
            )
    return well


def main() -> None:
    """Build, compare, test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tests", action="store_true", help="run tests/test_parity.py over there as well")
    options = parser.parse_args()
    machine = Machine(options.folder)
    machine.build()
    with tempfile.TemporaryDirectory() as folder:
        well = compare(machine, Path(folder))
    if options.tests:
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", ROOT / "tests" / "test_parity.py"]
        print(machine.python(EVERYTHING, *pytest, "-k", "not openvino"))
    sys.exit(not well)


if __name__ == "__main__":
    main()
