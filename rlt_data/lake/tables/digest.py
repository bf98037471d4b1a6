"""The digest of a table's keys: it depends on the set of keys, not on their order or on files."""

from __future__ import annotations

import polars as pl

from rlt_data.hashing import hash_content

_HEX_KEY = "^[0-9a-f]{32}$"
_PIECE = 15  # hexadecimal digits: 60 bits, which fit a signed 64-bit integer


def digest_keys(keys: pl.Series) -> str:
    """Digest a string series of keys into 32 hexadecimal characters.

    The digest is the content hash of three exact integers: the number of keys, and the sums of their first
    and second 60 bits. Any engine that can cast hexadecimal numbers and add them can compute it. A key that
    is not 32 lower-case hexadecimal digits is replaced by its content hash.
    """
    is_hex = keys.str.contains(_HEX_KEY)
    if not is_hex.all():
        others = pl.Series([hash_content(key) for key in keys.filter(~is_hex).to_list()], dtype=pl.String)
        keys = pl.concat([keys.filter(is_hex), others])
    sums = [
        int(keys.str.slice(start, _PIECE).str.to_integer(base=16).cast(pl.Int128).sum())
        for start in (0, _PIECE)
    ]
    return hash_content(len(keys), *(str(number) for number in sums))
