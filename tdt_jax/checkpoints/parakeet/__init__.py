"""NVIDIA's Parakeet models, as NeMo and transformers store them: read and written.

tables.py                which tensor of theirs is which parameter of ours, and its layout
convert.py               tensors into a model and back, every mismatch in one error
nemo.py                  .nemo archives
nemo_config.py           model_config.yaml, read and written
hugging_face.py          folders of transformers
hugging_face_config.py   config.json, read and written
"""
