"""Multimodal fusion in JAX and Flax.

Importing the package costs nothing; import what you use from its rooms:

    from mmfusion_jax.models.cfn_sr import CFNSR
"""

__version__ = "0.1.0"
