"""ONNX: one canonical form (`canonical/`), how a graph is edited (`draft.py`), what it is made of:

index.py      who makes, reads and holds a tensor
layers.py     which nodes are layers, and how their weights lie
geometry.py   windows: strides, dilations, pads, groups
constants.py  tensors as arrays, integers as real numbers
names.py      what layers are called
groups.py     what makes each tensor, as far as its channels go
wire.py       a file's bytes without the package `onnx`, for devices
"""
