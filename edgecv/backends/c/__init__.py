"""Plain C99: microcontrollers, and any device with a compiler."""


def environment() -> dict[str, object]:
    """What of this machine decides how far a bundle gets."""
    from edgecv.binary.build import compiler  # not at import: devices import this package

    return {"compiler": compiler() is not None}
