"""Arrays as the columns of a Parquet file, which other programs read too."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import VoiceprintError

MARK = b"PAR1"
"""How a Parquet file begins."""

PACKAGE = "'pyarrow>=26,<27'"

Arrays = dict[str, npt.NDArray[Any]]


def import_pyarrow() -> Any:
    """Returns the package that reads and writes Parquet.

    Raises:
        VoiceprintError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.parquet.encryption
    except ModuleNotFoundError as error:
        raise VoiceprintError(
            f"Parquet needs the package pyarrow; pip install {PACKAGE}"
        ) from error
    return pyarrow


def to_parquet(arrays: Mapping[str, npt.NDArray[Any]], about: Sequence[str]) -> bytes:
    """Returns the bytes of a file.

    Args:
        arrays: The columns, a row for each entry of the first axis; further axes become lists.
        about: Names of those that are no columns: they stand in the file's metadata.
    """
    pyarrow = import_pyarrow()
    columns = {}
    for name, array in arrays.items():
        if name not in about:
            column = pyarrow.array(array.ravel())
            for length in reversed(array.shape[1:]):
                column = pyarrow.FixedSizeListArray.from_arrays(column, length)
            columns[name] = column
    metadata = {name: json.dumps(arrays[name].tolist()) for name in about if name in arrays}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes, about: Sequence[str]) -> Arrays:
    """Returns the arrays that `to_parquet` wrote; anything but its bytes raises almost anything."""
    pyarrow = import_pyarrow()
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    arrays: Arrays = {}
    for name in table.column_names:
        column, shape = table[name].combine_chunks(), [table.num_rows]
        while pyarrow.types.is_fixed_size_list(column.type):
            shape.append(column.type.list_size)
            column = column.flatten()
        values = column.to_numpy(zero_copy_only=False)
        is_text = pyarrow.types.is_string(column.type)
        arrays[name] = (values.astype(str) if is_text else values).reshape(shape)
    for name in about:
        if (text := (table.schema.metadata or {}).get(name.encode())) is not None:
            arrays[name] = np.array(json.loads(text))
    return arrays
