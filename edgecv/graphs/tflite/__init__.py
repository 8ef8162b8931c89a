"""TFLite: reading and writing files (`flatbuffer.py`), what a file says of its image and classes
(`metadata.py`), and what a graph is made of:

index.py       who makes and reads a tensor
layers.py      which operators are layers, and how their weights lie
groups.py      what makes each tensor, as far as its channels go
geometry.py    windows: SAME padding as numbers
constants.py   integers as real numbers
layout.py      transpositions of the image alone
subnormals.py  weights near 0
"""
