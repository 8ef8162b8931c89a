"""What the integers of a quantized network cost its answers, tensor by tensor, and by what
mechanism: the second half of `edgecv why`.

network.py     a network whose roundings are put in and taken out: qdq.py of ONNX, fakes.py of IR
held.py        what its tensors hold on images, in float
mechanisms.py  why a tensor's grid does not hold that
judge.py       what answers are worth: dB, and the task's own metric
ablation.py    the runs, and the report of them; words.py shows it
"""
