"""Quantizers that learn while the network trains: x̂ = s · clip(round(x / s), Qn, Qp).

    lsq.py, pact.py   one quantizer: its step is a parameter of the network
    calls.py          what a network does, seen by running it once
    places.py         which of those tensors an engine holds as integers: where quantizers go
    attach.py         a network that runs with its quantizers; the float network inside it
    table.py          what was learned, by the tensor names of an exported graph

Nothing of the network's own code or of its parameters' names changes: its calls are intercepted
while it runs. Importing a file of this package imports torch.
"""

from edgecv import portions

__path__ = [*__path__, *portions.of("quantizers")]
