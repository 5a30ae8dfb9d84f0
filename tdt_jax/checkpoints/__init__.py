"""Recognisers and training states, to and from disk.

loading.py    load, save: tells the kinds of checkpoints apart; the Hugging Face Hub
native.py     this package's own folders: config.json, tokenizer, checkpoints/
adapter.py    what fine-tuning changed of a base, without the base
store.py      Checkpoints: training states by step, written in the background
formats/      file formats, which know nothing of models
parakeet/     NVIDIA's Parakeet models, as NeMo and transformers store them
"""
