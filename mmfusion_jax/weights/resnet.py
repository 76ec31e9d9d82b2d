"""Maps parameter names of ResNet to those of torchvision and transformers."""

from mmfusion_jax.weights.convert import NameRule, WeightMapping, batch_norm, kernel

BLOCK = r"stage(\d+)_block(\d+)/"
SOURCE = r"layer\1.\2."


def _transformers(stages: int = 4) -> tuple[tuple[str, str], ...]:
    """Returns the renames from transformers to torchvision, which counts from 1."""
    parts = (("convolution", "conv"), ("normalization", "bn"))
    layers = tuple(
        (rf"\.layer\.{i}\.{long}\.", f".{short}{i + 1}.")
        for i in range(3)
        for long, short in parts
    )
    return (
        (r"^(module\.)?(resnet\.)?", ""),
        (r"^embedder\.embedder\.convolution", "conv1"),
        (r"^embedder\.embedder\.normalization", "bn1"),
        (r"\.shortcut\.convolution", ".downsample.0"),
        (r"\.shortcut\.normalization", ".downsample.1"),
        *((rf"^encoder\.stages\.{i}\.layers", f"layer{i + 1}") for i in range(stages)),
        *layers,
    )


RESNET = WeightMapping(
    rules=(
        NameRule("stem/kernel", "conv1.weight", kernel),
        *batch_norm("stem_norm", "bn1"),
        NameRule(rf"{BLOCK}conv_(\d)/kernel", rf"{SOURCE}conv\3.weight", kernel),
        *batch_norm(rf"{BLOCK}conv_(\d)_norm", rf"{SOURCE}bn\3"),
        NameRule(f"{BLOCK}shortcut/kernel", f"{SOURCE}downsample.0.weight", kernel),
        *batch_norm(f"{BLOCK}shortcut_norm", f"{SOURCE}downsample.1"),
    ),
    export=(
        'python -c "import torch, torchvision; torch.save(torchvision.models.resnet50('
        "weights='DEFAULT').state_dict(), 'resnet50.pt')\" writes resnet50.pt; "
        "for other blocks use resnet18 or resnet34 instead"
    ),
    renames=_transformers(),
)
