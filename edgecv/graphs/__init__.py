"""What a file format is made of: readers and rewriters of graphs. No engine runs here.

names.py   what layers are called
groups.py  outputs that hold several quantities, by what each format says of its tensors
"""
