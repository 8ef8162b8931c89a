"""What a device needs: numpy and the standard library only.

from edgecv.runtime import open_bundle
model = open_bundle("shoe.edgecv")
model(image)[0]            # Prediction(index=7, label='sneaker', score=0.93)
model.run({"input": x})    # {"output": array}
"""

from __future__ import annotations

from edgecv.runtime.answers import Detection
from edgecv.runtime.bundle import Bundle, Prediction, open_bundle
from edgecv.runtime.preprocess import Preprocess
from edgecv.runtime.verify import VerifyReport, verify

__all__ = [
    "Bundle", "Detection", "Prediction", "Preprocess", "VerifyReport", "open_bundle", "verify",
]  # fmt: skip
