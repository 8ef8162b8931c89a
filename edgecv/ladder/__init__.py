"""Where a network first goes wrong between an image and the device's answer: `edgecv parity`."""
