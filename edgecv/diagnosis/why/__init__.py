"""Why a bundle is not faster, or not right: `edgecv why`.

explain.py     the report on one bundle; findings.py what it is made of, words.py how it is shown
view.py        a graph whatever its format: onnx_view.py, ir_view.py, tflite_view.py
checks         precision, moves, values, alignment, fallbacks, limits, rivals

Host side: reading .onnx takes the `onnx` package.
"""
