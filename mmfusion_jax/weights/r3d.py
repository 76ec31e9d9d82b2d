"""Maps parameter names of R3D to those of torchvision."""

from mmfusion_jax.weights.convert import NameRule, WeightMapping, batch_norm, kernel

BLOCK = r"stage(\d+)_block(\d+)/"
SOURCE = r"layer\1.\2."

R3D = WeightMapping(
    rules=(
        NameRule("stem/kernel", "stem.0.weight", kernel),
        *batch_norm("stem_norm", "stem.1"),
        NameRule(rf"{BLOCK}conv_(\d)/kernel", rf"{SOURCE}conv\3.0.weight", kernel),
        *batch_norm(rf"{BLOCK}conv_(\d)_norm", rf"{SOURCE}conv\3.1"),
        NameRule(f"{BLOCK}shortcut/kernel", f"{SOURCE}downsample.0.weight", kernel),
        *batch_norm(f"{BLOCK}shortcut_norm", f"{SOURCE}downsample.1"),
    ),
    export=(
        'python -c "import torch, torchvision; torch.save('
        "torchvision.models.video.r3d_18(weights='DEFAULT').state_dict(), 'r3d_18.pt'"
        ')" writes r3d_18.pt'
    ),
    renames=((r"^module\.", ""),),
)
