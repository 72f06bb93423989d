"""Which target this machine is."""

from __future__ import annotations

import torch


def present() -> str:
    """The target of the current GPU by its architecture (sm_90, gfx942); ``generic`` without a GPU, and for one that
    the table of targets does not have."""
    if not torch.cuda.is_available():
        return "generic"
    from attnc.codegen.planner.targets import targets

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    name = f"sm_{properties.major}{properties.minor}"
    if torch.version.hip:
        name = str(properties.gcnArchName).split(":")[0]
    return name if name in targets().names else "generic"
