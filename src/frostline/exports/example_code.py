"""The example that stands beside every artefact: a few lines that need the format's own runtime, Pillow and NumPy.

Every export runs it as its proof.
"""

from __future__ import annotations

from frostline.photos.decoding import Transform

_HEAD = '''"""What photos show: python example.py PHOTO...   (pip install {packages})"""

import json{more}
import sys
from pathlib import Path

import numpy as np
{imports}
from PIL import Image, ImageOps

'''

_FOOT = """

if __name__ == "__main__":
    for path in sys.argv[1:]:
        probabilities = classify(read(path))
        print(path, classes[probabilities.argmax()], f"{probabilities.max():.3f}")
"""

ONNX = (
    _HEAD.format(packages="onnxruntime numpy pillow", imports="import onnxruntime", more="")
    + """session = onnxruntime.InferenceSession(Path(__file__).with_name("{file}"), providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])

{read}

def classify(photo):  # uint8 (H, W, 3) to probabilities (C,)
    return session.run(None, {{"photo": photo}})[0]
"""
    + _FOOT.replace("{", "{{").replace("}", "}}")
)

OPENVINO = (
    _HEAD.format(packages="openvino numpy pillow", imports="import openvino", more="")
    + """network = openvino.Core().read_model(Path(__file__).with_name("{file}"))
# float32; the default is bfloat16 where the processor has it
model = openvino.Core().compile_model(network, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
classes = json.loads(network.get_rt_info(["frostline", "classes"]).astype(str))

{read}

def classify(photo):  # uint8 (H, W, 3) to probabilities (C,)
    return model(photo)[0].copy()
"""
    + _FOOT.replace("{", "{{").replace("}", "}}")
)

TORCH = (
    _HEAD.format(packages="torch numpy pillow", imports="import torch", more="")
    + """about = {{"frostline.json": ""}}
model = torch.export.load(Path(__file__).with_name("{file}"), extra_files=about).module()
classes = json.loads(json.loads(about["frostline.json"])["classes"])

{read}

def classify(photo):  # uint8 (H, W, 3) to probabilities (C,)
    with torch.inference_mode():
        return model(torch.from_numpy(photo.copy())).numpy()
"""
    + _FOOT.replace("{", "{{").replace("}", "}}")
)

LITERT = (
    _HEAD.format(
        packages="ai-edge-litert numpy pillow", imports="from ai_edge_litert.interpreter import Interpreter", more=""
    )
    + """model = Interpreter(str(Path(__file__).with_name("{file}")))
model.allocate_tensors()
classes = json.loads(json.loads(Path(__file__).with_name("model.json").read_text(encoding="utf-8"))["classes"])

{read}

def classify(photo):  # uint8 (1, S, S, 3) to probabilities (C,)
    model.set_tensor(model.get_input_details()[0]["index"], photo)
    model.invoke()
    return model.get_tensor(model.get_output_details()[0]["index"])
"""
    + _FOOT.replace("{", "{{").replace("}", "}}")
)


def write(template: str, file: str, transform: Transform, *, whole_photo: bool) -> str:
    """The text of example.py.

    Parameters
    ----------
    file
        The artefact's name.
    whole_photo
        The artefact takes photos of any size; else the example resizes them.
    """
    return template.format(file=file, read=_read(transform, whole_photo=whole_photo))


def _read(transform: Transform, *, whole_photo: bool) -> str:
    """The function that decodes a photo as frostline does: large JPEGs at a fraction of their size, upright,
    transparency over white."""
    side, crop = transform.size, transform.resize == "crop"
    lines = ["def read(path):  # any photo, upright RGB", "    image = Image.open(path)"]
    if crop:
        lines += [
            f"    scale = {2 * side / transform.crop_pct!r} / min(image.size)",
            "    # decodes a large JPEG at 1/2, 1/4 or 1/8 of its size",
            "    image.draft(None, [int(np.ceil(scale * side)) for side in image.size])",
        ]
    else:
        lines += [
            f"    image.draft(None, ({2 * side}, {2 * side}))  # decodes a large JPEG at 1/2, 1/4 or 1/8 of its size"
        ]
    lines += [
        "    image = ImageOps.exif_transpose(image)",
        "    if image.has_transparency_data:",
        '        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))',
    ]
    if whole_photo:
        lines += ['    return np.asarray(image.convert("RGB"))']
    else:
        lines += [*_resized(transform), "    return np.asarray(image)[None]"]
    return "\n".join(lines) + "\n"


def _resized(transform: Transform) -> list[str]:
    method, size = transform.interpolation.upper(), (transform.size, transform.size)
    how = f'image.convert("RGB").resize({size}, Image.Resampling.{method}, '
    if transform.resize == "squash":
        return [f"    image = {how}reducing_gap=3.0)"]
    return [
        f"    edge = {transform.crop_pct} * min(image.size)",
        "    box = [(side - edge) / 2 for side in image.size] + [(side + edge) / 2 for side in image.size]",
        f"    image = {how}box, reducing_gap=3.0)",
    ]
