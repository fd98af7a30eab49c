"""The import of torchvision together with a torch that is built for the CPU only."""

from __future__ import annotations

from types import ModuleType


def import_torchvision() -> ModuleType:
    """Import and return torchvision, even if its compiled operators do not load.

    The torchvision wheels for Linux are built for CUDA. With a CPU-only torch their compiled library does not load,
    and the import fails because Python code in torchvision registers shapes for two missing operators. Declaring these
    operators, without an implementation, is enough for data sets and transforms, and this project uses nothing else.
    """
    import torch

    try:
        import torchvision
    except RuntimeError:
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", signature)
        torch.library.define("torchvision::qnms", signature)
        import torchvision
    return torchvision  # type: ignore[no-any-return]
