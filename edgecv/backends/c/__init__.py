"""Plain C99: microcontrollers, and any device with a compiler."""

from edgecv.backends import Facts

FACTS = Facts(
    "C",
    "targets c and cortex-*: their code is written, not run",
    graphs=("onnx",),
    products=("C",),
    exact=True,
    folder=True,
)


def environment() -> dict[str, object]:
    """What of this machine decides how far a bundle gets."""
    from edgecv.binary.build import compiler  # not at import: devices import this package

    return {"compiler": compiler() is not None}
