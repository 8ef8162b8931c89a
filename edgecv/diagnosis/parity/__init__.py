"""Where a network first goes wrong between an image and the device's answer: `edgecv parity`."""

from edgecv import portions

__path__ = [*__path__, *portions.of("diagnosis/parity")]
