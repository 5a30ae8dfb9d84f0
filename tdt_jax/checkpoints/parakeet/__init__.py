"""NVIDIA's Parakeet models, as NeMo and transformers store them: read and written.

tables.py                which tensor of a checkpoint is which parameter, and in which layout
convert.py               tensors into a model and back; every mismatch in one error
nemo.py                  .nemo archives
nemo_config.py           model_config.yaml, read and written
hugging_face.py          transformers' folders
hugging_face_config.py   config.json, read and written
"""
