"""ONNX: one canonical form (`canonical/`), and how a graph is edited (`draft.py`)."""
