"""`edgecv.finish`: what came back from a training loop of your own, to bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from edgecv.api.calling import Progress, StrPath, public
from edgecv.api.export import Bundle, export
from edgecv.api.export_options import ExportOptions, check
from edgecv.errors import EdgecvError, RecipeError

if TYPE_CHECKING:
    from torch import nn


@public
def finish(
    module: nn.Module,
    targets: str | Sequence[str],
    *,
    out: StrPath,
    progress: Progress | None = None,
    failed: dict[str, EdgecvError] | None = None,
    **options: Unpack[ExportOptions],
) -> list[Bundle]:
    """A bundle for each target of a network that `edgecv.compress` returned and a loop has trained;
    the network is left as it is. All words are `edgecv.export`'s.

    With quantizers it is int8, with the ranges and integers that were learned; biases move to the
    grid that engines hold. Input size and channels are those of compress's example, which also
    calibrates what is not learned, unless `calibration` is given. Give mean and std as training has
    them: where they make no pixels of that example, they are refused.

    Raises RecipeError: the network is none of compress's (`edgecv.export` takes any); and what
    `edgecv.export` raises.
    """
    from edgecv.api.ready import of

    check(options, "edgecv.finish")
    if of(module) is None:
        hint = "edgecv.export takes any network"
        raise RecipeError("module", "did not come from edgecv.compress", hint)
    return export(module, targets, out=out, progress=progress, failed=failed, **options)
