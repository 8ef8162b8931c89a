"""TFLite: reading and writing files (`flatbuffer.py`), and what a layer is (`layers.py`)."""
