"""The public dataset layouts; each file is found by `catalog.py` beside this folder."""
