"""Post-training quantization: calibration, rounding, and what each format of graph does otherwise.

for_<format>.py is a format's own, here or in edgecv/methods/quantize/ anywhere on the Python path.
"""

from edgecv import portions

__path__ = [*__path__, *portions.of("methods/quantize")]
