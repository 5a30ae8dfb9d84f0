"""Connected telephone speech, composed from recorded prompts.

grammar.py       texts: telephone numbers, digits, dates, amounts, times
compose.py       Telephone: recordings joined to utterances of those texts
batches.py       training batches of them
asterisk_en/     the recordings, with their licence
"""
