"""Croissant metadata of an exported zoo, which describe its files and columns to search engines and loaders.

The format is Croissant 1.1 of MLCommons, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import ZooError
from zoo.files import checksum_of
from zoo.sharing.card import CITATION, LICENCE_URL, REPOSITORY, TAGS
from zoo.sharing.configuration import Configuration
from zoo.sharing.responsible import CONFORMS_TO, NAMESPACES, responsible_use
from zoo.store.columns import KNOWN, SPLITS, Column
from zoo.store.manifest import Manifest

CROISSANT = "croissant.json"
PARQUET = "application/x-parquet"
SPLIT_NAMES = "split-names"  # the names of treatments have no `-`, so this cannot be one
TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet format "
    "includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in TERMS.split()},
    **NAMESPACES,
}
TYPES = {"f": "cr:Float{}", "i": "cr:Int{}", "u": "cr:UInt{}", "b": "sc:Boolean", "O": "sc:Text"}  # by kind of dtype


def croissant(manifest: Manifest, folder: Path, configurations: Sequence[Configuration]) -> dict[str, Any]:
    """Return the metadata of an exported zoo: its Parquet files with checksums, and a record set per configuration.

    Arguments:
        manifest: Manifest of the zoo.
        folder: Folder of the data set, with its Parquet files.
        configurations: Configurations of the data set.

    Returns:
        JSON-LD, with paths relative to the folder.
    """
    source, name = manifest.source, manifest.name
    paths = [path for configuration in configurations for path in configuration.paths.values()]
    with ThreadPoolExecutor() as pool:
        files = list(pool.map(partial(_file, folder), paths))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", CONFORMS_TO],
        "name": f"asymzoo-{name}",
        "description": f"Paired networks with and without parameter symmetries. {manifest.description}".strip(),
        "license": LICENCE_URL if source is None else f"as stated by {source}",
        "url": f"https://huggingface.co/datasets/{REPOSITORY.format(name)}",
        "creator": {"@type": "sc:Organization", "name": "The AsymZoo authors"},
        "citeAs": CITATION,
        "keywords": TAGS,
        "datePublished": manifest.created,
        "version": f"{manifest.schema_version}.0.0",
        **responsible_use(manifest),
        "distribution": files + [_file_set(configuration.name) for configuration in configurations],
        "recordSet": [_splits(), *(_record_set(folder, configuration) for configuration in configurations)],
    }


def _file(folder: Path, path: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{(folder / path).stat().st_size} B",
        "encodingFormat": PARQUET,
        "sha256": checksum_of(folder / path),
    }


def _file_set(configuration: str) -> dict[str, Any]:
    name, includes = f"{configuration}-files", f"{configuration}/*.parquet"
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": PARQUET, "includes": includes}


def _splits() -> dict[str, Any]:
    name = f"{SPLIT_NAMES}/name"
    return {
        "@type": "cr:RecordSet",
        "@id": SPLIT_NAMES,
        "name": SPLIT_NAMES,
        "description": "Names of the splits; all networks of a pair are in the same split.",
        "dataType": "cr:Split",
        "key": {"@id": name},
        "field": [{"@type": "cr:Field", "@id": name, "name": "name", "dataType": "sc:Text"}],
        "data": [{name: split} for split in SPLITS],
    }


def _record_set(folder: Path, configuration: Configuration) -> dict[str, Any]:
    """Return the record set of a configuration: its columns, and the split, which is the name of the file."""
    name, columns = configuration.name, configuration.columns
    schema = pq.read_schema(folder / next(iter(configuration.paths.values())))
    # Readers that join record sets apply the pattern twice: to the path, and then to the split found in it. So the
    # folder and the suffix are optional.
    path = rf"(?:{name}/)?({'|'.join(SPLITS)})(?:\.parquet)?$"
    split = {
        "@type": "cr:Field",
        "@id": f"{name}/split",
        "name": "split",
        "description": KNOWN["split"].meaning,
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": f"{name}-files"},
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": path},
        },
        "references": {"field": {"@id": f"{SPLIT_NAMES}/name"}},
    }
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The networks of {name}.",
        "key": [{"@id": f"{name}/{key}"} for key in ("treatment", "pair") if key in columns],
        "field": [split, *(_field(name, column, schema.field(column.name).type) for column in columns.values())],
    }


def _field(record_set: str, column: Column, kind: pa.DataType) -> dict[str, Any]:
    """Return the field of a column whose type in Parquet is `kind`."""
    array = pa.types.is_fixed_size_list(kind)
    dtype = np.dtype((kind.value_type if array else kind).to_pandas_dtype())
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{quote(column.name)}",
        "name": column.name,
        "description": column.meaning + (f" Unit: {column.unit}." if column.unit else ""),
        "dataType": TYPES[dtype.kind].format(8 * dtype.itemsize),
        **({"isArray": True, "arrayShape": str(kind.list_size)} if array else {}),
        "source": {"fileSet": {"@id": f"{record_set}-files"}, "extract": {"column": column.name}},
    }


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an exported zoo, by path, as its Croissant metadata list them.

    Raises:
        ZooError: If the folder has no valid Croissant metadata.
    """
    path = folder / CROISSANT
    try:
        listed = json.loads(path.read_bytes())["distribution"]
        return {file["contentUrl"]: file["sha256"] for file in listed if file["@type"] == "cr:FileObject"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path}: does not list the export's files ({type(error).__name__}); export again") from None
