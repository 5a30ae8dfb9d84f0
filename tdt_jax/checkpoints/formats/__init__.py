"""File formats of checkpoints. Know nothing of models, and never execute what they read.

tensors.py         StoredTensor: a tensor on disk
torch_file.py      tensors of torch's file format, without torch
torch_pickle.py    its pickles, read as data
safetensors.py     tensors of safetensors files
tokenizer_json.py  SentencePiece models to and from tokenizer.json
fields.py          ConfigReader: a foreign configuration, checked, all problems at once
"""
