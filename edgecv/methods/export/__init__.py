"""A network in PyTorch as a file of a graph, and the doors for files that come from a user.

for_<format>.py is a format's own, here or in edgecv/methods/export/ anywhere on the Python path;
*_file.py are the doors.
"""

from edgecv import portions

__path__ = [*__path__, *portions.of("methods/export")]
