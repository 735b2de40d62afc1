"""The fields on responsible use in the metadata of a zoo.

These are the eight fields that the NeurIPS 2026 track on evaluations and data sets requires,
https://neurips.cc/Conferences/2026/EvaluationsDatasetsHosting, in the vocabularies of Croissant RAI 1.0,
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html, and W3C PROV-O, https://www.w3.org/TR/prov-o/.
"""

from typing import Any

from zoo.store.manifest import Manifest

CONFORMS_TO = "http://mlcommons.org/croissant/RAI/1.0"
NAMESPACES = {"rai": "http://mlcommons.org/croissant/RAI/", "prov": "http://www.w3.org/ns/prov#"}
FIELDS: dict[str, Any] = {  # the same for every zoo
    "rai:dataLimitations": [
        "The networks are small and learned small data sets. Findings about them need not hold for large networks.",
        "Accuracies of some recipes are close to their maximum, so correlations over all networks say little about "
        "the good ones.",
        "What is learned from one treatment, recipe or architecture need not transfer to another.",
        "The networks are objects of study; they are not meant to be used for the tasks that they were trained on.",
    ],
    "rai:dataBiases": [
        "The networks are draws from a distribution over hyperparameters that is wider than what one would choose in "
        "practice; badly trained networks are more frequent than in collections of published models.",
        "The networks have the biases of the data that they learned.",
    ],
    "rai:personalSensitiveInformation": "None: a row has a network's weights, settings and measurements. "
    "Networks can memorise examples; these learned from public research data sets.",
    "rai:dataUseCases": [
        "Training and testing metanetworks, which predict properties of networks from their weights.",
        "Measuring what parameter symmetry does to interpolation, merging and posteriors.",
    ],
    "rai:dataSocialImpact": "Methods that read weights can help to audit models. The same methods could reveal what a "
    "model was trained on. The networks themselves are small classifiers without a practical use.",
    "rai:hasSyntheticData": True,  # all data were computed, none observed
}
SOURCES = {  # name and page of the data sets that networks learn, by their names in recipes
    "digits": ("Optical Recognition of Handwritten Digits", "https://doi.org/10.24432/C50P49"),
    "sbm": ("A graph drawn from a stochastic block model", "https://en.wikipedia.org/wiki/Stochastic_block_model"),
    "ogbn-arxiv": ("ogbn-arxiv", "https://ogb.stanford.edu/docs/nodeprop/#ogbn-arxiv"),
    "mnist1d": ("MNIST-1D", "https://huggingface.co/datasets/christopher/mnist1d"),
    "mnist": ("MNIST", "https://huggingface.co/datasets/ylecun/mnist"),
    "fashion_mnist": ("Fashion-MNIST", "https://huggingface.co/datasets/zalando-datasets/fashion_mnist"),
    "kmnist": ("Kuzushiji-MNIST", "https://huggingface.co/datasets/tanganke/kmnist"),
    "cifar10": ("CIFAR-10", "https://huggingface.co/datasets/uoft-cs/cifar10"),
    "svhn": ("Street View House Numbers, cropped", "https://huggingface.co/datasets/ufldl-stanford/svhn"),
}


def responsible_use(manifest: Manifest) -> dict[str, Any]:
    """Return the eight fields on responsible use for a zoo."""
    data = manifest.recipe.get("data")
    learned = str(data.get("name", "")) if isinstance(data, dict) else ""
    name, url = SOURCES.get(learned, (learned, None))
    source = {"@type": "sc:Dataset", "name": name} | ({} if url is None else {"url": url})
    return FIELDS | {"prov:wasDerivedFrom": [source], "prov:wasGeneratedBy": _activities(manifest)}


def _activities(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the activities that made the zoo: training, and the import of networks that others trained."""
    versions = ", ".join(" ".join(pair) for pair in manifest.versions.items())
    if manifest.source is None:
        return [_activity("Training", f"AsymZoo trained the networks by recipe {manifest.digest}, with {versions}.")]
    return [
        _activity("Training", f"Others trained the networks: {manifest.source}."),
        _activity("Import", f"AsymZoo converted them to its format, as recipe {manifest.digest}, with {versions}."),
    ]


def _activity(label: str, description: str) -> dict[str, Any]:
    return {"@type": "prov:Activity", "prov:label": label, "description": description}
