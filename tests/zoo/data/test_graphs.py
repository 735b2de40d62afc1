import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch_geometric.data import Data
from torch_geometric.utils import contains_self_loops, is_undirected

from tests.scenarios import treat
from tests.zoo.data.scenarios import write_arxiv
from zoo.data import load_data
from zoo.data.graphs import ARXIV, BETWEEN, BLOCK_SIZE, BLOCKS, WITHIN, Graph, graph_of
from zoo.errors import DataError
from zoo.networks.architectures import ARCHITECTURES
from zoo.recipes.recipe import Recipe


def test_edges_are_as_frequent_as_the_block_model_says():
    graph = graph_of("sbm")
    same = graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]
    nodes = BLOCKS * BLOCK_SIZE
    within, between = nodes * (BLOCK_SIZE - 1), nodes * (nodes - BLOCK_SIZE)
    for share, expected, count in ((same.sum() / within, WITHIN, within), ((~same).sum() / between, BETWEEN, between)):
        assert abs(float(share) - expected) < 5 * np.sqrt(2 * expected / count)
    assert is_undirected(graph.edge_index)
    assert not contains_self_loops(graph.edge_index)


def test_half_of_the_nodes_train_and_the_others_test():
    graph = graph_of("sbm")
    assert sorted(torch.cat([graph.train, graph.test]).tolist()) == list(range(BLOCKS * BLOCK_SIZE))
    torch.testing.assert_close(graph.x.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(graph.x.std(0, correction=0), torch.ones(16), atol=1e-5, rtol=0)


def test_features_alone_classify_worse_than_features_with_those_of_neighbours():
    graph = graph_of("sbm")
    source, target = graph.edge_index
    around = torch.zeros_like(graph.x).index_add(0, target, graph.x[source])
    scores = [
        LogisticRegression(max_iter=500)
        .fit(x[graph.train], graph.y[graph.train])
        .score(x[graph.test], graph.y[graph.test])
        for x in (graph.x, torch.cat([graph.x, around], 1))
    ]
    assert 0.3 < scores[0] < 0.7
    assert scores[0] + 0.1 < scores[1] < 0.95


def test_logits_of_a_node_do_not_depend_on_the_other_nodes_of_the_batch():
    treated = treat("standard", "gnn")
    rows = torch.stack([treated.layout.draw_initial(np.random.default_rng(k)) for k in range(2)])
    stack = treated.stack(rows)
    x = load_data("sbm").test_x[:30]
    torch.testing.assert_close(stack.logits(x[:7]), stack.logits(x)[:, :7])


def test_renumbering_the_nodes_does_not_change_their_logits(monkeypatch):
    treated, graph = treat("standard", "gnn"), graph_of("sbm")
    rows = treated.layout.draw_initial(np.random.default_rng(0))[None]
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(graph.y)))  # new node i is old node order[i]
    renamed = Graph(graph.x[order], order.argsort()[graph.edge_index], graph.y[order], graph.train, graph.test)
    nodes = torch.arange(50)[:, None].float()
    before = treated.stack(rows).logits(order[:50, None].float())
    monkeypatch.setattr("zoo.networks.architectures.gnn.graph_of", lambda *_: renamed)
    torch.testing.assert_close(treated.stack(rows).logits(nodes), before)


def test_arxiv_is_read_from_its_files(arxiv):
    graph = graph_of("ogbn-arxiv", arxiv)
    assert graph.y.tolist() == [0, 1, 1, 0]
    assert graph.train.tolist() == [0, 2]
    assert graph.test.tolist() == [3]
    assert Data(edge_index=graph.edge_index, num_nodes=4).is_undirected()
    assert set(map(tuple, graph.edge_index.T.tolist())) == {(0, 1), (1, 0), (1, 2), (2, 1)}
    raw = np.array([[1, 0], [2, 4], [3, 8], [4, 0]], float)
    assert np.allclose(graph.x, (raw - raw.mean(0)) / raw.std(0))
    assert graph_of("ogbn-arxiv", arxiv) is graph
    gnn = ARCHITECTURES["gnn"](graph="ogbn-arxiv", features=2, classes=2, hidden=4)
    gnn.data_dir = arxiv
    assert gnn(torch.tensor([[3.0], [0.0]])).shape == (2, 2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("raw/edge", "0,9\n", "edge.csv.gz names nodes that do not exist"),
        ("split/time/test", "-1\n", "test.csv.gz names nodes that do not exist"),
        ("raw/node-label", "0\n", "names nodes that do not exist"),
        ("raw/node-feat", "a,b\n", "node-feat.csv.gz: cannot be read"),
        ("raw/node-feat", "", "node-feat.csv.gz: cannot be read"),
    ],
)
def test_damaged_files_are_one_clear_line(arxiv, file, content, message):
    (arxiv / "arxiv" / f"{file}.csv.gz").write_bytes(gzip.compress(content.encode()))
    with pytest.raises(DataError, match=message) as caught:
        graph_of("ogbn-arxiv", arxiv)
    assert "\n" not in str(caught.value)


def test_the_error_names_missing_files(arxiv):
    (arxiv / "arxiv" / "raw" / "edge.csv.gz").unlink()
    with pytest.raises(DataError, match=r"edge\.csv\.gz: cannot be read"):
        graph_of("ogbn-arxiv", arxiv)
    with pytest.raises(DataError, match="has no folder arxiv/raw"):
        graph_of("ogbn-arxiv", arxiv / "arxiv" / "split")


@pytest.mark.parametrize("read", [graph_of, load_data])
def test_a_graph_from_files_needs_a_folder_even_after_it_was_read(arxiv, read):
    graph_of("ogbn-arxiv", arxiv)
    with pytest.raises(DataError) as caught:
        read("ogbn-arxiv")
    assert (
        f"unpack {ARXIV} in a folder DIR and give --data-dir DIR (in Python load_data(..., data_dir=DIR) or open_zoo(..., data_dir=DIR))"
        in str(caught.value)
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_each_folder_has_its_own_graph_in_any_order_of_reading(tmp_path, order):
    labels = {"one": "0\n1\n1\n0\n", "two": "1\n0\n1\n1\n"}
    for folder, text in labels.items():
        write_arxiv(tmp_path / folder, label=text)
    for folder in [*order, *order]:
        expected = [int(label) for label in labels[folder].split()]
        assert graph_of("ogbn-arxiv", tmp_path / folder).y.tolist() == expected
        assert load_data("ogbn-arxiv", data_dir=tmp_path / folder).train_y.tolist() == expected[::2]


def test_a_relative_folder_depends_on_the_working_directory(tmp_path, monkeypatch):
    labels = []
    for folder in ("one", "two"):
        write_arxiv(tmp_path / folder, label=f"{folder == 'two':d}\n0\n0\n0\n")
        monkeypatch.chdir(tmp_path / folder)
        labels.append(graph_of("ogbn-arxiv", Path()).y.tolist())
    assert labels == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_a_graph_is_read_once_for_all_spellings_of_its_folder(arxiv, monkeypatch):
    graph = graph_of("ogbn-arxiv", arxiv)
    monkeypatch.chdir(arxiv.parent)
    assert graph_of("ogbn-arxiv", Path(arxiv.name)) is graph
    assert graph_of("ogbn-arxiv", arxiv / "arxiv" / "..") is graph


def test_the_built_in_recipe_fits_its_data():
    recipe, data = Recipe.load("sbm-gnn-replicas"), load_data("sbm")
    module = recipe.treat("standard").module
    assert module(data.test_x[:2]).shape == (2, data.classes)
    assert recipe.training.batch_size == len(data.train_y)  # whole batches: each step works out the whole graph
