"""TFLite: reading and writing files (`flatbuffer.py`), what a layer is (`layers.py`), what a file
says of its image and classes (`metadata.py`)."""
