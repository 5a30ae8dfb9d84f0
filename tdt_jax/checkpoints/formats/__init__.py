"""File formats of checkpoints. They know nothing of models, and execute nothing that they read.

tensors.py         StoredTensor: a tensor in a file
torch_file.py      torch's files of tensors, read and written without torch
torch_pickle.py    the pickle in such a file, read without running it
safetensors.py     safetensors files
tokenizer_json.py  SentencePiece models as tokenizer.json, and back
fields.py          ConfigReader: a foreign configuration, checked; all problems in one error
"""
