"""The data of a study: opened, checked, split once and prepared the same way everywhere.

The search opens train and validation (`open_search_data`); the test part stays shut until the
export asks for it (`open_raw_part`). Keras layers that repeat the preparation inside a model are in
`hpo.data.layers`, the encoding of tables in `hpo.data.encoding`: neither is imported here, because
they need Keras.
"""

from hpo.data.opening import Part, RawPart, SearchData, open_raw_part, open_search_data
from hpo.data.preprocessing import Preparation
from hpo.data.signature import DataSignature

__all__ = [
    "DataSignature",
    "Part",
    "Preparation",
    "RawPart",
    "SearchData",
    "open_raw_part",
    "open_search_data",
]
