"""OpenVINO IR, as ov.Model: imports with numpy alone, the library is imported where a file is read.

files.py      reading and writing model.xml and model.bin; what a file asks of the engine
nodes.py      who makes and reads what a node does
layers.py     which nodes are layers, how their weights lie, whether they are on an integer grid
constants.py  what chains of constants hold, as the real numbers that they stand for
attention.py  whether there is one
groups.py     what makes each tensor, as far as its channels go
"""
