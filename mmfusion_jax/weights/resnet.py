"""Names of a ResNet's weights in files of torchvision and of transformers."""

from mmfusion_jax.weights.convert import NameRule, WeightMapping, batch_norm, kernel

BLOCK = r"stage(\d+)_block(\d+)/"
THEIRS = r"layer\1.\2."


def _transformers(stages: int = 4) -> tuple[tuple[str, str], ...]:
    """Their names as torchvision's: stages and convolutions count from 1 there."""
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
        NameRule(rf"{BLOCK}conv_(\d)/kernel", rf"{THEIRS}conv\3.weight", kernel),
        *batch_norm(rf"{BLOCK}conv_(\d)_norm", rf"{THEIRS}bn\3"),
        NameRule(f"{BLOCK}shortcut/kernel", f"{THEIRS}downsample.0.weight", kernel),
        *batch_norm(f"{BLOCK}shortcut_norm", f"{THEIRS}downsample.1"),
    ),
    export=(
        'python -c "import torch, torchvision; torch.save(torchvision.models.resnet50('
        "weights='DEFAULT').state_dict(), 'resnet50.pt')\" writes resnet50.pt; "
        "for other blocks take resnet18 or resnet34 in its place"
    ),
    renames=_transformers(),
)
