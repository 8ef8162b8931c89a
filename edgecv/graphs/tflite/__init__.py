"""TFLite: reading and writing files (`flatbuffer.py`), what a layer is (`layers.py`), what makes
each tensor as far as its channels go (`groups.py`), what a file says of its image and classes
(`metadata.py`)."""
