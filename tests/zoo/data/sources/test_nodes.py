import pytest
import torch

from tests.zoo.data.scenarios import message, write_arxiv
from zoo.data import DATASETS, load_data
from zoo.data.graphs import GRAPHS, graph_of
from zoo.data.sources.nodes import Nodes
from zoo.errors import DataError


def test_examples_are_numbers_of_nodes_with_their_labels():
    graph, data = graph_of("sbm"), load_data("sbm")
    assert data.shape == (1,)
    assert data.classes == len(graph.y.unique()) == 5
    for x, y, nodes in ((data.train_x, data.train_y, graph.train), (data.test_x, data.test_y, graph.test)):
        assert torch.equal(x[:, 0].long(), nodes)
        assert torch.equal(y, graph.y[nodes])
    few, fewer = (load_data("sbm", train_limit=limit) for limit in (40, 20))
    assert torch.equal(few.train_x[:20], fewer.train_x)
    with pytest.raises(DataError, match="sbm has 500 training examples"):
        load_data("sbm", train_limit=501)


def test_nodes_of_every_graph_are_a_data_set():
    assert {name for name, source in DATASETS.items() if isinstance(source, Nodes)} == set(GRAPHS)


def test_nodes_of_a_graph_of_files_are_examples(arxiv):
    data = load_data("ogbn-arxiv", data_dir=arxiv)
    assert [x.tolist() for x in (data.train_x, data.test_x)] == [[[0], [2]], [[3]]]
    assert [y.tolist() for y in (data.train_y, data.test_y)] == [[0, 1], [0]]
    assert (data.folder, data.classes, data.moments) == (arxiv, 40, None)


def test_the_error_names_labels_beyond_the_classes_of_a_data_set(tmp_path):
    write_arxiv(tmp_path, label="0\n1\n40\n0\n")
    assert message("ogbn-arxiv", data_dir=tmp_path).startswith("ogbn-arxiv: labels run from 0 to 40, not 0 to 39;")
