"""A trained metanetwork with all that it takes to use it again: in memory, and as one safetensors file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from metanets.datasets import Examples, fit_reader, read_split
from metanets.inputs import READERS, Reader
from metanets.models import MODELS
from metanets.settings import Settings
from metanets.training import Head, Predictor, build, fit
from zoo.errors import TaskError, nearest
from zoo.files import write_whole
from zoo.networks.parameters import ParameterLayout
from zoo.store.manifest import SCHEMA
from zoo.store.zoo import Zoo


class Config(BaseModel):
    """What a checkpoint says of itself.

    Attributes:
        schema_version: of the checkpoint's format, that of zoos.
        model, options: the metanetwork, and the arguments of its constructor.
        zoo: name and digest of the recipe whose networks it has learnt from.
        treatment, task: which of them, and what it predicts.
        seed: of the training.
        layout, activations, fixed: of its reader.
        head: from its number to a prediction.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)  # later versions may add fields
    schema_version: int
    model: str
    options: dict[str, Any]
    zoo: dict[str, str]
    treatment: str
    task: str
    seed: int
    layout: list[dict[str, Any]]
    activations: dict[str, str]
    fixed: bool
    head: Head


class Metanet:
    """Predicts a property of networks from their weights.

    Arguments:
        config: what it is.
        reader: fitted.
        predictor: trained.
    """

    def __init__(self, config: Config, reader: Reader, predictor: Predictor) -> None:
        self.config, self.reader, self.predictor = config, reader, predictor

    def __repr__(self) -> str:
        """Show what predicts what."""
        config = self.config
        return f"Metanet({config.model!r}, {config.task} of {config.zoo.get('name')}/{config.treatment})"

    @property
    def layout(self) -> ParameterLayout:
        """Of the networks that it reads."""
        return self.reader.layout

    @torch.no_grad()
    def predict(
        self, networks: Float[Tensor, "networks parameters"] | Sequence[nn.Module]
    ) -> Float[Tensor, " networks"]:
        """Predict, for rows of a zoo or for modules of its architecture.

        Raises:
            TaskError: if they are of another architecture, or there are none.
        """
        if not len(networks):
            raise TaskError(f"networks: there are none; give {self} at least one")
        rows = networks if isinstance(networks, Tensor) else torch.stack([self._row(module) for module in networks])
        if rows.shape[1:] != (self.layout.size,):
            raise TaskError(f"rows: {tuple(rows.shape)}, but {self} reads (networks, {self.layout.size})")
        x = self.reader(rows.to(self.reader.mean))
        return self.predictor(Examples(x, x.new_zeros(len(x)))).cpu()

    def check(self, zoo: Zoo, treatment: str) -> None:
        """Raise a `TaskError` if a zoo's networks are of another architecture than those it reads."""
        theirs = zoo.treated(treatment).layout
        if theirs != self.layout:
            raise TaskError(
                f"{zoo.folder}: axes of {treatment} are {theirs.axes}, but {self} reads {self.layout.axes}; "
                "train on networks like these"
            )

    def _row(self, module: nn.Module) -> Tensor:
        named = dict(module.named_parameters())
        shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
        if shapes != {parameter.name: parameter.shape for parameter in self.layout.parameters}:
            raise TaskError(f"module: its parameters are not those that {self} reads")
        return self.layout.flatten(named)

    def save(self, path: str | Path) -> None:
        """Write everything as safetensors.

        Raises:
            TaskError: if it is made of trees, which have no tensors.
        """
        if not list(self.predictor.network.parameters()):
            raise TaskError(f"{self.config.model}: holds no tensors to save; train it again, it takes seconds")
        parts = {"reader": self.reader, "network": self.predictor.network}
        tensors = {f"{part}.{name}": t.contiguous() for part, m in parts.items() for name, t in m.state_dict().items()}
        write_whole(Path(path), safetensors.torch.save(tensors, {"asymzoo": self.config.model_dump_json()}))

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Metanet":
        """Read what `save` wrote.

        Raises:
            TaskError: if the file is no such checkpoint.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                config = Config(**json.loads((file.metadata() or {}).get("asymzoo", "{}")))
                if config.schema_version != SCHEMA:
                    raise TaskError(
                        f"{path}: is of format {config.schema_version}, not {SCHEMA}; install another asymzoo"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            layout = ParameterLayout.from_json(config.layout)
            model = MODELS[config.model]
            reader = READERS[model.reads](layout, tensors["reader.trainable"], config.activations, config.fixed)
            reader.load_state_dict(_part(tensors, "reader"))
            network = model(reader, **config.options)
            network.load_state_dict(_part(tensors, "network"))
            config.head(torch.zeros(1))
        except TaskError:
            raise
        except OSError as error:
            raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from None
        except Exception as error:  # what is wrong in a file from anywhere may show at any step
            fact = next(iter(str(error).splitlines()), type(error).__name__)
            raise TaskError(f"{path}: no checkpoint of a metanetwork ({fact}); train one and save it") from None
        return cls(config, reader.to(device), Predictor(network.to(device), config.head))


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def train_model(
    zoo: Zoo,
    treatment: str,
    model: str,
    *,
    task: str = "test_accuracy",
    seeds: Sequence[int] = (0,),
    fixed: bool = False,
    settings: Settings | None = None,
    train_networks: int | None = None,
    device: str = "cpu",
    progress: Callable[[int], object] = lambda trainings: None,
) -> list[Metanet]:
    """Train a metanetwork once for each seed, on the train split of a treatment.

    Arguments:
        zoo, treatment: the networks that are read; those that diverged are left out.
        model: a key of `metanets.models.MODELS`.
        task: the metric of the zoo that is predicted.
        seeds: of starts and orders.
        fixed: whether to read also the entries that are the same in all networks.
        settings: of the training; by default the best that are known for the metanetwork and the task.
        train_networks: learn from so many of the training networks only.
        device: `cpu` or `cuda`.
        progress: called with the number of trainings that have come to their end.

    Raises:
        TaskError: if there is no such model, it cannot read such networks, or the zoo is too small.
        ZooError: if the zoo has no such treatment or metric.
    """
    if model not in MODELS:
        raise TaskError(f"model: no metanetwork {model!r}{nearest(model, MODELS)}; there are {', '.join(MODELS)}")
    kind, settings = MODELS[model], settings or Settings.best(model, task)
    reader = fit_reader(zoo, treatment, kind.reads, fixed=fixed).to(device)
    augment = settings.augment == "permute"
    train = read_split(zoo, treatment, "train", reader, task=task, networks=train_networks, augment=augment)
    validation = read_split(zoo, treatment, "validation", reader, task=task)
    networks = [network.to(device) for network in _begin(model, reader, settings, seeds)]
    predictors = []
    for some in [slice(None)] if kind.stacks else [slice(s, s + 1) for s in range(len(seeds))]:
        share = task.endswith("accuracy")
        predictors += fit(networks[some], train, validation, settings, seeds=seeds[some], share=share)
        progress(len(seeds[some]))
    read: dict[str, Any] = {"layout": reader.layout.to_json(), "activations": reader.activations, "fixed": fixed}
    what: dict[str, Any] = {"model": model, "options": settings.options, "treatment": treatment, "task": task}
    learnt: dict[str, Any] = {"schema_version": SCHEMA, "zoo": zoo.origin}
    return [
        Metanet(Config(**what, **read, **learnt, seed=seed, head=predictor.head), reader, predictor)
        for seed, predictor in zip(seeds, predictors, strict=True)
    ]


def _begin(model: str, reader: Reader, settings: Settings, seeds: Sequence[int]) -> list[nn.Module]:
    """Return an untrained metanetwork for each seed."""
    try:
        return [build(lambda: MODELS[model](reader, **settings.options), seed) for seed in seeds]
    except TypeError as error:
        raise TaskError(f"{model}: options: {error}") from None
