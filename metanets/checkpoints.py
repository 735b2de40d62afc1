"""A metanetwork as one safetensors file: its tensors, and a description that says how to make it again."""

import copy
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from metanets.graph import ParameterGraph
from metanets.inputs import READERS, Reader
from metanets.links import Link
from metanets.models import MODELS, Metanetwork
from metanets.settings import Settings
from metanets.tasks import TARGET, Task, TaskData
from zoo.errors import TaskError
from zoo.files import write_whole
from zoo.networks.parameters import ParameterLayout
from zoo.store.manifest import SCHEMA


@dataclass(frozen=True)
class Origin:
    """Where a metanetwork comes from.

    Attributes:
        model: Name in `metanets.models.MODELS`, or `module:Class` of one from elsewhere.
        settings: Settings of its training; `options` are the arguments of its constructor.
        task: Task that it was trained on.
        data: Identity of the task's data.
        seed: Seed of its training.
        epochs: Number of epochs trained, and the best one.
        seconds: Duration of its training.
        target: Name of what it predicts.
        rows: Name of the column of rows that it reads.
    """

    model: str
    settings: Settings
    task: Task | None = None
    data: TaskData | None = None
    seed: int = 0
    epochs: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    target: str = TARGET
    rows: str = "weights"


class Config(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        schema_version: Version of the format, that of zoos.
        model, settings, task, data, seed, epochs, seconds, target, rows: Origin of the metanetwork, see `Origin`.
        link: From its outputs to predictions.
        reads: Name of its reader; None if it has none.
        layout, activations, include_fixed: Arguments of its reader.
        graphs: Whether its module reads graphs, see `Metanet`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)  # later versions may add fields
    schema_version: int
    model: str
    settings: Settings
    task: Task | None
    data: TaskData | None = None
    seed: int
    epochs: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    target: str = TARGET
    rows: str = "weights"
    link: Link
    reads: str | None
    layout: list[dict[str, Any]] = []
    activations: dict[str, str] = {}
    include_fixed: bool = False
    graphs: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_first_form(cls, values: Any) -> Any:
        """Read the first form of schema 2, which named a treatment and a target in the place of a task."""
        if not isinstance(values, dict) or "treatment" not in values:
            return values
        head, zoo = values["head"], values["zoo"]
        return values | {
            "task": {"recipe": zoo["name"], "learn_from": [values["treatment"]], "target": values["task"]},
            "target": values["task"],
            "settings": {"options": values["options"]},
            "data": None,
            "link": {"kind": head["link"], "mean": head["mean"], "std": head["std"]},
            "reads": MODELS[values["model"]].reads,
            "include_fixed": values["fixed"],
        }

    @classmethod
    def of(cls, origin: Origin, link: Link, reader: Reader | None, graph: ParameterGraph | None) -> "Config":
        """Describe a metanetwork."""
        read = dict[str, Any](reads=None)
        if reader is not None:
            read = {"reads": reader.name, "layout": reader.layout.to_json(), "activations": reader.activations}
            read |= {"include_fixed": reader.include_fixed}
        came: dict[str, Any] = vars(origin)
        return cls(schema_version=SCHEMA, **came, link=link, **read, graphs=graph is not None)

    @property
    def origin(self) -> Origin:
        """Where the metanetwork comes from."""
        return Origin(**{field.name: getattr(self, field.name) for field in fields(Origin)})


def write_checkpoint(path: Path, config: Config, module: nn.Module, reader: Reader | None) -> None:
    """Write a metanetwork."""
    parts = {"network": module} | ({} if reader is None else {"reader": reader})
    tensors = {
        f"{part}.{name}": t.cpu().contiguous() for part, m in parts.items() for name, t in m.state_dict().items()
    }
    write_whole(path, safetensors.torch.save(tensors, {"asymzoo": config.model_dump_json()}))


def read_checkpoint(
    path: Path, model: type[nn.Module] | nn.Module | None = None
) -> tuple[Config, nn.Module, Reader | None]:
    """Read what `write_checkpoint` wrote; `model` is given where it is not built in.

    Raises:
        TaskError: If the file is no such checkpoint, or holds a metanetwork that is not known.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            config = Config(**json.loads((file.metadata() or {}).get("asymzoo", "{}")))
            if config.schema_version != SCHEMA:
                raise TaskError(f"{path}: is of format {config.schema_version}, not {SCHEMA}; install another asymzoo")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if model is None and config.model not in MODELS:
            raise TaskError(f"{path}: holds {config.model}, which is not built in; Metanet.load(path, model=...)")
        config.link(torch.zeros(1, config.link.outputs))
        return config, *_build(config, tensors, MODELS[config.model] if model is None else model)
    except TaskError:
        raise
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # what is wrong in a file from anywhere may show at any step
        fact = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise TaskError(f"{path}: no checkpoint of a metanetwork ({fact}); train one and save it") from None


def _build(
    config: Config, tensors: dict[str, Tensor], model: type[nn.Module] | nn.Module
) -> tuple[nn.Module, Reader | None]:
    """Return the module and the reader that a checkpoint holds."""
    reader = None
    if config.reads is not None:
        layout = ParameterLayout.from_json(config.layout)
        state = {name.replace("trainable", "mask"): t for name, t in _part(tensors, "reader").items()}  # its first name
        reader = READERS[config.reads](layout, state["mask"], config.activations, config.include_fixed)
        reader.load_state_dict(state)
    if isinstance(model, type) and not issubclass(model, Metanetwork):
        raise TaskError(f"model: {model.__name__} is no subclass of Metanetwork; give a module, as {model.__name__}()")
    if isinstance(model, type):
        outputs = {} if config.link.outputs == 1 else {"outputs": config.link.outputs}
        module: nn.Module = model(reader, **outputs, **config.settings.options)
    else:
        module = copy.deepcopy(model)
    module.load_state_dict(_part(tensors, "network"))
    return module, reader


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def name_of(model: type[nn.Module] | nn.Module) -> str:
    """Return the name of a built-in metanetwork, or `module:Class`."""
    kind = model if isinstance(model, type) else type(model)
    known: dict[type[nn.Module], str] = {cls: name for name, cls in MODELS.items()}
    return known.get(kind, f"{kind.__module__}:{kind.__qualname__}")
