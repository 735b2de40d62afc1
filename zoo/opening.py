"""Opens a zoo wherever it is: in a folder, or on the Hub by its `hf://` address."""

from pathlib import Path

from zoo.store.zoo import Zoo


def open_zoo(source: str | Path, data_dir: str | Path | None = None) -> Zoo:
    """Open a zoo.

    Arguments:
        source: its folder; or `hf://owner/name` or `hf://owner/name@revision`, see `zoo.sharing.hub.open_remote`.
        data_dir: folder of files that networks read when they run, such as a graph; most need none.

    Raises:
        ZooError: if there is none, it is incomplete, or a file is missing or damaged.
    """
    address = Path(source).as_posix()  # which leaves one slash of two
    if address.partition("/")[0] == "hf:":
        from zoo.sharing.hub import open_remote

        return open_remote(address, data_dir)
    return Zoo(source, data_dir)
