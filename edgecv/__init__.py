"""edgecv: compress a vision network, compile it for a small machine, and prove both.

This file stays empty of imports: `edgecv.runtime` must load on a device with numpy alone.
"""

__version__ = "0.1.0"
