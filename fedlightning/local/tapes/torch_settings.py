"""Which of torch's own settings decide what its Python code does; the private ones are read here alone.

``tests/local/vectorised/test_torch_settings.py`` fails clearly when they move. What modules themselves hold
is looked at in ``readings``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules import module as _module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

# Untyped in torch.
_modes_of_functions: Any = _get_current_function_mode_stack
_attention: Any = torch.backends.cuda

_HOOKS: tuple[dict[int, Any], ...] = (
    _module._global_forward_pre_hooks,
    _module._global_forward_hooks,
    _module._global_backward_pre_hooks,
    _module._global_backward_hooks,
)


def settings_now() -> list[Any]:
    """Return torch's settings as they are now, to be compared with what they are later."""
    # A default device is a mode, too.
    modes = [*_modes_of_functions(), *_get_current_dispatch_mode_stack()]
    return [
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")),
        torch.backends.mha.get_fastpath_enabled(),
        _attention.flash_sdp_enabled(),
        _attention.math_sdp_enabled(),
        _attention.mem_efficient_sdp_enabled(),
        *(list(hooks.items()) for hooks in _HOOKS),
        # Two that look alike may do different things.
        *map(id, modes),
    ]
