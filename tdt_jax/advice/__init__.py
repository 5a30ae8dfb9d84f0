"""Texts -> advice: automata over labels that a decoder follows, built by NumPy on the host.

pieces.py     the texts of a tokenizer's labels, as a trie
phrases.py    phrases that are likely, or unlikely
allowed.py    what may be emitted: phrases, digits, the scripts of languages
arpa.py       n-gram language models in ARPA files
ngrams.py     trains them: Kneser-Ney
guide.py      Guide: all the advice for a recording or a stream
"""
