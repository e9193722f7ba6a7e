"""Federated learning for PyTorch Lightning: the public names, resolved on first use.

Nothing is defined here. Names load lazily (PEP 562), so that ``fedlightning-train --help`` does not
import torch.
"""
