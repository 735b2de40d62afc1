"""Opens a zoo in a local folder, or on the Hub by its `hf://` address."""

from pathlib import Path

from zoo.store.zoo import Zoo


def open_zoo(source: str | Path, data_dir: str | Path | None = None) -> Zoo:
    """Open a zoo.

    Arguments:
        source: Folder of the zoo, or its address `hf://owner/name` or `hf://owner/name@revision`, see
            `zoo.sharing.hub.open_remote`.
        data_dir: Folder of files that networks read when they run, such as a graph. Most networks read none.

    Raises:
        ZooError: If there is no zoo, it is incomplete, or a file is missing or damaged.
    """
    address = Path(source).as_posix()  # turns `hf://` into `hf:/`, also if the source is a `Path`
    if address.partition("/")[0] == "hf:":
        from zoo.sharing.hub import open_remote

        return open_remote(address, data_dir)
    return Zoo(source, data_dir)
